"""``bnfold bench``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnfold.cli import report_values, reports
from bnfold.cli.files import check_plot
from bnfold.cli.output import OutputParams
from bnfold.cli.params import (
    DEVICE,
    FILE,
    HTML_REPORT,
    INPUTS,
    RANGE,
    SEED,
    SHAPE,
    SectionedCommand,
    checked_device,
    declared,
    option,
    takes,
    words,
)
from bnfold.cli.verification_options import input_options, time_limit
from bnfold.options import ORT_LEVELS, BenchOptions, Limits
from bnfold.report.terminal import Terminal
from bnfold.wording import shape

if TYPE_CHECKING:
    from bnfold.results.benchmark import Benchmark


@dataclass(frozen=True)
class BenchParams:
    """What to measure, where, how often, and on which input."""

    levels: str = option(
        "--levels", default="disable,all", show_default=True, help="onnxruntime's optimisation levels.", section="Runs"
    )
    device: str = declared(DEVICE, section="Runs")
    runs: int = option(
        "--runs",
        type=click.IntRange(5),
        default=50,
        show_default=True,
        help="Runs of each model per level.",
        section="Runs",
    )
    warmup: int = option(
        "--warmup", type=click.IntRange(0), default=5, show_default=True, help="Runs before these.", section="Runs"
    )
    threads: int | None = option(
        "--threads", type=click.IntRange(1), help="Threads of a run.  [default: onnxruntime's]", section="Runs"
    )
    inputs: str | None = declared(INPUTS, section="Inputs")
    shape: tuple[str, ...] = declared(SHAPE, section="Inputs")
    ranges: tuple[str, ...] = declared(RANGE, section="Inputs")
    seed: int = declared(SEED, section="Inputs")
    time_limit: float | None = option(
        "--time-limit", type=float, metavar="SECONDS", help="What all runs may take.  [default: 600]", section="Runs"
    )
    reports: tuple[str, ...] = declared(HTML_REPORT)
    plot: str | None = option(
        "--plot",
        metavar="FILE",
        type=FILE,
        help="Draw every run: .svg, .png or .pdf (needs bnfold[plot]).",
        section="Report",
    )

    def options(self) -> BenchOptions:
        """Return the options of a benchmark. Raises UsageError."""
        seconds = time_limit(self.time_limit)
        return BenchOptions(
            levels=words("--levels", self.levels, ORT_LEVELS),
            device=checked_device(self.device),
            runs=self.runs,
            warmup=self.warmup,
            threads=self.threads,
            inputs=input_options(self.inputs, self.shape, self.ranges, self.seed),
            limits=Limits(seconds),
        )


@click.command("bench", cls=SectionedCommand)
@click.argument("original", type=FILE)
@click.argument("folded", required=False, type=FILE)
@takes(params=BenchParams, output=OutputParams)
def command(original: str, folded: str | None, params: BenchParams, output: OutputParams) -> None:
    """Measure the latency of ORIGINAL and FOLDED on onnxruntime, side by side, in interleaved runs.

    With FOLDED alone, its original is found by what 'bnfold fold' recorded in it. A ratio below 1 means that the folded
    model is faster; the interval beside it holds the true one in 95 of 100 cases. 'no significant difference' is said
    only where all of the interval is within 10% of 1.
    """
    output.check_json_target()
    check_plot(params.plot, [original, folded or original])
    wanted = reports.only_html(params.reports, [original])
    from bnfold.benchmark.run import bench
    from bnfold.loading import find_original

    options = params.options()
    if folded is None:
        original, folded = str(find_original(Path(original))), original
    result = bench(original, folded, options)
    if output.shows_report:
        terminal = output.terminal()
        _print(terminal, result)
        output.print_elapsed(terminal)
    if params.plot:
        from bnfold.report import benchmark_plot, figures

        figures.save(lambda: benchmark_plot.draw(result), params.plot)
    output.write_json(result.to_dict())
    reports.write_page(wanted, lambda: report_values.of_benchmark(result))
    sys.exit(0)


def _inputs(result: Benchmark) -> str:
    """Return the shape of each input by name, or where the inputs are from."""
    shapes = result.inputs.get("shapes")
    if not shapes:
        return str(result.inputs["source"])
    return ", ".join(f"{name} {shape(sizes)}" for name, sizes in shapes[0].items())


def _print(terminal: Terminal, result: Benchmark) -> None:
    """Print sizes, and a row per level."""
    nodes, size = result.nodes, result.bytes
    terminal.line(
        (result.folded.path, "bold"),
        f": {nodes['original']} → {nodes['folded']} nodes, {size['original']:,} → {size['folded']:,} bytes; ",
        f"on {result.device}, inputs {_inputs(result)}",
    )
    colours = {"faster": "green", "slower": "red", "same": "dim", "inconclusive": "yellow"}
    terminal.table(
        ("LEVEL", "ORIGINAL", "FOLDED", "RATIO (95% CI)", "RESULT"),
        (
            [
                level.level,
                f"{level.original.median:.3f} ± {level.original.spread:.3f} ms",
                f"{level.folded.median:.3f} ± {level.folded.spread:.3f} ms",
                f"{level.ratio:.3f} ({level.low:.3f} to {level.high:.3f})",
                (level.conclusion, colours[level.verdict]),
            ]
            for level in result.levels
        ),
    )
    if any(level.verdict == "inconclusive" for level in result.levels):
        from bnfold.results.benchmark import HINT

        terminal.line((f"  inconclusive: {HINT}", "yellow"))
