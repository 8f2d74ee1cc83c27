"""Faults of the graph: operators lost, exchanged or put in, attributes changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import ModelProto, NodeProto

from tests.wrong_folds.edits import (
    attribute,
    bypass,
    copied,
    nodes_of,
    set_attribute,
    turned,
)
from tests.wrong_folds.registry import Fault, Wrong, register

Fits = Callable[[NodeProto], bool]


def _node_fault(
    name: str,
    description: str,
    ops: str,
    change: Callable[[ModelProto, NodeProto], None],
    fits: Fits = lambda _made: True,
    needs: str = "",
    **flags: Any,
) -> None:
    """Register a fault that changes the first node of these operators that fits, in a network that has ``needs``."""

    def apply(_original: ModelProto, correct: ModelProto) -> Wrong:
        wrong = copied(correct)
        if needs and not nodes_of(wrong, needs):
            return None
        for made in turned(name, nodes_of(wrong, *ops.split())):
            if fits(made):
                change(wrong, made)
                return wrong
        return None

    register(Fault(name, description, apply, **flags))


def becomes(op: str, **attributes: Any) -> Callable[[ModelProto, NodeProto], None]:
    """Make a node another operator, of one input, with only these attributes."""

    def change(_model: ModelProto, made: NodeProto) -> None:
        made.op_type = op
        del made.attribute[:], made.input[1:]
        for key, value in attributes.items():
            set_attribute(made, key, value)

    return change


def attributes(**changes: Any) -> Callable[[ModelProto, NodeProto], None]:
    """Set attributes; None removes one."""

    def change(_model: ModelProto, made: NodeProto) -> None:
        for key, value in changes.items():
            set_attribute(made, key, value)

    return change


def has(**wanted: Any) -> Fits:
    """For nodes with these attributes."""
    return lambda made: all(attribute(made, key) == value for key, value in wanted.items())


def input_lost(position: int) -> Callable[[ModelProto, NodeProto], None]:
    """Leave out an input."""

    def change(_model: ModelProto, made: NodeProto) -> None:
        made.input[position] = ""
        while not made.input[-1]:
            del made.input[-1]

    return change


def swapped(_model: ModelProto, made: NodeProto) -> None:
    """Swap the first two inputs."""
    made.input[0], made.input[1] = made.input[1], made.input[0]


def renamed(op: str) -> Callable[[ModelProto, NodeProto], None]:
    """Another operator, inputs and attributes as they are."""

    def change(_model: ModelProto, made: NodeProto) -> None:
        made.op_type = op

    return change


def second_only(model: ModelProto, made: NodeProto) -> None:
    """Let only the second operand through."""
    made.input[0] = made.input[1]
    bypass(model, made)


# --- activations

_node_fault("clip_max_lost", "a Clip without its maximum", "Clip", input_lost(2))
_node_fault("clip_min_lost", "a Clip without its minimum", "Clip", input_lost(1))
_node_fault("clip_to_relu", "a Clip to 0 … 6 replaced by a Relu", "Clip", becomes("Relu"))
_node_fault("clip_dropped", "a Clip dropped", "Clip", bypass)
_node_fault("relu_dropped", "a Relu dropped", "Relu", bypass)
_node_fault("relu_to_leaky", "a Relu that leaks 1 %", "Relu", becomes("LeakyRelu", alpha=0.01))
_node_fault("relu_to_softplus", "a Relu replaced by a Softplus", "Relu", becomes("Softplus"))
_node_fault("leaky_to_relu", "a LeakyRelu that leaks nothing", "LeakyRelu", becomes("Relu"))
_node_fault("leaky_default", "a LeakyRelu with the default slope", "LeakyRelu", attributes(alpha=None))
_node_fault("sigmoid_to_hard", "a Sigmoid replaced by a HardSigmoid", "Sigmoid", becomes("HardSigmoid"))
_node_fault("softmax_axis", "a Softmax over the batch", "Softmax", attributes(axis=0))
_node_fault("softmax_dropped", "a Softmax dropped", "Softmax", bypass)
_node_fault("softmax_to_log", "a Softmax replaced by a LogSoftmax", "Softmax", renamed("LogSoftmax"))
_node_fault("negation_lost", "a Neg dropped", "Neg", bypass)


# --- convolutions and dense layers

_node_fault(
    "pads_shifted",
    "a convolution's pads moved to one side",
    "Conv",
    attributes(pads=[0, 0, 2, 2]),
    has(pads=[1, 1, 1, 1]),
)
_node_fault(
    "pads_lost",
    "a convolution's pads dropped",
    "Conv",
    attributes(pads=None),
    has(pads=[1, 1, 1, 1]),
    "GlobalAveragePool",
)
_node_fault(
    "auto_pad_lower",
    "SAME_LOWER for SAME_UPPER",
    "Conv",
    attributes(auto_pad="SAME_LOWER"),
    has(auto_pad=b"SAME_UPPER"),
)
_node_fault(
    "dilations_lost",
    "a dilated convolution without its dilations, padded to the same size",
    "Conv",
    attributes(dilations=None, pads=[1, 1, 1, 1]),
    has(dilations=[2, 2]),
)
_node_fault(
    "strides_lost",
    "a convolution without its strides",
    "Conv",
    attributes(strides=None),
    lambda made: bool(attribute(made, "strides")),
    "GlobalAveragePool",
)
_node_fault("output_padding_moved", "a ConvTranspose's output padding taken from its pads", "ConvTranspose",
    attributes(output_padding=None, pads=[0, 0, 1, 1]))  # fmt: skip
_node_fault("group_doubled", "another number of groups", "Conv", attributes(group=4), has(group=2), runs=False)
_node_fault("alpha_lost", "Gemm's alpha 1", "Gemm", attributes(alpha=None), lambda m: attribute(m, "alpha", 1) != 1)
_node_fault("beta_doubled", "a Gemm's beta 2 rather than 1", "Gemm", attributes(beta=2.0))
_node_fault("transpose_lost", "Gemm's transB dropped", "Gemm", attributes(transB=None), has(transB=1), runs=False)
_node_fault("layer_bias_lost", "a layer without its bias", "Conv Gemm", input_lost(2), lambda m: len(m.input) > 2)


# --- pooling and layout

_node_fault(
    "padding_counted",
    "a pool that counts its padding",
    "AveragePool",
    attributes(count_include_pad=1),
    has(count_include_pad=0),
)
_node_fault(
    "padding_not_counted",
    "a pool that doesn't count its padding",
    "AveragePool",
    attributes(count_include_pad=0),
    has(count_include_pad=1),
)
_node_fault("pool_maximum", "a mean replaced by a maximum", "GlobalAveragePool", renamed("GlobalMaxPool"))
_node_fault("pool_mean", "a maximum replaced by a mean", "MaxPool", renamed("AveragePool"))
_node_fault("pool_pads_shifted", "a pool's pads moved to one side", "AveragePool", attributes(pads=[0, 0, 2, 2]))
_node_fault("flatten_axis", "a Flatten at another axis", "Flatten", attributes(axis=2), runs=False)
_node_fault("concat_swapped", "the operands of a Concat swapped", "Concat", swapped)
_node_fault("resize_linear", "a nearest Resize made linear", "Resize", attributes(mode="linear"))
_node_fault(
    "resize_rounding",
    "a Resize with another rule for the nearest",
    "Resize",
    attributes(nearest_mode="floor", coordinate_transformation_mode="half_pixel"),
)
_node_fault("residual_lost", "only one operand of a sum", "Add", second_only, lambda m: "sum" in m.name)
_node_fault("residual_subtracted", "a sum made a difference", "Add", renamed("Sub"), lambda m: "sum" in m.name)
_node_fault("gate_added", "a product made a sum", "Mul", renamed("Add"))
