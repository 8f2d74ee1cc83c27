"""Results for people: tables and a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold import options
from bnfold.report.terminal import Part, Terminal
from bnfold.results.health import FINDINGS, Finding
from bnfold.rules.reasons import REASONS
from bnfold.wording import counted, figure

if TYPE_CHECKING:
    from bnfold.results.calibration import Calibration
    from bnfold.results.drift import Drift
    from bnfold.results.folding import BatchNormRow, Folding, Inspection
    from bnfold.results.verification import Comparison, LayerResult, OutputResult, Verification

COLOURS = {"foldable": "green", "folded": "green", "kept": "yellow"}
VERDICTS = {"equivalent": "green", "different": "red", "inconclusive": "yellow"}
CHECKS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
MARKS = {"pass": "pass", "fail": "FAIL", "inconclusive": "?"}
LAYER = ("LAYER", "", "CHECK", "ERROR RATIO", "MAX ULP", "MAX ABS", "CHANNELS")
OUTPUT = ("OUTPUT", "", "LEVEL", "ERROR RATIO", "MAX ABS", "MAX REL", "MAX ULP", "DETECTION LIMIT")
DRIFT = ("BATCHNORM", "VALUES", "RMS DRIFT", "MAX DRIFT", "OF CHANNEL")
NAMED = 4
"""Layers that a warning names without --verbose."""

SHOWN = 10
"""Layers of a calibration that are shown without --verbose."""


def print_inspection(terminal: Terminal, result: Inspection, *, verbose: bool) -> None:
    """Print the count, where each BatchNorm would be folded to, and why the others are kept."""
    terminal.line((result.model.path, "bold"), f": {_count(result)}")
    _print_foldable(terminal, result.rows if verbose else result.batch_norms)
    _print_kept(terminal, result, verbose=verbose)
    _print_warnings(terminal, _health_of(result), verbose=verbose)
    drifts = [(row.name, row.drift) for row in result.rows if row.drift is not None]
    if drifts:
        terminal.line("Drift of the data from each mean and variance, in stored standard deviations")
        terminal.table(DRIFT, (_drift(name, drift) for name, drift in drifts))
    if result.data is not None and "note" in result.data:
        terminal.line(("note", "yellow"), f": {result.data['note']}")


def print_folding(terminal: Terminal, result: Folding, *, verbose: bool) -> None:
    """Print what was folded, the verdict, what was written; then what was kept and why."""
    inspection, nodes, path = result.inspection, result.nodes, result.inspection.model.path
    total, written = len(inspection.batch_norms), result.output is not None
    if not total:
        terminal.line("No BatchNorms to fold in ", (path, "bold"))
    elif not written:
        terminal.line((path, "bold"), f": {_count(inspection)}")
    else:
        counts = f"{inspection.foldable} of {total} BatchNorm{'s' if total > 1 else ''}"
        terminal.line(f"Folded {counts} in ", (path, "bold"), f" ({nodes['before']} → {nodes['after']} nodes)")
    if verbose:
        _print_foldable(terminal, inspection.rows)
    _print_kept(terminal, inspection, verbose=verbose)
    for note in result.notes:
        terminal.line(("note", "yellow"), f": {note}")
    _print_warnings(terminal, _health_of(inspection), verbose=verbose)
    if result.output is None:
        terminal.line("Dry run: nothing written")
        return
    if result.verification is not None:
        title = "Verified: " if result.verdict == "equivalent" else "Verification: "
        _print_verification(terminal, result.verification, title, verbose=verbose)
    elif result.verdict != "unchanged" and result.output.path != "-":
        terminal.line("Not verified; to do so: ", (f"bnfold verify {path} {result.output.path}", "bold"))
    if result.output.path != "-":
        terminal.line(f"Wrote {result.output.path}{', an unchanged copy' if result.verdict == 'unchanged' else ''}")


def print_comparison(terminal: Terminal, result: Comparison, *, verbose: bool) -> None:
    """Print the verdict and its checks; every folded tensor if ``verbose``."""
    for note in result.notes:
        terminal.line(note)
    _print_verification(terminal, result.verification, "", verbose=verbose)


def print_calibration(terminal: Terminal, result: Calibration, *, verbose: bool) -> None:
    """Print what was recalibrated on what, how far each layer's statistics moved, what was kept, what to do next."""
    data, count = result.data, counted(len(result.rows), "BatchNorm")
    head = f"{'Would recalibrate' if result.output is None else 'Recalibrated'} {result.calibrated} of {count} in "
    used = f"{counted(data['rows'], 'row')} in {counted(data['batches'], 'batch')}, {_mode(result)}"
    terminal.line(head, (result.info.path, "bold"), f" ({used})")
    done = [row for row in result.rows if row.drift is not None]
    shown = done if verbose else sorted(done, key=lambda row: -(row.drift.rms if row.drift else 0.0))[:SHOWN]
    if shown:
        order = "" if verbose else ", the largest first"
        terminal.line(f"Drift of each mean and variance, in stored standard deviations{order}")
        terminal.table(DRIFT, (_drift(row.name, row.drift) for row in shown if row.drift is not None))
    if len(shown) < len(done):
        terminal.line((f"{len(done) - len(shown)} more; --verbose shows all", "dim"))
    for row in result.rows:
        if row.reason is not None:
            terminal.line(
                ("kept", "yellow"), "[", (row.reason["code"], "bold"), f"] {row.name}: {row.reason['detail']}"
            )
    _print_warnings(terminal, [(row.name, row.findings) for row in result.rows], verbose=verbose)
    if "note" in data:
        terminal.line(("note", "yellow"), f": {data['note']}")
    if result.output is None:
        terminal.line("Dry run: nothing written")
        terminal.line("Next: the same command without --dry-run")
    elif result.output.path != "-":
        terminal.line(f"Wrote {result.output.path}")
        terminal.line("Next: ", (f"bnfold fold {result.output.path}", "bold"))


