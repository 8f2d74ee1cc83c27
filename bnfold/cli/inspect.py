"""``bnfold inspect``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnfold.cli import project, reports
from bnfold.cli.batch import BatchParams, conclude, executor
from bnfold.cli.files import check_plot, draw_drifts, expand, write_text
from bnfold.cli.options import PlanningParams, unsafe_shapes
from bnfold.cli.output import OutputParams
from bnfold.cli.params import FILE, HTML_REPORT, UNSAFE_SHAPE, SectionedCommand, declared, option, takes
from bnfold.errors import UsageError
from bnfold.options import FoldOptions

if TYPE_CHECKING:
    from bnfold.results.folding import Inspection


@dataclass(frozen=True)
class InspectParams:
    """What to compare with, and what to write."""

    data: str | None = option(
        "--data",
        metavar="PATH",
        type=FILE,
        help="Compare statistics with these data: .npy, .npz, or a folder of such.",
        section="Statistics",
    )
    batch_size: int | None = option(
        "--batch-size",
        type=click.IntRange(1),
        help="Rows at once of --data.  [default: 64, or the model's]",
        section="Statistics",
    )
    plot: str | None = option(
        "--plot",
        metavar="FILE",
        type=FILE,
        help="With --data: draw the drift, .svg, .png or .pdf (needs bnfold[plot]).",
        section="Statistics",
    )
    picture: str | None = option(
        "--graph",
        "picture",
        metavar="FILE",
        type=FILE,
        help="Draw each BatchNorm with its neighbours and affine transforms: .svg or .html.",
    )
    reports: tuple[str, ...] = declared(HTML_REPORT)
    shape: tuple[str, ...] = declared(UNSAFE_SHAPE, section="Formats")
    strict: bool = option("--strict", is_flag=True, help="Exit with 1 if any BatchNorm would be kept.")


@click.command("inspect", cls=SectionedCommand)
@click.argument("models", nargs=-1, metavar="[MODEL...]", type=FILE)
@takes(planning=PlanningParams, params=InspectParams, batch=BatchParams, output=OutputParams)
def command(
    models: tuple[str, ...],
    planning: PlanningParams,
    params: InspectParams,
    batch: BatchParams,
    output: OutputParams,
) -> None:
    """Show every BatchNorm of MODEL: where it would fold to, or the reason that it is kept.

    Looks into subgraphs and functions, and finds BatchNorms that an exporter has decomposed. Changes nothing.
    Without any MODEL, the list comes from [tool.bnfold] in pyproject.toml.
    """
    files = expand(models) if models else [entry.model for entry in project.models("inspect")]
    many = batch.is_batch(files)
    output.check_json_target()
    _check(files, params, many=many)
    wanted = reports.only_html(params.reports, files)
    shapes = unsafe_shapes(planning.allow_unsafe_load, params.shape)
    options = FoldOptions(unsafe_shapes=shapes, **planning.arguments())
    terminal = output.terminal()
    if many:
        from bnfold.batch.run import inspect_many

        with executor(batch) as workers:
            outcomes = inspect_many(files, options, executor=workers, manifest=batch.resume)
            sys.exit(conclude(outcomes, files, output, terminal, strict=params.strict))
    from bnfold.api import inspect

    with output.progress():
        result = inspect(files[0], options, data=params.data, batch=params.batch_size)
    if output.shows_report:
        from bnfold.report import text

        text.print_inspection(terminal, result, verbose=output.verbose)
        output.print_elapsed(terminal)
    if params.picture:
        _draw(params.picture, result)
    if params.plot:
        draw_drifts({row.name: row.drift for row in result.rows if row.drift}, result.model.path, params.plot)
    output.write_json(result.to_dict())
    if wanted:
        from bnfold.report import report_data

        reports.write_page(wanted, lambda: report_data.of_inspection(result))
    sys.exit(int(params.strict and bool(result.kept)))


def _check(files: list[str], params: InspectParams, *, many: bool) -> None:
    """Refuse options that contradict each other, before any work is done. Raises UsageError, OutputError."""
    if params.picture and (Path(params.picture).suffix not in (".svg", ".html") or many):
        raise UsageError("--graph takes one model, and a file that ends in .svg or .html", "--graph picture.svg")
    if many and params.data:
        raise UsageError("--data takes one model", "inspect them one by one")
    if (params.plot or params.batch_size) and not params.data:
        raise UsageError(
            f"--{'plot' if params.plot else 'batch-size'} goes with --data", "give the data too, or leave it out"
        )
    check_plot(params.plot, files)


def _draw(target: str, result: Inspection) -> None:
    from bnfold.report import drawing

    text = drawing.svg(result.plans) if target.endswith(".svg") else drawing.page(result.plans, result.model.path)
    write_text(Path(target), text)
