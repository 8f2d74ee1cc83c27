"""How a fold is verified: the options that ``fold`` and ``verify`` share, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from bnfold.cli.params import (
    DEVICE,
    INPUTS,
    RANGE,
    SEED,
    SHAPE,
    AliasedOption,
    byte_count,
    checked_device,
    declared,
    option,
    positive,
    ranges_of,
    shapes_of,
    words,
)
from bnfold.cli.reports import HELP
from bnfold.errors import UsageError
from bnfold.options import (
    CHECKS,
    INPUT_KINDS,
    TIME_LIMIT,
    InputOptions,
    Limits,
    RunOptions,
    Tolerances,
    VerifyOptions,
)


@dataclass(frozen=True)
class VerificationParams:
    """What to check, on which inputs, where, and how strictly to judge."""

    checks: str | None = option(
        "--checks",
        cls=AliasedOption,
        aliases=["--gates"],
        metavar="LIST",
        help="Of structure, weights, layers, outputs.  [default: all but layers, which run where they are needed]",
        section="Verification",
    )
    device: str = declared(DEVICE, section="Runs")
    tf32: Literal["off", "on"] = option(
        "--tf32",
        type=click.Choice(["off", "on"]),
        default="on",
        show_default=True,
        help="On CUDA: whether to judge a second run with TF32, as onnxruntime uses it by default.",
        section="Runs",
    )
    cpu_nodes: str = option(
        "--cpu-nodes",
        type=click.Choice(["none", "shape", "any"]),
        default="shape",
        show_default=True,
        help="On CUDA: which nodes may run on the CPU.",
        section="Runs",
    )
    ort_level: str = option(
        "--ort-level",
        type=click.Choice(["disable", "basic", "extended", "all"]),
        default="all",
        show_default=True,
        help="onnxruntime's optimisation level to judge besides 'disable'.",
        section="Runs",
    )
    inputs: str | None = declared(INPUTS, section="Inputs")
    gen: str = option(
        "--gen",
        default="normal,constant",
        show_default=True,
        help="Generated inputs: normal, uniform, large, constant, impulse.",
        section="Inputs",
    )
    shape: tuple[str, ...] = declared(SHAPE, section="Inputs")
    ranges: tuple[str, ...] = declared(RANGE, section="Inputs")
    samples: int | None = option(
        "--samples",
        type=click.IntRange(1),
        help="Inputs of each kind.  [default: more for small outputs]",
        section="Inputs",
    )
    seed: int = declared(SEED, section="Inputs")
    k: float | None = option(
        "--k",
        type=float,
        help="Limit, as a multiple of the expected rounding error.  [default: 3, or 8]",
        section="Verification",
    )
    weight_policy: str | None = option(
        "--weight-policy",
        metavar="POLICY",
        help="exact, or ulp:N: how far folded weights may be off.",
        section="Verification",
    )
    max_memory: str | None = option(
        "--max-memory", metavar="SIZE", help="What one run may take, such as 2GB.", section="Runs"
    )
    time_limit: float | None = option(
        "--time-limit", type=float, metavar="SECONDS", help="What one run may take.  [default: 600]", section="Runs"
    )
    reports: tuple[str, ...] = option("--report", "reports", multiple=True, metavar="KIND[=FILE]", help=HELP)
    rtol: float | None = option(
        "--rtol", type=float, help="Judge by tolerances instead (reported as such).", section="Verification"
    )
    atol: float | None = option("--atol", type=float, help="See --rtol.", section="Verification")

    def options(self, *, with_shapes: bool = True) -> VerifyOptions:
        """Return the options of a verification, ``with_shapes`` or without those of the inputs. Raises UsageError."""
        seconds = time_limit(self.time_limit)
        shapes = self.shape if with_shapes else ()
        inputs = input_options(self.inputs, shapes, self.ranges, self.seed, kinds=self.gen, samples=self.samples)
        runs = RunOptions(
            device=checked_device(self.device),
            level=self.ort_level,
            tf32=self.tf32 == "on",
            cpu_nodes=self.cpu_nodes,
            limits=Limits(seconds, byte_count(self.max_memory)),
            inputs=inputs,
        )
        tolerances = Tolerances(
            *(
                None if value is None else positive(option, value)
                for option, value in (("--k", self.k), ("--rtol", self.rtol), ("--atol", self.atol))
            )
        )
        checks = None if self.checks is None else words("--checks", self.checks, CHECKS)
        return VerifyOptions(checks, runs, tolerances, _ulps(self.weight_policy))


def time_limit(seconds: float | None) -> float:
    """Return ``--time-limit`` or its default. Raises UsageError."""
    return TIME_LIMIT if seconds is None else positive("--time-limit", seconds)


def input_options(
    data: str | None,
    shapes: Sequence[str],
    ranges: Sequence[str],
    seed: int,
    *,
    kinds: str = "normal",
    samples: int | None = None,
) -> InputOptions:
    """Return what models run on: the user's data, or generated inputs. Raises UsageError."""
    generated = [option for option, texts in (("--shape", shapes), ("--range", ranges)) if texts]
    generated += [] if samples is None else ["--samples"]
    if data and generated:
        raise UsageError(f"--inputs and {generated[0]} exclude each other: your data is what it is", "leave one out")
    return InputOptions(
        data=Path(data) if data else None,
        kinds=words("--gen", kinds, INPUT_KINDS),
        shapes=shapes_of(shapes),
        ranges=ranges_of(ranges),
        samples=samples,
        seed=seed,
    )


def _ulps(policy: str | None) -> float | None:
    """Return how many ulps folded weights may be off, by ``--weight-policy``; None for the default."""
    if policy is None:
        return None
    if policy == "exact":
        from bnfold.verification.checks.weights import EXACT

        return EXACT
    try:
        return positive("--weight-policy", float(policy.removeprefix("ulp:")))
    except ValueError:
        raise UsageError(
            f"--weight-policy {policy}: neither 'exact' nor of the form ulp:4", "write exact, or ulp: and a number"
        ) from None