def _mode(result: Calibration) -> str:
    if result.mode != "moving-average":
        return result.mode
    momentum = "cumulative" if result.momentum is None else f"momentum {result.momentum:g}"
    return f"{result.mode}, {result.convention}, {momentum}"


def _drift(name: str, drift: Drift) -> list[Part]:
    figures = drift.to_dict()
    style = "yellow" if drift.findings else ""
    return [name, f"{drift.count}", (f"{drift.rms:.3g}", style), f"{figures['max']:.3g}", str(figures["channel"])]


def _print_details(terminal: Terminal, result: Verification) -> None:
    """Print every folded layer and every output."""
    if result.layers:
        terminal.table(LAYER, map(_layer, result.layers))
    if result.outputs:
        terminal.table(OUTPUT, map(_output, result.outputs))


def _layer(layer: LayerResult) -> list[Part]:
    figures = ("" if x is None else figure(x) for x in (layer.error_ratio, layer.max_ulp, layer.max_abs))
    channels = ", ".join(map(str, layer.channels[:6])) + (" …" if len(layer.channels) > 6 else "")
    return [layer.name, (layer.verdict, CHECKS[layer.verdict]), layer.check, *figures, channels]


def _output(output: OutputResult) -> list[Part]:
    numbers = (output.error_ratio, output.max_abs, output.max_rel, output.max_ulp, output.detection_limit)
    level = f"{output.level}{', TF32' if output.tf32 else ''}"
    return [output.name, (output.verdict, CHECKS[output.verdict]), level, *map(figure, numbers)]


def _count(result: Inspection) -> str:
    total = len(result.batch_norms)
    if not total:
        return "no BatchNorms"
    verb = "folded" if any(row.status == "folded" for row in result.rows) else "can be folded"
    return f"{result.foldable} of {total} BatchNorm{'s' if total > 1 else ''} {verb}"


def _print_foldable(terminal: Terminal, rows: list[BatchNormRow]) -> None:
    """Print a table of those that are, or would be, folded: what each is folded into, and through what."""
    found = [row for row in rows if row.status != "kept"]
    if found:
        terminal.table(("BATCHNORM", "CHANNELS", "TARGET"), map(_row, found))


def _row(row: BatchNormRow) -> list[Part]:
    return [_title(row), "" if row.channels is None else str(row.channels), (_target(row), COLOURS[row.status])]


def _title(row: BatchNormRow) -> str:
    name = row.name if row.graph == "main" else f"{row.graph}{row.name}"
    return name + ("" if row.form == "BatchNormalization" else f" ({row.form})")


def _target(row: BatchNormRow) -> str:
    if not row.into:
        return "none: it changes nothing"
    side = {"upstream": "previous", "downstream": "next"}.get(row.direction or "", "both")
    path = f" through {', '.join(dict.fromkeys(row.via))}" if row.via else ""
    return f"{side}: {', '.join(row.into)}{path}"


