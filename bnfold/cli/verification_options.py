"""How a fold is verified: the options that ``fold`` and ``verify`` share, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bnfold.cli.options import FILE
from bnfold.errors import UsageError

REPORTS_HELP = "html=F, json=F, junit=F, sarif=F, gitlab=F, intoto=F, or github (annotations and step summary)."

OPTIONS = (
    click.option("--checks", default="structure,weights,layers,outputs", show_default=True, help="What to judge."),
    click.option("--device", default="cpu", show_default=True, help="Where models run: cpu, cuda or cuda:N."),
    click.option(
        "--tf32",
        type=click.Choice(["off", "on"]),
        default="on",
        show_default=True,
        help="On CUDA: whether to judge a second run with TF32, as onnxruntime uses it by default.",
    ),
    click.option(
        "--cpu-nodes",
        type=click.Choice(["none", "shape", "any"]),
        default="shape",
        show_default=True,
        help="On CUDA: which nodes may run on the CPU.",
    ),
    click.option(
        "--ort-level",
        type=click.Choice(["disable", "basic", "extended", "all"]),
        default="all",
        show_default=True,
        help="onnxruntime's optimisation level to judge besides 'disable'.",
    ),
    click.option(
        "--inputs",
        metavar="PATH",
        type=FILE,
        help="Your data: .npz, .npy, or a folder with input_0.pb …",
    ),
    click.option(
        "--gen",
        default="normal,constant",
        show_default=True,
        help="Generated inputs: normal, uniform, large, constant, impulse.",
    ),
    click.option("--shape", multiple=True, metavar="NAME:DIMS", help="Shape of an input: x:1,3,224,224."),
    click.option("--range", "ranges", multiple=True, metavar="NAME:LO,HI", help="Range of an input's values."),
    click.option("--samples", type=click.IntRange(1), help="Inputs of each kind.  [default: more for small outputs]"),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the generated inputs."),
    click.option("--k", type=float, help="Limit, as a multiple of the unavoidable error.  [default: 3, or 8]"),
    click.option("--weight-policy", metavar="POLICY", help="exact, or ulp:N: how far folded weights may be off."),
    click.option("--max-memory", metavar="SIZE", help="What one run may take, such as 2GB."),
    click.option("--time-limit", type=float, metavar="SECONDS", help="What one run may take.  [default: 600]"),
    click.option("--report", "reports", multiple=True, metavar="KIND[=FILE]", help=REPORTS_HELP),
    click.option("--rtol", type=float, help="Judge by tolerances instead (reported as such)."),
    click.option("--atol", type=float, help="See --rtol."),
)


def verifying(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def verify_options(given: dict[str, Any]) -> Any:
    """The :class:`bnfold.verification.VerifyOptions` that the options above ask for. Raises UsageError."""
    from bnfold.options import CHECKS, TIME_LIMIT, Limits, RunOptions, Tolerances, VerifyOptions

    seconds = TIME_LIMIT if given["time_limit"] is None else positive("--time-limit", given["time_limit"])
    inputs = inputs_of(given)
    runs = RunOptions(
        device=checked_device(given["device"]),
        level=given["ort_level"],
        tf32=given["tf32"] == "on",
        cpu_nodes=given["cpu_nodes"],
        limits=Limits(seconds, _bytes(given["max_memory"])),
        inputs=inputs,
    )
    tolerances = Tolerances(
        *(None if given[name] is None else positive(f"--{name}", given[name]) for name in ("k", "rtol", "atol"))
    )
    return VerifyOptions(words("--checks", given["checks"], CHECKS), runs, tolerances, _policy(given["weight_policy"]))


def checked_device(text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``. Raises UsageError."""
    from bnfold.verification.runtime.devices import device_of

    device_of(text)
    return text


def inputs_of(given: dict[str, Any]) -> Any:
    """What models are fed: the :class:`bnfold.options.InputOptions`. Raises UsageError."""
    from bnfold.options import INPUT_KINDS, InputOptions

    made = [f"--{name}" for name, value in (("shape", given["shape"]), ("range", given["ranges"])) if value]
    made += [] if given["samples"] is None else ["--samples"]
    if given["inputs"] and made:
        raise UsageError(f"--inputs and {made[0]} exclude each other: your data is what it is")
    return InputOptions(
        data=Path(given["inputs"]) if given["inputs"] else None,
        kinds=words("--gen", given["gen"], INPUT_KINDS),
        shapes=dict(shape_of(text) for text in given["shape"]),
        ranges=dict(_range(text) for text in given["ranges"]),
        samples=given["samples"],
        seed=given["seed"],
    )


def _policy(text: str | None) -> float | None:
    """How many ulps folded weights may be off."""
    from bnfold.verification.checks.weights import EXACT

    if text is None or text == "exact":
        return None if text is None else EXACT
    try:
        return positive("--weight-policy", float(text.removeprefix("ulp:")))
    except ValueError:
        raise UsageError(f"--weight-policy {text}: neither 'exact' nor of the form ulp:4") from None


LEAST_MEMORY = 2**20
"""Bytes below which a limit is a mistake: a number without its unit."""


def _bytes(text: str | None) -> int | None:
    """``512MB``, ``2GiB`` and their like; units are powers of 1024."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None or not float(found[1]):
        raise UsageError(f"--max-memory {text}: not a size", "write 512MB or 2GB")
    size = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))
    if size < LEAST_MEMORY:
        raise UsageError(f"--max-memory {text}: {size} bytes, in which nothing runs", "write 512MB or 2GB")
    return size


def positive(option: str, value: float) -> float:
    """A finite number that is not negative. Raises UsageError."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{option} {value}: must be a finite number, not negative")
    return value


def words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """A list of known words, each once. Raises UsageError."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise UsageError(f"{option}: names nothing", f"known: {', '.join(known)}")
    for word in found:
        if word not in known:
            raise UsageError(f"{option} {word}: not one of {', '.join(known)}")
    return found


def shape_of(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME:1,3,224,224``. Raises UsageError."""
    name, _, dims = text.rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
    except ValueError:
        shape = (-1,)
    if not name or any(dim < 0 for dim in shape):
        raise UsageError(f"--shape {text}: not of the form NAME:1,3,224,224")
    return name, shape


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = text.rpartition(":")
    try:
        low, high = (float(limit) for limit in limits.split(","))
    except ValueError:
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI") from None
    if not name or not low <= high or not math.isfinite(high - low):
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI")
    return name, (low, high)
