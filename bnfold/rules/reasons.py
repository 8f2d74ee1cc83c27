"""Why a BatchNorm is kept: stable codes, each with the exactness it protects and what a user could change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Refusal:
    """A refusal: a code of :data:`REASONS` and, in ``detail``, the node and the condition that forbid the fold.

    ``sides`` has them apart where both were tried: what blocks the way to the previous layers, and to the next ones.
    ``path`` says through which nodes the way leads there; only asked where the refusal is reported, it takes time.
    """

    reason: str
    detail: str
    sides: tuple[str, str] | None = None
    path: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def located(self) -> Refusal:
        """Return the refusal with the path in its detail."""
        return self if self.path is None else replace(self, detail=self.detail + self.path(), path=None)


REASONS: dict[str, tuple[str, str]] = {
    "consumers": (
        "The tensor has another consumer, which could not undo the change (a scale of zero can't be undone at all).",
        "Give the other consumer its own copy of the layer in front.",
    ),
    "graph-output": (
        "The value is an output of the model: callers would see the change.",
        "Take it out of the outputs if it is not needed.",
    ),
    "graph-input": (
        "The value is an input of the model: callers would have to change what they feed.",
        "Normalise the data before the model, or put a linear layer in front.",
    ),
    "nonlinear": (
        "An operator in between does not carry the transform: f(a·x + b) is not a·f(x) + b.",
        "Train with the BatchNorm directly before or after a linear layer.",
    ),
    "padding": (
        "The layer pads with zeros, which would have to become the offset value: the edge pixels would change.",
        "Pad before the BatchNorm, or train without padding: both are other networks, to be trained again.",
    ),
    "training-mode": (
        "The BatchNorm computes its statistics from the batch: it is no fixed transform.",
        "Export the model in evaluation mode (model.eval(), training=False).",
    ),
    "dynamic-weights": (
        "The weights that would take the transform are computed at run time.",
        "Export with constant weights.",
    ),
    "dynamic-statistics": (
        "Scale, bias, mean or variance are computed at run time.",
        "Export with constant statistics.",
    ),
    "overridable": (
        "The weights are initializers listed as graph inputs: a caller may override them.",
        "If no caller does, pass --freeze-initializers.",
    ),
    "per-activation": (
        "The statistics differ from position to position, and the layer shares its weights between positions.",
        "Export with spatial=1 statistics.",
    ),
    "channel-axis": (
        "The transform varies along an axis that the layer's weights don't distinguish.",
        "Check that the BatchNorm normalises the axis that the layer produces.",
    ),
    "overflow": (
        "A folded weight would not be finite in its type, or would lose its bits, and no power of two helps.",
        "Store the layer in a wider type, or retrain: scales this extreme point to broken statistics.",
    ),
    "degenerate-variance": (
        "Variance plus epsilon is not positive: the BatchNorm has no finite transform.",
        "Recompute the statistics.",
    ),
    "unknown-shape": (
        "A shape or a rank that the proof needs is not known.",
        "Give the model's inputs their shapes (onnxruntime.tools.make_dynamic_shape_fixed).",
    ),
    "unknown-op": (
        "The operator is not one that bnfold has rules for.",
        "Open an issue if it is linear.",
    ),
    "conditioning": (
        "Moving the transform would add and cancel numbers much larger than the activations, and cost accuracy.",
        "Retrain, or prune the channels whose scale is almost zero.",
    ),
    "verification": (
        "The fold was made, a check of the verification failed at its layer, and it was left out again.",
        "Please report it with the model if you can; --skip the BatchNorm to fold the others at once.",
    ),
    "quantized-activation": (
        "The value is rounded to integers in between.",
        "Fold before quantizing.",
    ),
    "control-flow": (
        "The value crosses the boundary of a subgraph.",
        "Move the BatchNorm into the same graph as its layer.",
    ),
    "skipped": (
        "It was left out on request.",
        "Leave out --only, --skip or --only-batchnorm.",
    ),
    "unsupported-dtype": (
        "The type is not float16, bfloat16, float32 or float64, or it changes in between.",
        "Fold before converting the model.",
    ),
}