def _print_kept(terminal: Terminal, result: Inspection, *, verbose: bool) -> None:
    """Print why each BatchNorm is kept, what blocks it on either side, and what a user could change.

    Many of one code are one paragraph with the first names, unless ``verbose``.
    """
    kept: dict[tuple[str, tuple[str, ...]], list[BatchNormRow]] = {}
    for row in result.batch_norms:
        if row.reason is not None:
            kept.setdefault((row.reason["code"], tuple(row.would_fold_with)), []).append(row)
    for (code, tried), rows in sorted(kept.items()):
        grouped = len(rows) > NAMED and not verbose
        for row in rows[:1] if grouped else rows:
            assert row.reason is not None
            size = "" if row.channels is None else f" ({counted(row.channels, 'channel')})"
            terminal.line(("kept", "yellow"), "[", (code, "bold"), "] ", _title(row), size)
            for side in ("previous", "next") if "previous" in row.reason else ("detail",):
                label = {"detail": "why:", "previous": "previous:", "next": "next:"}[side]
                terminal.line(f"  {label:10}{row.reason[side]}", hang=12)
        if grouped:
            more = ", ".join(map(_title, rows[1:NAMED])) + (
                f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
            )
            terminal.line(f"  {'also:':10}{more}", hang=12)
        terminal.line(f"  {'help:':10}{remedy(code, tried, len(rows))}", hang=12)


def remedy(code: str, tried: tuple[str, ...], count: int) -> str:
    """Return what helps ``count`` BatchNorms that ``code`` keeps: the options that were found to fold them, if any."""
    if code == "overridable" and not tried:
        return "--freeze-initializers alone is not enough: inspect with it says what else is in the way"
    what = "it" if count == 1 else "them"
    effects = {"threshold": ", with a Max in place of the Relu", "freeze": ", if no caller overrides the weights"}
    return (
        "; or ".join(f"{options.FLAGS[name]} folds {what}{effects.get(name, '')}" for name in tried) or REASONS[code][1]
    )


def _print_warnings(terminal: Terminal, found: Sequence[tuple[str, list[Finding]]], *, verbose: bool) -> None:
    """Print one line per code, with the layers that it is about: all of them if ``verbose``."""
    for code, meaning in FINDINGS.items():
        named = [
            name + (f" [{len(finding.channels)}]" if finding.channels else "")
            for name, findings in found
            for finding in findings
            if finding.code == code
        ]
        if named:
            shown = named if verbose else named[:NAMED]
            more = f" and {len(named) - len(shown)} more" if len(shown) < len(named) else ""
            terminal.line(("warning", "yellow"), f": {code}: {', '.join(shown)}{more}: {meaning}")


def _health_of(result: Inspection) -> list[tuple[str, list[Finding]]]:
    return [(row.name, row.health) for row in result.rows]


def _print_verification(terminal: Terminal, result: Verification, title: str, *, verbose: bool) -> None:
    """Print the verdict, a line for each check, and what else is known; every folded tensor if ``verbose``."""
    verdict = {"different": "models differ"}.get(result.verdict, result.verdict)
    why = f": {result.left_open}" if result.verdict == "inconclusive" and result.left_open else ""
    head = "error: " if result.verdict == "different" and not title else title
    terminal.line(head, (verdict, f"{VERDICTS[result.verdict]} bold"), why)
    width = 2 + max((len(check.check) for check in result.checks), default=0)
    for check in result.checks:
        spare = not check.required and check.verdict == "inconclusive"
        rest = " (not required: the proof holds for all inputs)" if spare else ""
        mark, name = (f"{MARKS[check.verdict]:4}", CHECKS[check.verdict]), f"  {check.check:{width}}"
        terminal.line("  ", mark, name, check.detail, rest, hang=8 + width)
    if result.origin == "changed":
        terminal.line("note: it says that bnfold folded it, but folding again gives other bytes")
    asked = {check.check for check in result.checks}
    left = [name for name in options.AUTOMATIC if name not in asked]
    if left and result.checks and not why:
        terminal.line(f"  not run: {', '.join(left)}")
    if verbose:
        _print_circumstances(terminal, result)
        _print_details(terminal, result)
    elif (result.layers or result.outputs) and result.verdict != "equivalent":
        terminal.line("help: --verbose lists every tensor; --report html=report.html draws them")


def _print_circumstances(terminal: Terminal, result: Verification) -> None:
    """Print what the models ran on, and with which versions."""
    source = result.inputs.get("source")
    if source is not None and result.device["used"] is not None:
        seed = f", seed {result.inputs['seed']}" if source == "generated" else ""
        samples = counted(result.inputs["samples"], "sample")
        terminal.line((f"  inputs: {source}, {samples}{seed}; device: {result.device['used']}", "dim"))
    for name, each in result.inputs.get("ranges", {}).items():
        terminal.line((f"  input {name!r}: {each['low']} to {each['high']}, {each['because']}", "dim"))
    terminal.line((f"  versions: {', '.join(f'{name} {version}' for name, version in result.versions.items())}", "dim"))
