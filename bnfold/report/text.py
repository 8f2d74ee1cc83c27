"""Results for people: tables and a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold import options
from bnfold.report.terminal import Part, Terminal
from bnfold.results.health import FINDINGS, Finding
from bnfold.rules.reasons import REASONS

if TYPE_CHECKING:
    from bnfold.results.calibration import Calibration
    from bnfold.results.drift import Drift
    from bnfold.results.folding import BatchNormRow, Folding, Inspection
    from bnfold.results.verification import Comparison, LayerResult, OutputResult, Verification

COLOURS = {"foldable": "green", "folded": "green", "kept": "yellow"}
VERDICTS = {"equivalent": "green", "different": "red", "inconclusive": "yellow"}
CHECKS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
LAYER = ("layer", "", "check", "error ratio", "max ulp", "max abs", "channels")
OUTPUT = ("output", "", "level", "error ratio", "max abs", "max rel", "max ulp", "detection limit")
DRIFT = ("drift of", "values", "rms", "max", "channel")
NAMED = 4
"""Layers that a warning names without --verbose."""

SHOWN = 10
"""Layers and outputs that are off, shown without --verbose."""


def print_inspection(terminal: Terminal, result: Inspection, *, verbose: bool) -> None:
    """Print the table of affine operators, the sum, and a hint for each reason that occurs."""
    shown = result.rows if verbose else [row for row in result.rows if row.form != "scale" or row.status != "kept"]
    _print_rows(terminal, shown)
    terminal.line((result.model.path, "bold"), f": {_count(result)}")
    _print_advice(terminal, result)
    _print_warnings(terminal, _health_of(result), verbose=verbose)
    drifts = [(row.name, row.drift) for row in result.rows if row.drift is not None]
    if drifts:
        terminal.table(DRIFT, (_drift(name, drift) for name, drift in drifts))
    if result.data is not None and "note" in result.data:
        terminal.line((result.data["note"], "yellow"))


def print_folding(terminal: Terminal, result: Folding, *, verbose: bool) -> None:
    """Print what was folded, what was kept and why, the verdict, what was written."""
    inspection, nodes = result.inspection, result.nodes
    kept = [row for row in inspection.batch_norms if row.status == "kept"]
    _print_rows(terminal, inspection.rows if verbose else kept)
    counts = f": {_count(inspection)}; {nodes['before']} → {nodes['after']} nodes"
    terminal.line((inspection.model.path, "bold"), counts)
    for note in result.notes:
        terminal.line(("note", "yellow"), f": {note}")
    _print_advice(terminal, inspection)
    _print_warnings(terminal, _health_of(inspection), verbose=verbose)
    if result.output is None:
        terminal.line("dry run: nothing written")
        return
    if result.verification is not None:
        _print_verification(terminal, result.verification)
        _print_details(terminal, result.verification, everything=verbose)
    else:
        terminal.line(result.verdict)
    if result.output.path != "-":
        terminal.line(f"written: {result.output.path}{' (a copy)' if result.verdict == 'unchanged' else ''}")


def print_comparison(terminal: Terminal, result: Comparison, *, verbose: bool) -> None:
    """Print the verdict and its checks; every folded tensor if ``verbose``."""
    for note in result.notes:
        terminal.line(note)
    _print_verification(terminal, result.verification)
    _print_details(terminal, result.verification, everything=verbose)


def print_calibration(terminal: Terminal, result: Calibration, *, verbose: bool) -> None:
    """Print how far each layer's statistics moved, what was kept and why, what is odd about the new ones."""
    kept = [row for row in result.rows if row.status == "kept"]
    done = [row for row in result.rows if row.drift is not None]
    shown = done if verbose else sorted(done, key=lambda row: -(row.drift.rms if row.drift else 0.0))[:SHOWN]
    terminal.table(DRIFT, (_drift(row.name, row.drift) for row in shown if row.drift is not None))
    if len(shown) < len(done):
        terminal.line((f"the {SHOWN} that moved most, of {len(done)}; --verbose shows all", "dim"))
    for row in kept:
        assert row.reason is not None
        terminal.line(f"{row.name}: ", ("kept", "yellow"), f": {row.reason['code']}: {row.reason['detail']}")
    _print_warnings(terminal, [(row.name, row.findings) for row in result.rows], verbose=verbose)
    data = result.data
    way = result.mode
    if result.mode == "moving-average":
        way += f", {result.convention}, " + (
            "cumulative" if result.momentum is None else f"momentum {result.momentum:g}"
        )
    terminal.line(
        (result.info.path, "bold"),
        f": {result.calibrated} of {len(result.rows)} BatchNorm{'' if len(result.rows) == 1 else 's'} calibrated on "
        f"{data['rows']} rows in {data['batches']} batch{'' if data['batches'] == 1 else 'es'} ({way})",
    )
    if "note" in data:
        terminal.line((data["note"], "yellow"))
    if result.output is None:
        terminal.line("dry run: nothing written")
    elif result.output.path != "-":
        terminal.line(f"written: {result.output.path}")


