"""``bnfold bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli import reports
from bnfold.cli.options import FILE, check_json_target, check_plot, common, report_stream, write_json

if TYPE_CHECKING:
    from bnfold.benchmark.run import Benchmark
    from bnfold.report.terminal import Terminal


@click.command("bench", short_help="Measure how fast a model and its fold are, by turns.")
@click.argument("original", type=FILE)
@click.argument("folded", required=False, type=FILE)
@click.option("--levels", default="disable,all", show_default=True, help="onnxruntime's optimisation levels.")
@click.option("--device", default="cpu", show_default=True, help="Where models run: cpu, cuda or cuda:N.")
@click.option("--runs", type=click.IntRange(5), default=50, show_default=True, help="Runs of each model per level.")
@click.option("--warmup", type=click.IntRange(0), default=5, show_default=True, help="Runs before these.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a run.  [default: onnxruntime's]")
@click.option(
    "--inputs",
    metavar="PATH",
    type=FILE,
    help="Your data: .npz, .npy, or a folder with input_0.pb …",
)
@click.option("--shape", multiple=True, metavar="NAME:DIMS", help="Shape of an input: x:1,3,224,224.")
@click.option("--range", "ranges", multiple=True, metavar="NAME:LO,HI", help="Range of an input's values.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the generated inputs.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="What all runs may take.  [default: 600]")
@click.option("--report", "reports", multiple=True, metavar="html=FILE", help="Write a page (needs bnfold[html]).")
@click.option(
    "--plot",
    metavar="FILE",
    type=FILE,
    help="Draw every run: .svg, .png or .pdf (needs bnfold[plot]).",
)
@common
def command(original: str, folded: str | None, **given: Any) -> None:
    """Measure the latency of ORIGINAL and FOLDED on onnxruntime, side by side, run by turns.

    With FOLDED alone, its original is found by what 'bnfold fold' noted in it. A ratio below 1 means that the folded
    model is faster; the interval beside it holds the true one in 95 of 100 cases. 'same' is said only where all of the
    interval is within 10 % of 1.
    """
    check_json_target(given["json_file"])
    check_plot(given["plot"], [original, folded or original])
    wanted = reports.only_html(given["reports"], [original])
    from bnfold.benchmark.run import bench
    from bnfold.loading import find_original
    from bnfold.report.terminal import Terminal

    options = _options(given)
    if folded is None:
        original, folded = str(find_original(Path(original))), original
    result = bench(original, folded, options)
    if not given["quiet"] and given["json_file"] != "-":
        _print(Terminal(report_stream(given["json_file"], False), color=not given["no_color"]), result)
    if given["plot"]:
        from bnfold.benchmark import plot
        from bnfold.report import figures

        figures.save(lambda: plot.draw(result), given["plot"])
    write_json(given["json_file"], result.to_dict())
    if wanted:
        from bnfold.report import report_data as story

        reports.write_page(wanted, lambda: story.of_benchmark(result))
    sys.exit(0)


def _options(given: dict[str, Any]) -> Any:
    """The options. Raises UsageError."""
    from bnfold.cli.verification_options import checked_device, inputs_of, positive, words
    from bnfold.options import ORT_LEVELS, TIME_LIMIT, BenchOptions, Limits

    seconds = TIME_LIMIT if given["time_limit"] is None else positive("--time-limit", given["time_limit"])
    return BenchOptions(
        levels=words("--levels", given["levels"], ORT_LEVELS),
        device=checked_device(given["device"]),
        runs=given["runs"],
        warmup=given["warmup"],
        threads=given["threads"],
        inputs=inputs_of({**given, "gen": "normal", "samples": None}),
        limits=Limits(seconds),
    )


def _print(terminal: Terminal, result: Benchmark) -> None:
    """Sizes, and a row per level."""
    nodes, size = result.nodes, result.bytes
    terminal.line(
        (result.folded.path, "bold"),
        f": {nodes['original']} → {nodes['folded']} nodes, {size['original']:,} → {size['folded']:,} bytes; ",
        f"on {result.device}, inputs {(result.inputs.get('shapes') or [result.inputs['source']])[0]}",
    )
    colours = {"faster": "green", "slower": "red", "same": "dim", "inconclusive": "yellow"}
    terminal.table(
        ("level", "original", "folded", "folded / original", ""),
        (
            [
                level.level,
                f"{level.original.median:.3f} ± {level.original.spread:.3f} ms",
                f"{level.folded.median:.3f} ± {level.folded.spread:.3f} ms",
                f"{level.ratio:.3f} ({level.low:.3f} to {level.high:.3f})",
                (level.verdict, colours[level.verdict]),
            ]
            for level in result.levels
        ),
    )
    if any(level.verdict == "inconclusive" for level in result.levels):
        from bnfold.benchmark.run import HINT

        terminal.line((f"  inconclusive: {HINT}", "yellow"))
