"""Results for people: tables and a few lines, by rich."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnfold.reasons import REASONS
from bnfold.report.results import BatchNormRow, Comparison, Folding, Inspection
from bnfold.verification.results import Verification

COLOURS = {"foldable": "green", "folded": "green", "kept": "yellow"}
VERDICTS = {"equivalent": "green", "different": "red", "undecided": "yellow"}
GATES = {"pass": "green", "fail": "red", "undecided": "yellow"}
WARNINGS = {
    "training-mode": "is in training mode: it normalises by the batch; export in evaluation mode",
    "never-updated": "has mean 0 and variance 1 everywhere: was the network ever trained?",
}
SHOWN = 10
"""Layers and outputs that are off, shown unasked."""

WIDTH = 120
"""Columns where the output is no terminal."""


def console(stream: IO[str], *, color: bool) -> Console:
    """A console for ``stream``; plain for ``NO_COLOR`` and where nobody looks."""
    width = None if stream.isatty() else WIDTH
    return Console(file=stream, no_color=not color or "NO_COLOR" in os.environ, width=width, highlight=False)


def print_inspection(console: Console, result: Inspection, *, verbose: bool) -> None:
    """The table of affine operators, the sum, and a hint for each reason that occurs."""
    shown = result.rows if verbose else [row for row in result.rows if row.form != "scale" or row.status != "kept"]
    if shown:
        console.print(_table(shown))
    console.print(f"[bold]{escape(result.model.path)}[/]: {_count(result)}")
    _print_advice(console, result)
    _print_warnings(console, result)


def print_folding(console: Console, result: Folding, *, verbose: bool) -> None:
    """What was folded, what stayed and why, the verdict, what was written."""
    inspection = result.inspection
    kept = [row for row in inspection.batch_norms if row.status == "kept"]
    shown = inspection.rows if verbose else kept
    if shown:
        console.print(_table(shown))
    nodes = result.nodes
    console.print(
        f"[bold]{escape(inspection.model.path)}[/]: {_count(inspection)}; {nodes['before']} → {nodes['after']} nodes"
    )
    _print_advice(console, inspection)
    _print_warnings(console, inspection)
    if result.output is None:
        console.print("dry run: nothing written")
        return
    if result.verification is not None:
        _print_verification(console, result.verification)
        _print_details(console, result.verification, everything=verbose)
    else:
        console.print(result.verdict)
    if result.output["path"] != "-":
        console.print(f"written: {escape(result.output['path'])}{' (a copy)' if result.verdict == 'unchanged' else ''}")


def print_comparison(console: Console, result: Comparison, *, verbose: bool) -> None:
    """The verdict and its gates; every folded tensor if ``verbose``."""
    for note in result.notes:
        console.print(escape(note))
    _print_verification(console, result.verification)
    _print_details(console, result.verification, everything=verbose)


def _print_details(console: Console, result: Verification, *, everything: bool) -> None:
    """The folded layers and the outputs: all of them, or those that are not right."""
    layers = [layer for layer in result.layers if everything or layer.verdict != "pass"]
    if layers:
        table = Table("layer", "", "gate", "ratio", "max ulp", "max abs", "channels", box=None, header_style="bold")
        for layer in layers[: None if everything else SHOWN]:
            figures = ("" if x is None else f"{x:.3g}" for x in (layer.ratio, layer.max_ulp, layer.max_abs))
            channels = ", ".join(map(str, layer.channels[:6])) + (" …" if len(layer.channels) > 6 else "")
            colour = GATES[layer.verdict]
            table.add_row(escape(layer.name), f"[{colour}]{layer.verdict}[/]", layer.gate, *figures, channels)
        console.print(table)
    outputs = [output for output in result.outputs if everything or output.verdict != "pass"]
    if outputs:
        table = Table("output", "", "level", "ratio", "max abs", "max rel", "max ulp", "seen from", box=None)
        for output in outputs[: None if everything else SHOWN]:
            figures = (
                f"{x:.3g}" for x in (output.ratio, output.max_abs, output.max_rel, output.max_ulp, output.sensitivity)
            )
            level = f"{output.level}{', TF32' if output.tf32 else ''}"
            table.add_row(escape(output.name), f"[{GATES[output.verdict]}]{output.verdict}[/]", level, *figures)
        console.print(table)


def _count(result: Inspection) -> str:
    total = len(result.batch_norms)
    if not total:
        return "no BatchNorm"
    verb = "folded" if any(row.status == "folded" for row in result.rows) else "can be folded"
    return f"{result.foldable} of {total} BatchNorm{'s' if total > 1 else ''} {verb}"


def _table(rows: list[BatchNormRow]) -> Table:
    table = Table("BatchNorm", "channels", "", "into, or reason", box=None, header_style="bold", padding=(0, 1))
    for row in rows:
        name = row.name if row.graph == "main" else f"{row.graph}{row.name}"
        form = "" if row.form == "BatchNormalization" else f" [dim]({row.form})[/]"
        colour = COLOURS[row.status]
        table.add_row(
            escape(name) + form,
            "" if row.channels is None else str(row.channels),
            f"[{colour}]{row.status}[/]",
            escape(f"{row.reason['code']}: {row.reason['detail']}" if row.reason else _into(row)),
        )
    return table


def _into(row: BatchNormRow) -> str:
    arrow = "↑" if row.direction == "upstream" else "↓"
    path = f" through {', '.join(dict.fromkeys(row.via))}" if row.via else ""
    return f"{arrow} {', '.join(row.into) or 'nothing: it changes nothing'}{path}"


def _print_advice(console: Console, result: Inspection) -> None:
    """For each reason that occurs: why exactness asks for it, and what a user could change."""
    for code in sorted({row.reason["code"] for row in result.batch_norms if row.reason}):
        why, remedy = REASONS[code]
        console.print(f"  [yellow]{code}[/]: {why} [dim]{remedy}[/]")


def _print_warnings(console: Console, result: Inspection) -> None:
    for row in result.rows:
        for code in row.warnings:
            console.print(f"[yellow]warning[/]: {escape(row.name)} {WARNINGS[code]} [dim]({code})[/]")


def _print_verification(console: Console, result: Verification) -> None:
    console.print(f"[{VERDICTS[result.verdict]} bold]{result.verdict}[/]")
    for gate in result.gates:
        console.print(f"  {gate.gate}: [{GATES[gate.verdict]}]{gate.verdict}[/], {escape(gate.detail)}")
    left = [
        name for name in ("structure", "weights", "layers", "outputs") if name not in {g.gate for g in result.gates}
    ]
    if left and result.gates:
        console.print(f"  not asked for: {', '.join(left)}")
    source = result.inputs.get("source")
    if source is not None and result.device["used"] is not None:
        seed = f", seed {result.inputs['seed']}" if source == "generated" else ""
        count = result.inputs["samples"]
        samples = f"{count} sample{'' if count == 1 else 's'}"
        console.print(f"  [dim]inputs: {source}, {samples}{seed}; device: {result.device['used']}[/]")