def _drift(name: str, drift: Drift) -> list[Part]:
    figures = drift.to_dict()
    style = "yellow" if drift.findings else ""
    return [name, f"{drift.count}", (f"{drift.rms:.3g}", style), f"{figures['max']:.3g}", str(figures["channel"])]


def _print_details(terminal: Terminal, result: Verification, *, everything: bool) -> None:
    """Print the folded layers and the outputs: all of them, or those that do not pass."""
    layers = [layer for layer in result.layers if everything or layer.verdict != "pass"]
    outputs = [output for output in result.outputs if everything or output.verdict != "pass"]
    most = None if everything else SHOWN
    if layers:
        terminal.table(LAYER, map(_layer, layers[:most]))
    if outputs:
        terminal.table(OUTPUT, map(_output, outputs[:most]))


def _layer(layer: LayerResult) -> list[Part]:
    figures = ("" if x is None else f"{x:.3g}" for x in (layer.error_ratio, layer.max_ulp, layer.max_abs))
    channels = ", ".join(map(str, layer.channels[:6])) + (" …" if len(layer.channels) > 6 else "")
    return [layer.name, (layer.verdict, CHECKS[layer.verdict]), layer.check, *figures, channels]


def _output(output: OutputResult) -> list[Part]:
    numbers = (output.error_ratio, output.max_abs, output.max_rel, output.max_ulp, output.detection_limit)
    level = f"{output.level}{', TF32' if output.tf32 else ''}"
    return [output.name, (output.verdict, CHECKS[output.verdict]), level, *(f"{x:.3g}" for x in numbers)]


def _count(result: Inspection) -> str:
    total = len(result.batch_norms)
    if not total:
        return "no BatchNorm"
    verb = "folded" if any(row.status == "folded" for row in result.rows) else "can be folded"
    return f"{result.foldable} of {total} BatchNorm{'s' if total > 1 else ''} {verb}"


def _print_rows(terminal: Terminal, rows: list[BatchNormRow]) -> None:
    if rows:
        terminal.table(("BatchNorm", "channels", "", "target, or reason"), map(_row, rows))


def _row(row: BatchNormRow) -> list[Part]:
    name = row.name if row.graph == "main" else f"{row.graph}{row.name}"
    form = "" if row.form == "BatchNormalization" else f" ({row.form})"
    return [
        name + form,
        "" if row.channels is None else str(row.channels),
        (row.status, COLOURS[row.status]),
        f"{row.reason['code']}: {row.reason['detail']}" if row.reason else _into(row),
    ]


def _into(row: BatchNormRow) -> str:
    arrow = "↑" if row.direction == "upstream" else "↓"
    path = f" through {', '.join(dict.fromkeys(row.via))}" if row.via else ""
    return f"{arrow} {', '.join(row.into) or 'nothing: it changes nothing'}{path}"


def _print_advice(terminal: Terminal, result: Inspection) -> None:
    """Print for each reason that occurs why exactness asks for it, and what a user could change."""
    for code in sorted({row.reason["code"] for row in result.batch_norms if row.reason}):
        why, remedy = REASONS[code]
        terminal.line("  ", (code, "yellow"), f": {why} ", (remedy, "dim"))


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


def _print_verification(terminal: Terminal, result: Verification) -> None:
    terminal.line((result.verdict, f"{VERDICTS[result.verdict]} bold"))
    for check in result.checks:
        rest = "" if check.required or check.verdict == "pass" else " (not required: the proof holds for all inputs)"
        terminal.line(f"  {check.check}: ", (check.verdict, CHECKS[check.verdict]), f", {check.detail}{rest}")
    if result.origin == "changed":
        terminal.line("  it says that bnfold folded it; folding again gives other bytes: judged like any tool's fold")
    asked = {check.check for check in result.checks}
    left = [name for name in options.AUTOMATIC if name not in asked]
    if result.verdict == "inconclusive" and result.left_open:
        terminal.line(f"  {result.left_open}: that is not enough to call them equivalent")
    elif left and result.checks:
        terminal.line(f"  not asked for: {', '.join(left)}")
    source = result.inputs.get("source")
    if source is not None and result.device["used"] is not None:
        seed = f", seed {result.inputs['seed']}" if source == "generated" else ""
        count = result.inputs["samples"]
        samples = f"{count} sample{'' if count == 1 else 's'}"
        terminal.line((f"  inputs: {source}, {samples}{seed}; device: {result.device['used']}", "dim"))
