"""``bnfold fold``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnfold.cli import project, report_values, reports
from bnfold.cli.batch import BatchParams, conclude, executor, strict_code
from bnfold.cli.files import expand, same_file
from bnfold.cli.options import PlanningParams, unsafe_shapes
from bnfold.cli.output import OutputParams
from bnfold.cli.params import EXTERNAL_DATA, FILE, SectionedCommand, declared, option, takes
from bnfold.cli.verification_options import VerificationParams
from bnfold.errors import OutputError, Refused, UsageError
from bnfold.options import External, FoldOptions, Format

if TYPE_CHECKING:
    from bnfold.batch.records import Outcome
    from bnfold.report.terminal import Terminal
    from bnfold.results.folding import Folding
    from bnfold.results.verification import Comparison

Reporter = Callable[["Folding | Comparison"], None]
"""Writes the reports that were asked for."""


@dataclass(frozen=True)
class FoldParams:
    """Where the folded model goes, whether it is verified, and which BatchNorms are folded."""

    output: str | None = option(
        "-o", "--output", metavar="OUT", type=FILE, help="Where to write; - for standard output.", section="Output"
    )
    output_dir: str | None = option(
        "--output-dir",
        metavar="DIR",
        type=FILE,
        help="Folder to write to, under the models' own names.",
        section="Output",
    )
    in_place: bool = option("--in-place", is_flag=True, help="Replace the model itself.", section="Output")
    force: bool = option("--force", is_flag=True, help="Replace OUT if it exists.", section="Output")
    verify: bool = option(
        "--verify/--no-verify",
        default=True,
        help="Verify before writing (default); a failure is never written.",
        section="Output",
    )
    dry_run: bool = option("--dry-run", is_flag=True, help="Plan and report; write nothing.", section="Output")
    strict: bool = option(
        "--strict", is_flag=True, help="Exit with 1 if any BatchNorm is kept, with 3 if inconclusive.", section="Output"
    )
    only: tuple[str, ...] = option(
        "--only",
        multiple=True,
        metavar="NAME",
        help="Fold only these (node or output; repeatable).",
        section="Selection",
    )
    skip: tuple[str, ...] = option(
        "--skip", multiple=True, metavar="NAME", help="Leave these (node or output; repeatable).", section="Selection"
    )

    @property
    def replaces(self) -> bool:
        """True if what stands at the target may be replaced."""
        return self.force or self.in_place


@dataclass(frozen=True)
class FormatParams:
    """How the folded model is written."""

    external_data: External = declared(EXTERNAL_DATA, section="Formats")
    to: Format | None = option(
        "--to",
        type=click.Choice(["onnx", "pt2"]),
        help="Format to write.  [default: that of MODEL]",
        section="Formats",
    )


@click.command("fold", cls=SectionedCommand)
@click.argument("models", nargs=-1, metavar="[MODEL...]", type=FILE)
@takes(
    params=FoldParams,
    planning=PlanningParams,
    formats=FormatParams,
    verification=VerificationParams,
    batch=BatchParams,
    output=OutputParams,
)
def command(
    models: tuple[str, ...],
    params: FoldParams,
    planning: PlanningParams,
    formats: FormatParams,
    verification: VerificationParams,
    batch: BatchParams,
    output: OutputParams,
) -> None:
    """Fold the BatchNorms of MODEL into the neighbouring weights, verify the result and write it.

    OUT is by default MODEL with '.folded' before its suffix, beside it. An existing file is never
    replaced without --force, the model itself never without --in-place. Without any MODEL, the list comes from
    [tool.bnfold] in pyproject.toml.
    """
    places = {} if models else {entry.model: entry.output for entry in project.models("fold")}
    files = expand(models) if models else list(places)
    many = batch.is_batch(files)
    _check_targets(files, params, output)
    # The shapes of a model whose loading runs code are those of its export.
    verify = verification.options(with_shapes=not planning.allow_unsafe_load) if params.verify else None
    options = FoldOptions(
        only=params.only,
        skip=params.skip,
        external=formats.external_data,
        verify=verify,
        to=formats.to,
        unsafe_shapes=unsafe_shapes(planning.allow_unsafe_load, verification.shape),
        **planning.arguments(),
    )
    on_stdout = params.output == "-" or (files == ["-"] and not params.output)
    output.check_json_target(model_on_stdout=on_stdout)
    wanted = reports.wanted(verification.reports, files)
    report = partial(_report, wanted, quiet_stdout=on_stdout or output.json_file == "-")
    targets = {model: _target(model, params, formats.to, places.get(model)) for model in files}
    terminal = output.terminal(model_on_stdout=on_stdout)
    if many:
        sys.exit(_fold_many(files, targets, options, params, batch, output, terminal, report))
    code = _fold_one(files[0], targets[files[0]], options, params, output, terminal, report)
    sys.exit(code if params.strict else 0)


def _fold_one(
    model: str,
    target: str | None,
    options: FoldOptions,
    params: FoldParams,
    output: OutputParams,
    terminal: Terminal,
    report: Reporter,
) -> int:
    """Fold a model and report the result; return the exit code with --strict."""
    from bnfold.api import fold

    try:
        with output.progress():
            result = fold(model, target, options, force=params.replaces, dry_run=params.dry_run)
    except Refused as error:
        output.write_json(error.folding.to_dict())
        report(error.folding)
        raise
    if output.shows_report:
        from bnfold.report import text

        text.print_folding(terminal, result, verbose=output.verbose)
        output.print_elapsed(terminal)
    report(result)
    output.write_json(result.to_dict())
    return strict_code(kept=bool(result.inspection.kept), verdict=result.verdict)


def _fold_many(
    files: list[str],
    targets: Mapping[str, str | None],
    options: FoldOptions,
    params: FoldParams,
    batch: BatchParams,
    output: OutputParams,
    terminal: Terminal,
    report: Reporter,
) -> int:
    """Fold several models and report the results; return the exit code."""
    from bnfold.batch.run import fold_many

    def report_outcome(outcome: Outcome) -> None:
        if outcome.comparison is not None:
            report(outcome.comparison)

    with executor(batch) as workers:
        outcomes = fold_many(
            targets, options, executor=workers, manifest=batch.resume, force=params.replaces, dry_run=params.dry_run
        )
        return conclude(outcomes, files, output, terminal, strict=params.strict, report=report_outcome)


def _report(wanted: list[reports.Report], found: Folding | Comparison, *, quiet_stdout: bool) -> None:
    if wanted:
        from bnfold.results.folding import Folding, as_comparison

        comparison = as_comparison(found) if isinstance(found, Folding) else found
        reports.write(wanted, comparison, to_stderr=quiet_stdout)
        reports.write_page(
            wanted,
            lambda: (
                report_values.of_folding(found) if isinstance(found, Folding) else report_values.of_comparison(found)
            ),
        )


def _check_targets(files: list[str], params: FoldParams, output: OutputParams) -> None:
    """Refuse targets that contradict each other, and make the folder. Raises UsageError, OutputError."""
    if params.in_place and (params.output or params.output_dir):
        raise UsageError("--in-place goes with neither --output nor --output-dir", "leave one out")
    if params.output and params.output_dir:
        raise UsageError("--output and --output-dir exclude each other", "leave one out")
    if params.output and len(files) > 1:
        raise UsageError("--output takes one model", "use --output-dir")
    if params.output_dir:
        names = [Path(name).name for name in files]
        if len(set(names)) < len(names):
            raise UsageError("two models of the same name would go to one file in --output-dir", "fold them one by one")
        try:
            Path(params.output_dir).mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{params.output_dir}: {getattr(error, 'strerror', None) or error}") from None
    elif output.json_file and params.output and Path(output.json_file) == Path(params.output) != Path("-"):
        raise UsageError("--json and --output name the same file", "name another for one of them")


def _target(model: str, params: FoldParams, to: Format | None, place: str | None) -> str | None:
    """Return where the fold of a model goes; ``place`` is what the project says. Raises UsageError."""
    target = params.output or place
    if params.output_dir:
        name = Path(model).with_suffix(f".{to}").name if to else Path(model).name
        target = str(Path(params.output_dir) / name)
    elif params.in_place:
        return model
    elif target and not params.output:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    if same_file(target, model):
        raise UsageError(f"{target}: is the model itself", "pass --in-place to replace it")
    return target
