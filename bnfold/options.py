"""What may be asked of a fold. Importing this costs nothing: the rest is imported beside the reading of the model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from bnfold.numerics.batchnorm import Momentum

External = Literal["auto", "keep", "always", "never"]
"""Whether weights lie in a file beside the model."""

Format = Literal["onnx", "pt2"]

CalibrationMode = Literal["sequential", "single-pass", "moving-average"]
"""How statistics are recalibrated."""


@dataclass(frozen=True)
class PlanOptions:
    """``only`` and ``skip`` name nodes or outputs; ``freeze`` makes overridable initializers constants.

    ``merge`` first merges parallel branches into one convolution. Without ``scales``, chains of factors and terms
    that are no BatchNorm stay. ``threshold`` lets a BatchNorm before a Relu and an unpadded linear operator become
    one Max.
    """

    only: Collection[str] = ()
    skip: Collection[str] = ()
    freeze: bool = False
    scales: bool = True
    threshold: bool = False
    merge: bool = False

    def record(self) -> str:
        """Return what shapes a fold, as JSON for the folded model's metadata; defaults are left out."""
        found: dict[str, Any] = {name: list(getattr(self, name)) for name in _NAMES if getattr(self, name)}
        found |= {name: not default for name, default in _FLAGS.items() if getattr(self, name) != default}
        return json.dumps(found)

    @classmethod
    def from_record(cls, text: str) -> PlanOptions | None:
        """Return the options that :meth:`record` wrote; None for anything else, which a file may hold."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not found.keys() <= _FLAGS.keys() | set(_NAMES):
            return None
        if not all(isinstance(found[name], bool) for name in _FLAGS.keys() & found.keys()):
            return None
        lists = [found[name] for name in _NAMES if name in found]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
            return None
        return cls(**found)


_NAMES = ("only", "skip")
_FLAGS = {"freeze": False, "scales": True, "threshold": False, "merge": False}
"""The options of a plan, the flags with their defaults."""


FLAGS = {"merge": "--merge-branches", "threshold": "--threshold", "freeze": "--freeze-initializers"}
"""Options of a plan that allow more folds, and their names on the command line."""


CHECKS = ("structure", "weights", "layers", "outputs")
"""The checks, cheapest first."""


AUTOMATIC = ("structure", "weights", "outputs")
"""The checks that run where the user names none. ``layers`` joins them where they leave something to find."""


INPUT_KINDS = ("normal", "uniform", "large", "constant", "impulse")
"""The kinds of generated inputs."""


PLAIN_KINDS = frozenset({"constant", "impulse"})
"""Kinds of inputs on which rounding errors don't average out."""


TIME_LIMIT = 600.0
"""Seconds that one run may take."""


K_NOISE = 3.0
"""How many times the expected rounding error is allowed on inputs that look like noise."""


K_PLAIN = 8.0
"""The same on constant inputs and impulses, where errors don't average out."""


ORT_LEVELS = ("disable", "basic", "extended", "all")
"""The optimisation levels of onnxruntime."""


def limit_of(kind: str, k: float | None = None) -> float:
    """Return what R may be on inputs of a kind; ``k`` replaces it."""
    return k if k is not None else K_PLAIN if kind in PLAIN_KINDS else K_NOISE


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds, and bytes of memory (None: as much as there is)."""

    seconds: float = TIME_LIMIT
    memory: int | None = None


@dataclass(frozen=True)
class InputOptions:
    """Where inputs come from. ``shapes`` and ``ranges`` go by input name; ``data`` is the user's own.

    ``samples`` is how many are made of each kind; None: as many as small outputs need.
    """

    data: Path | None = None
    kinds: tuple[str, ...] = ("normal", "constant")
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    samples: int | None = None
    seed: int = 0

    @property
    def chosen(self) -> bool:
        """True if the user has said what the models are to run on."""
        return self.data is not None or bool(self.shapes) or bool(self.ranges)


@dataclass(frozen=True)
class RunOptions:
    """Where and how the models run.

    ``device`` is ``cpu`` or ``cuda[:N]``, ``level`` onnxruntime's optimisation level in deployment. ``tf32`` adds a
    second run on CUDA with TF32, as onnxruntime does by default. ``cpu_nodes`` says which nodes may be on the CPU
    there.
    """

    device: str = "cpu"
    level: str = "all"
    tf32: bool = True
    cpu_nodes: str = "shape"
    limits: Limits = field(default_factory=Limits)
    inputs: InputOptions = field(default_factory=InputOptions)


@dataclass(frozen=True)
class Tolerances:
    """``k`` replaces the limits of the statistic; ``rtol`` and ``atol``, if given, judge in its place."""

    k: float | None = None
    rtol: float | None = None
    atol: float | None = None

    def of(self, kind: str, fallback_reason: bool) -> float:
        """The limit for one kind of input."""
        return limit_of("constant" if fallback_reason else kind, self.k)


@dataclass(frozen=True)
class VerifyOptions:
    """Which checks to run, how both models are run, and how strictly they are judged.

    ``checks`` None: the structure, the weights and the outputs; and the layers where the proof is not exact, or to find
    out where an output goes wrong. ``ulps`` is what the weights check allows; by default 0.5 for bnfold's own
    folds and 4 for others.
    """

    checks: Collection[str] | None = None
    runs: RunOptions = field(default_factory=RunOptions)
    tolerances: Tolerances = field(default_factory=Tolerances)
    ulps: float | None = None

    @property
    def asked(self) -> Collection[str]:
        """The checks that run in any case."""
        return AUTOMATIC if self.checks is None else self.checks


@dataclass(frozen=True)
class FoldOptions(PlanOptions):
    """How to plan, where weights go, how to verify (None: not at all), which format to write (None: the model's).

    ``unsafe_shapes`` allows to load TorchScript and pickled modules, which runs what they hold, in another process, and
    gives the shapes of their inputs, by any names, in order.
    """

    external: External = "auto"
    verify: VerifyOptions | None = field(default_factory=VerifyOptions)
    to: Format | None = None
    unsafe_shapes: Mapping[str, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class CalibrateOptions:
    """How to compute statistics.

    ``sequential`` and ``single-pass`` pool all batches exactly; later layers see recalibrated earlier ones, or all see
    the stored ones. ``moving-average`` does what training does: each batch is normalised by itself and moves the
    running statistics by ``momentum`` (None: torch's cumulative average), in the ``convention`` of torch or of ONNX and
    Keras (None: that of the model's kind). ``batch`` is the number of rows; ``freeze`` turns layers in training mode
    into inference ones.
    """

    mode: CalibrationMode = "sequential"
    momentum: float | None = None
    convention: Momentum | None = None
    batch: int | None = None
    freeze: bool = False
    external: External = "auto"

    def __post_init__(self) -> None:
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise UsageError(
                f"momentum {self.momentum:g}: must be between 0 and 1", "0.1 in torch's convention is 0.9 in ONNX's"
            )
        if self.momentum is not None and self.mode != "moving-average":
            raise UsageError(f"a momentum belongs to the moving average, not to the {self.mode} mode")


@dataclass(frozen=True)
class BenchOptions:
    """At which of onnxruntime's optimisation ``levels``, where, how often. ``threads`` None: as many as it takes."""

    levels: Sequence[str] = ("disable", "all")
    device: str = "cpu"
    runs: int = 50
    warmup: int = 5
    threads: int | None = None
    inputs: InputOptions = field(default_factory=lambda: InputOptions(kinds=("normal",), samples=1))
    limits: Limits = field(default_factory=Limits)
