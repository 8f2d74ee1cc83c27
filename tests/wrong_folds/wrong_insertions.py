"""Faults of the graph, continued: constants changed, and operators put in that don't belong there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from tests.wrong_folds.edits import (
    attribute,
    copied,
    insert,
    kind_of,
    nodes_of,
    own,
    put,
    set_attribute,
    turned,
    values,
)
from tests.wrong_folds.registry import Fault, Wrong, fault, register

Fits = Callable[[NodeProto], bool]


@fault()
def beta_kept(original: ModelProto, correct: ModelProto) -> Wrong:
    """Gemm's beta left as it was, though folding took it into the bias."""
    wrong = copied(correct)
    for made in nodes_of(wrong, "Gemm"):
        beta = next(attribute(old, "beta", 1.0) for old in nodes_of(original, "Gemm") if old.name == made.name)
        if attribute(made, "beta", 1.0) != beta:
            set_attribute(made, "beta", beta)
            return wrong
    return None


@fault()
def clip_bound_scaled(_original: ModelProto, correct: ModelProto) -> Wrong:
    """A Clip's maximum 2 % too large."""
    wrong = copied(correct)
    for clip in nodes_of(wrong, "Clip"):
        put(wrong, clip.input[2], values(wrong, clip.input[2]) * own(wrong, 1.02))
        return wrong
    return None


# --- operators put in


def _behind(
    name: str, description: str, op: str, *others: float, fits: Fits, silent: bool = False, **more: Any
) -> None:
    """Register a fault that puts an operator behind a node."""

    def apply(_original: ModelProto, correct: ModelProto) -> Wrong:
        wrong = copied(correct)
        for made in turned(name, [made for made in wrong.graph.node if fits(made)]):
            names = [f"{name}_{position}" for position in range(len(others))]
            for key, number in zip(names, others, strict=True):
                put(wrong, key, own(wrong, number))
            insert(wrong, made.output[0], op, *names, **more)
            return wrong
        return None

    register(Fault(name, description, apply, silent=silent))


def _of(*ops: str) -> Fits:
    return lambda made: made.op_type in ops


_behind("scaled_activation", "an activation multiplied by 1.001", "Mul", 1.001, fits=_of("Relu", "Clip"))
_behind("shifted_activation", "0.001 added to an activation", "Add", 0.001, fits=_of("Relu", "Clip"))
_behind(
    "second_relu", "a Relu behind a layer that has none", "Relu", fits=lambda made: made.name in ("logits", "scores")
)
_behind("second_leaky", "a LeakyRelu applied twice", "LeakyRelu", fits=_of("LeakyRelu"), alpha=0.1)


@fault()
def activation_rounded(_original: ModelProto, correct: ModelProto) -> Wrong:
    """An activation cast to a smaller type and back."""
    wrong, kind = copied(correct), kind_of(correct)
    smaller = TensorProto.BFLOAT16 if kind == TensorProto.FLOAT16 else TensorProto.FLOAT16
    for made in turned("rounded", nodes_of(wrong, "Relu")):
        target = made.output[0]
        insert(wrong, target, "Cast", to=kind)
        insert(wrong, f"{target}_unchanged", "Cast", to=smaller)
        return wrong
    return None


@fault()
def dropout_training(_original: ModelProto, correct: ModelProto) -> Wrong:
    """A Dropout in training mode before the last layer."""
    wrong = copied(correct)
    last = nodes_of(wrong, "Gemm")[-1].input[0]
    put(wrong, "dropout_ratio", own(wrong, 0.5))
    put(wrong, "dropout_training", np.array(True))
    insert(wrong, last, "Dropout", "dropout_ratio", "dropout_training", seed=3)
    return wrong


@fault()
def batch_repeated(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Every sample of the batch gets the first sample's answer."""
    wrong = copied(correct)
    put(wrong, "first_twice", np.array([0, 0]))
    insert(wrong, wrong.graph.output[0].name, "Gather", "first_twice", axis=0)
    return wrong


@fault()
def input_rectified(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Negative inputs cut off."""
    wrong = copied(correct)
    insert(wrong, "x", "Relu")
    return wrong


@fault(silent=True)
def input_clipped(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Inputs cut off at ±12, which only large ones show."""
    wrong = copied(correct)
    put(wrong, "lowest", own(wrong, -12))
    put(wrong, "highest", own(wrong, 12))
    insert(wrong, "x", "Clip", "lowest", "highest")
    return wrong


@fault()
def input_channels_swapped(_original: ModelProto, correct: ModelProto) -> Wrong:
    """The input's channels in the opposite order: BGR for RGB."""
    wrong = copied(correct)
    put(wrong, "bgr", np.array([2, 1, 0]))
    insert(wrong, "x", "Gather", "bgr", axis=1)
    return wrong
