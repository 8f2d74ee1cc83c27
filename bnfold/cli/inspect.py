"""``bnfold inspect``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bnfold.cli.options import (
    check_json_target,
    common,
    each,
    expand,
    plan_options,
    planning,
    report_stream,
    unsafe_shapes,
    write_json,
)
from bnfold.errors import OutputError, UsageError


@click.command("inspect", short_help="Show every BatchNorm: where it would fold to, or why it stays.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--graph", "picture", metavar="FILE", help="Draw each one with its neighbours and their maps: .svg or .html."
)
@planning
@click.option("--shape", multiple=True, metavar="NAME:DIMS", help="With --allow-unsafe-load: x:1,3,224,224.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any BatchNorm would stay.")
@common
def command(models: tuple[str, ...], **given: Any) -> None:
    """Show every BatchNorm of MODEL: where it would fold to, or the reason that it stays.

    Looks into subgraphs and functions, and finds BatchNorms that an exporter has decomposed. Changes nothing.
    """
    from bnfold.api import FoldOptions, inspect
    from bnfold.report.terminal import Terminal

    check_json_target(given["json_file"])
    if given["picture"] and (Path(given["picture"]).suffix not in (".svg", ".html") or len(expand(models)) > 1):
        raise UsageError("--graph takes one model, and a file that ends in .svg or .html")
    options = FoldOptions(unsafe_shapes=unsafe_shapes(given), **plan_options(given))
    terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])

    def work(model: str) -> Any:
        inspection = inspect(model, options)
        if not given["quiet"] and given["json_file"] != "-":
            from bnfold.report import text

            text.print_inspection(terminal, inspection, verbose=given["verbose"])
        return inspection

    results, code = each(expand(models), work)
    if given["picture"]:
        _draw(given["picture"], results)
    write_json(given["json_file"], [result.to_dict() for result in results])
    sys.exit(code or int(given["strict"] and any(result.kept for result in results)))


def _draw(target: str, results: list[Any]) -> None:
    from bnfold.report import drawing

    (result,) = results
    text = drawing.svg(result.plans) if target.endswith(".svg") else drawing.page(result.plans, result.model.path)
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
