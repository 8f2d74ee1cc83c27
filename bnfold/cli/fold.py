"""``bnfold fold``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli import project, reports
from bnfold.cli.batch import conclude, executor, is_many, sharing
from bnfold.cli.options import (
    FILE,
    check_json_target,
    common,
    expand,
    external_data,
    plan_options,
    planning,
    progress,
    report_stream,
    same_file,
    unsafe_shapes,
    write_json,
)
from bnfold.cli.verification_options import verify_options, verifying
from bnfold.errors import OutputError, Refused, UsageError

if TYPE_CHECKING:
    from bnfold.batch.run import Outcome
    from bnfold.options import FoldOptions
    from bnfold.report.terminal import Terminal
    from bnfold.results.folding import Comparison, Folding


@click.command("fold", short_help="Remove BatchNorms from a model, verify the result, write it.")
@click.argument("models", nargs=-1, metavar="[MODEL...]", type=FILE)
@click.option("-o", "--output", metavar="OUT", type=FILE, help="Where to write; - for standard output.")
@click.option("--output-dir", metavar="DIR", type=FILE, help="Folder to write to, under the models' own names.")
@click.option("--in-place", is_flag=True, help="Replace the model itself.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--verify/--no-verify", default=True, help="Verify before writing (default); a failure is never written.")
@click.option("--dry-run", is_flag=True, help="Plan and report; write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any BatchNorm stays.")
@click.option("--only", multiple=True, metavar="NAME", help="Fold only these (node or output; repeatable).")
@click.option("--skip", multiple=True, metavar="NAME", help="Leave these (node or output; repeatable).")
@planning
@external_data
@click.option("--to", type=click.Choice(["onnx", "pt2"]), help="Format to write.  [default: that of MODEL]")
@sharing
@verifying
@common
def command(models: tuple[str, ...], **given: Any) -> None:
    """Fold the BatchNorms of MODEL into the neighbouring weights, verify the result and write it.

    OUT is by default MODEL with '.folded' before its suffix, beside it. An existing file is never
    replaced without --force, the model itself never without --in-place. Without any MODEL, the list comes from
    [tool.bnfold] in pyproject.toml.
    """
    from bnfold.options import FoldOptions
    from bnfold.report.terminal import Terminal

    places = {} if models else {entry.model: entry.output for entry in project.models("fold")}
    files = expand(models) if models else list(places)
    many = is_many(files, given)
    _check_targets(files, given)
    given["places"] = places
    fixed = {"shape": ()} if given["allow_unsafe_load"] else {}  # the shapes are then those of the export
    options = FoldOptions(
        only=given["only"],
        skip=given["skip"],
        external=given["external_data"],
        verify=verify_options({**given, **fixed}) if given["verify"] else None,
        to=given["to"],
        unsafe_shapes=unsafe_shapes(given),
        **plan_options(given),
    )
    on_stdout = given["output"] == "-" or (files == ["-"] and not given["output"])
    check_json_target(given["json_file"], model_on_stdout=on_stdout)
    wanted = reports.wanted(given["reports"], files)
    terminal = Terminal(report_stream(given["json_file"], on_stdout), color=not given["no_color"])
    quiet_stdout = on_stdout or given["json_file"] == "-"
    if many:
        sys.exit(_fold_many(files, options, given, terminal, lambda found: _report(wanted, found, quiet_stdout)))
    kept = _fold_one(files[0], options, given, terminal, lambda found: _report(wanted, found, quiet_stdout))
    sys.exit(int(given["strict"] and kept))


def _fold_one(
    model: str,
    options: FoldOptions,
    given: dict[str, Any],
    terminal: Terminal,
    report: Callable[[Folding | Comparison], None],
) -> bool:
    """Fold a model and tell what came of it; True if a BatchNorm stays."""
    from bnfold.api import fold

    target = _target(model, given)
    _check_self(target, model, given)
    force = given["force"] or given["in_place"]
    try:
        with progress(given):
            result = fold(model, target, options, force=force, dry_run=given["dry_run"])
    except Refused as error:
        write_json(given["json_file"], error.folding.to_dict())
        report(error.folding)
        raise
    if not given["quiet"] and given["json_file"] != "-":
        from bnfold.report import text

        text.print_folding(terminal, result, verbose=given["verbose"])
    report(result)
    write_json(given["json_file"], result.to_dict())
    return bool(result.inspection.kept)


def _fold_many(
    files: list[str],
    options: FoldOptions,
    given: dict[str, Any],
    terminal: Terminal,
    report: Callable[[Folding | Comparison], None],
) -> int:
    """Fold several models and tell what came of them; the exit code."""
    from bnfold.batch.run import fold_many

    targets = {model: _target(model, given) for model in files}
    for model, target in targets.items():
        _check_self(target, model, given)
    force = given["force"] or given["in_place"]

    def report_outcome(outcome: Outcome) -> None:
        """The reports that were asked for."""
        if outcome.comparison is not None:
            report(outcome.comparison)

    with executor(given) as workers:
        outcomes = fold_many(
            targets, options, executor=workers, manifest=given["resume"], force=force, dry_run=given["dry_run"]
        )
        return conclude(outcomes, files, given, terminal, report_outcome)


def _check_self(target: str | None, model: str, given: dict[str, Any]) -> None:
    if not given["in_place"] and same_file(target, model):
        raise UsageError(f"{target}: is the model itself", "pass --in-place to replace it")


def _report(wanted: list[reports.Report], found: Folding | Comparison, quiet_stdout: bool) -> None:
    if wanted:
        from bnfold.results.folding import Folding, as_comparison

        comparison = as_comparison(found) if isinstance(found, Folding) else found
        reports.write(wanted, comparison, to_stderr=quiet_stdout)
        from bnfold.report import report_data as story

        reports.write_page(
            wanted, lambda: story.of_folding(found) if isinstance(found, Folding) else story.of_comparison(found)
        )


def _check_targets(files: list[str], given: dict[str, Any]) -> None:
    if given["in_place"] and (given["output"] or given["output_dir"]):
        raise UsageError("--in-place goes with neither --output nor --output-dir")
    if given["output"] and given["output_dir"]:
        raise UsageError("--output and --output-dir exclude each other")
    if given["output"] and len(files) > 1:
        raise UsageError("--output takes one model", "use --output-dir")
    if given["output_dir"]:
        names = [Path(name).name for name in files]
        if len(set(names)) < len(names):
            raise UsageError("two models of the same name would go to one file in --output-dir")
        try:
            Path(given["output_dir"]).mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{given['output_dir']}: {getattr(error, 'strerror', None) or error}") from None
    elif given["json_file"] and given["output"] and Path(given["json_file"]) == Path(given["output"]) != Path("-"):
        raise UsageError("--json and --output name the same file")


def _target(model: str, given: dict[str, Any]) -> str | None:
    if given["output_dir"]:
        name = Path(model).with_suffix(f".{given['to']}").name if given["to"] else Path(model).name
        return str(Path(given["output_dir"]) / name)
    if given["in_place"]:
        return model
    output: str | None = given["output"] or given["places"].get(model)
    if output and not given["output"]:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
    return output
