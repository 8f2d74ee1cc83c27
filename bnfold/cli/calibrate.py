"""``bnfold calibrate``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click

from bnfold.cli.files import check_plot, draw_drifts, same_file
from bnfold.cli.options import unsafe_shapes
from bnfold.cli.output import OutputParams
from bnfold.cli.params import EXTERNAL_DATA, FILE, UNSAFE_SHAPE, SectionedCommand, declared, option, takes
from bnfold.errors import UsageError
from bnfold.options import CalibrateOptions, External

CUMULATIVE = "cumulative"


def _mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add both flags of the mode."""
    single_pass = click.option(
        "--single-pass", "mode", flag_value="single-pass", help="All layers see the stored statistics."
    )
    sequential = click.option(
        "--sequential", "mode", flag_value="sequential", help="Later layers see recalibrated ones.  [default]"
    )
    return sequential(single_pass(function))


@dataclass(frozen=True)
class CalibrateParams:
    """Over which data, how, and where the model goes."""

    data: str = option(
        "--data",
        required=True,
        metavar="PATH",
        type=FILE,
        help="Inputs: .npy, .npz, or a folder of such.",
        section="Statistics",
    )
    output: str | None = option(
        "-o",
        "--output",
        metavar="FILE",
        type=FILE,
        help="Where to write.  [default: MODEL.calibrated.onnx or .pt2]",
        section="Output",
    )
    mode: Literal["sequential", "single-pass"] | None = declared(_mode, section="Statistics")
    momentum: str | None = option(
        "--momentum",
        metavar="M",
        help="Do as training does: each batch normalised by itself moves the statistics; "
        "or 'cumulative', as update_bn.",
        section="Statistics",
    )
    convention: Literal["onnx", "torch"] | None = option(
        "--convention",
        type=click.Choice(["onnx", "torch"]),
        help="Whose momentum and variance: ONNX's and Keras', or torch's.  [default: the model's]",
        section="Statistics",
    )
    batch_size: int | None = option(
        "--batch-size",
        type=click.IntRange(1),
        help="Rows at once.  [default: 64, or the model's]",
        section="Statistics",
    )
    freeze_training_mode: bool = option(
        "--freeze-training-mode",
        is_flag=True,
        help="Make inference BatchNorms of those in training mode.",
        section="Statistics",
    )
    external_data: External = declared(EXTERNAL_DATA, section="Output")
    force: bool = option("--force", is_flag=True, help="Replace an existing output.", section="Output")
    dry_run: bool = option("--dry-run", is_flag=True, help="Measure and report, write nothing.", section="Output")
    allow_unsafe_load: bool = option(
        "--allow-unsafe-load",
        is_flag=True,
        help="Run TorchScript and pickled modules that you trust.",
        section="Formats",
    )
    shape: tuple[str, ...] = declared(UNSAFE_SHAPE, section="Formats")
    plot: str | None = option(
        "--plot", metavar="FILE", type=FILE, help="Draw old against new: .svg, .png or .pdf (needs bnfold[plot])."
    )

    def options(self) -> CalibrateOptions:
        """Return the options of a calibration. Raises UsageError."""
        if self.momentum is not None and self.mode is not None:
            raise UsageError(
                f"--momentum and --{self.mode} exclude each other", "a moving average goes through all layers at once"
            )
        if self.momentum is None and self.convention:
            raise UsageError("--convention goes with --momentum", "give a momentum too, or leave it out")
        number = None
        if self.momentum is not None and self.momentum != CUMULATIVE:
            try:
                number = float(self.momentum)
            except ValueError:
                raise UsageError(
                    f"--momentum {self.momentum}: not a number", "between 0 and 1, or 'cumulative'"
                ) from None
        return CalibrateOptions(
            mode="moving-average" if self.momentum is not None else self.mode or "sequential",
            momentum=number,
            convention=self.convention or ("torch" if self.momentum == CUMULATIVE else None),
            batch=self.batch_size,
            freeze=self.freeze_training_mode,
            external=self.external_data,
        )


@click.command("calibrate", cls=SectionedCommand)
@click.argument("model", type=FILE)
@takes(params=CalibrateParams, output=OutputParams)
def command(model: str, params: CalibrateParams, output: OutputParams) -> None:
    """Recompute the running mean and variance of every BatchNorm of MODEL over data, and write the unfolded model.

    The statistics are those of all the data together, exactly, in float64. MODEL itself is not changed.
    """
    output.check_json_target(model_on_stdout=params.output == "-")
    check_plot(params.plot, [model])
    options = params.options()
    if same_file(params.output, model):
        raise UsageError(f"{params.output}: is the model itself", "write to another file")
    from bnfold.api import calibrate

    with output.progress():
        result = calibrate(
            model,
            params.data,
            params.output,
            options,
            force=params.force,
            dry_run=params.dry_run,
            unsafe_shapes=unsafe_shapes(params.allow_unsafe_load, params.shape),
        )
    on_stdout = result.output is not None and result.output.path == "-"
    if output.shows_report:
        from bnfold.report import text

        terminal = output.terminal(model_on_stdout=on_stdout)
        text.print_calibration(terminal, result, verbose=output.verbose)
        output.print_elapsed(terminal)
    if params.plot:
        draw_drifts({row.name: row.drift for row in result.rows if row.drift}, result.info.path, params.plot)
    output.write_json(result.to_dict())
    sys.exit(0)
