"""What may be asked of a fold. Importing this costs nothing: the rest is imported beside the reading of the model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from bnfold.numerics.batchnorm import Momentum
    from bnfold.verification.judge import VerifyOptions

External = Literal["auto", "keep", "always", "never"]
"""Whether weights lie in a file beside the model."""

Format = Literal["onnx", "pt2"]

Mode = Literal["sequential", "single-pass", "moving-average"]
"""How statistics are computed anew."""


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


def default_verification() -> VerifyOptions:
    """All checks, on the CPU."""
    from bnfold.verification.judge import VerifyOptions

    return VerifyOptions()


@dataclass(frozen=True)
class FoldOptions(PlanOptions):
    """How to plan, where weights go, how to verify (None: not at all), which format to write (None: the model's).

    ``unsafe_shapes`` allows to load TorchScript and pickled modules, which runs what they hold, in another process, and
    gives the shapes of their inputs, by any names, in order.
    """

    external: External = "auto"
    verify: VerifyOptions | None = field(default_factory=default_verification)
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

    mode: Mode = "sequential"
    momentum: float | None = None
    convention: Momentum | None = None
    batch: int | None = None
    freeze: bool = False
    external: External = "auto"

    def __post_init__(self) -> None:
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise UsageError(f"momentum {self.momentum:g}: must be between 0 and 1")
        if self.momentum is not None and self.mode != "moving-average":
            raise UsageError(f"a momentum belongs to the moving average, not to the {self.mode} mode")
