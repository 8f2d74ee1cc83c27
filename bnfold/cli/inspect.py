"""``bnfold inspect``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli import project, reports
from bnfold.cli.batch import conclude, executor, is_many, sharing
from bnfold.cli.options import (
    FILE,
    check_json_target,
    check_plot,
    common,
    draw_drifts,
    expand,
    plan_options,
    planning,
    progress,
    report_stream,
    unsafe_shapes,
    write_json,
)
from bnfold.errors import OutputError, UsageError

if TYPE_CHECKING:
    from bnfold.results.folding import Inspection


@click.command("inspect", short_help="Show every BatchNorm: where it would fold to, or why it stays.")
@click.argument("models", nargs=-1, metavar="[MODEL...]", type=FILE)
@click.option(
    "--graph",
    "picture",
    metavar="FILE",
    type=FILE,
    help="Draw each one with its neighbours and their maps: .svg or .html.",
)
@planning
@click.option(
    "--data",
    metavar="PATH",
    type=FILE,
    help="Compare statistics with these data: .npy, .npz, or a folder of such.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Rows at once of --data.  [default: 64, or the model's]")
@click.option(
    "--plot",
    metavar="FILE",
    type=FILE,
    help="With --data: draw the drift, .svg, .png or .pdf (needs bnfold[plot]).",
)
@click.option("--report", "reports", multiple=True, metavar="html=FILE", help="Write a page (needs bnfold[html]).")
@click.option("--shape", multiple=True, metavar="NAME:DIMS", help="With --allow-unsafe-load: x:1,3,224,224.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any BatchNorm would stay.")
@sharing
@common
def command(models: tuple[str, ...], **given: Any) -> None:
    """Show every BatchNorm of MODEL: where it would fold to, or the reason that it stays.

    Looks into subgraphs and functions, and finds BatchNorms that an exporter has decomposed. Changes nothing.
    Without any MODEL, the list comes from [tool.bnfold] in pyproject.toml.
    """
    from bnfold.options import FoldOptions
    from bnfold.report.terminal import Terminal

    files = expand(models) if models else [entry.model for entry in project.models("inspect")]
    many = is_many(files, given)
    _check(files, given, many=many)
    wanted = reports.only_html(given["reports"], files)
    options = FoldOptions(unsafe_shapes=unsafe_shapes(given), **plan_options(given))
    terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])
    if many:
        from bnfold.batch.run import inspect_many

        with executor(given) as workers:
            outcomes = inspect_many(files, options, executor=workers, manifest=given["resume"])
            sys.exit(conclude(outcomes, files, given, terminal))
    from bnfold.api import inspect

    with progress(given):
        result = inspect(files[0], options, data=given["data"], batch=given["batch_size"])
    if not given["quiet"] and given["json_file"] != "-":
        from bnfold.report import text

        text.print_inspection(terminal, result, verbose=given["verbose"])
    if given["picture"]:
        _draw(given["picture"], result)
    if given["plot"]:
        draw_drifts({row.name: row.drift for row in result.rows if row.drift}, result.model.path, given["plot"])
    write_json(given["json_file"], result.to_dict())
    if wanted:
        from bnfold.report import report_data as story

        reports.write_page(wanted, lambda: story.of_inspection(result))
    sys.exit(int(given["strict"] and bool(result.kept)))


def _check(files: list[str], given: dict[str, Any], *, many: bool) -> None:
    """Refuse options that contradict each other, before any work is done. Raises UsageError, OutputError."""
    check_json_target(given["json_file"])
    if given["picture"] and (Path(given["picture"]).suffix not in (".svg", ".html") or many):
        raise UsageError("--graph takes one model, and a file that ends in .svg or .html")
    if many and given["data"]:
        raise UsageError("--data takes one model")
    if (given["plot"] or given["batch_size"]) and not given["data"]:
        raise UsageError(f"--{'plot' if given['plot'] else 'batch-size'} goes with --data")
    check_plot(given["plot"], files)


def _draw(target: str, result: Inspection) -> None:
    from bnfold.report import drawing

    text = drawing.svg(result.plans) if target.endswith(".svg") else drawing.page(result.plans, result.model.path)
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
