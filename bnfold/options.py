"""What may be asked of a fold. Importing this costs nothing: the rest is imported beside the reading of the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bnfold.verification.judge import VerifyOptions

External = Literal["auto", "keep", "always", "never"]
"""Whether weights lie in a file beside the model."""

Format = Literal["onnx", "pt2"]


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


def default_verification() -> VerifyOptions:
    """All gates, on the CPU."""
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
