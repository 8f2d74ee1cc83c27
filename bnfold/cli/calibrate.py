"""``bnfold calibrate``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.options import (
    FILE,
    check_json_target,
    check_plot,
    common,
    draw_drifts,
    external_data,
    progress,
    report_stream,
    same_file,
    unsafe_shapes,
    write_json,
)
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from bnfold.options import CalibrateOptions

CUMULATIVE = "cumulative"


@click.command("calibrate", short_help="Recompute running statistics over data, and write the unfolded model.")
@click.argument("model", type=FILE)
@click.option(
    "--data",
    required=True,
    metavar="PATH",
    type=FILE,
    help="Inputs: .npy, .npz, or a folder of such.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=FILE,
    help="Where to write.  [default: MODEL.calibrated.onnx or .pt2]",
)
@click.option("--sequential", "mode", flag_value="sequential", help="Later layers see recalibrated ones.  [default]")
@click.option("--single-pass", "mode", flag_value="single-pass", help="All layers see the stored statistics.")
@click.option(
    "--momentum",
    metavar="M",
    help="Do as training does: each batch normalised by itself moves the statistics; or 'cumulative', as update_bn.",
)
@click.option(
    "--convention",
    type=click.Choice(["onnx", "torch"]),
    help="Whose momentum and variance: ONNX's and Keras', or torch's.  [default: the model's]",
)
@click.option("--batch-size", type=click.IntRange(1), help="Rows at once.  [default: 64, or the model's]")
@click.option("--freeze-training-mode", is_flag=True, help="Make inference BatchNorms of those in training mode.")
@external_data
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Measure and report, write nothing.")
@click.option("--allow-unsafe-load", is_flag=True, help="Run TorchScript and pickled modules that you trust.")
@click.option("--shape", multiple=True, metavar="NAME:DIMS", help="With --allow-unsafe-load: x:1,3,224,224.")
@click.option(
    "--plot",
    metavar="FILE",
    type=FILE,
    help="Draw old against new: .svg, .png or .pdf (needs bnfold[plot]).",
)
@common
def command(model: str, **given: Any) -> None:
    """Recompute the running mean and variance of every BatchNorm of MODEL over data, and write the unfolded model.

    The statistics are those of all the data together, exactly, in float64. MODEL itself is not changed.
    """
    check_json_target(given["json_file"], model_on_stdout=given["output"] == "-")
    check_plot(given["plot"], [model])
    options = _options(given)
    if same_file(given["output"], model):
        raise UsageError(f"{given['output']}: is the model itself", "write to another file")
    from bnfold.api import calibrate
    from bnfold.report.terminal import Terminal

    with progress(given):
        result = calibrate(
            model,
            given["data"],
            given["output"],
            options,
            force=given["force"],
            dry_run=given["dry_run"],
            unsafe_shapes=unsafe_shapes(given),
        )
    on_stdout = result.output is not None and result.output.path == "-"
    if not given["quiet"] and given["json_file"] != "-":
        from bnfold.report import text

        terminal = Terminal(report_stream(given["json_file"], on_stdout), color=not given["no_color"])
        text.print_calibration(terminal, result, verbose=given["verbose"])
    if given["plot"]:
        draw_drifts({row.name: row.drift for row in result.rows if row.drift}, result.info.path, given["plot"])
    write_json(given["json_file"], result.to_dict())
    sys.exit(0)


def _options(given: dict[str, Any]) -> CalibrateOptions:
    """The options. Raises UsageError."""
    from bnfold.options import CalibrateOptions

    mode, momentum = given["mode"], given["momentum"]
    if momentum is not None and mode is not None:
        raise UsageError(
            f"--momentum and --{mode} exclude each other", "a moving average goes through all layers at once"
        )
    if momentum is None and given["convention"]:
        raise UsageError("--convention goes with --momentum")
    number = None
    if momentum not in (None, CUMULATIVE):
        try:
            number = float(momentum)
        except ValueError:
            raise UsageError(f"--momentum {momentum}: not a number", "between 0 and 1, or 'cumulative'") from None
    return CalibrateOptions(
        mode="moving-average" if momentum is not None else mode or "sequential",
        momentum=number,
        convention=given["convention"] or ("torch" if momentum == CUMULATIVE else None),
        batch=given["batch_size"],
        freeze=given["freeze_training_mode"],
        external=given["external_data"],
    )
