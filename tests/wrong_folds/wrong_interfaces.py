"""Faults of the interface: what a caller has to know of a model's inputs and outputs, and what it needs to run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

from tests.wrong_folds.edits import bypass, copied, insert, kind_of, nodes_of, own, put, reread
from tests.wrong_folds.registry import Fault, Wrong, fault, register

CASTABLE = {TensorProto.FLOAT: TensorProto.DOUBLE, TensorProto.FLOAT16: TensorProto.FLOAT}


def _on_copy(
    name: str,
    description: str,
    change: Callable[[ModelProto], object],
    *,
    interface: bool = True,
    valid: bool = True,
    runs: bool = True,
) -> None:
    """Register a fault that any network can suffer."""

    def apply(_original: ModelProto, correct: ModelProto) -> Wrong:
        wrong = copied(correct)
        change(wrong)
        return wrong

    register(Fault(name, description, apply, interface=interface, valid=valid, runs=runs))


def _rename_output(model: ModelProto, new: str) -> None:
    old = model.graph.output[0].name
    producer = next(made for made in model.graph.node if old in made.output)
    producer.output[list(producer.output).index(old)] = new
    reread(model, old, new)
    model.graph.output[0].name = new


def _cast_output(model: ModelProto) -> None:
    kind = CASTABLE[kind_of(model)]
    insert(model, model.graph.output[0].name, "Cast", to=kind)
    model.graph.output[0].type.tensor_type.elem_type = kind


def _cast_input(model: ModelProto) -> None:
    own_kind = kind_of(model)
    insert(model, "x", "Cast", to=own_kind)
    model.graph.input[0].type.tensor_type.elem_type = CASTABLE[own_kind]


def _rename_input(model: ModelProto) -> None:
    reread(model, "x", "image")
    model.graph.input[0].name = "image"


def _set_dimension(axis: int, size: int) -> Callable[[ModelProto], object]:
    def change(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
        del model.graph.value_info[:]
        for info in model.graph.output:
            info.type.tensor_type.shape.dim[0].dim_param = "N"

    return change


def _flatten_output(model: ModelProto) -> None:
    shape = model.graph.output[0].type.tensor_type.shape.dim
    size = int(np.prod([one.dim_value for one in shape]))
    put(model, "flat_shape", np.array([size]))
    insert(model, model.graph.output[0].name, "Reshape", "flat_shape")
    del shape[1:]
    shape[0].dim_value = size


def _transpose_output(model: ModelProto) -> None:
    insert(model, model.graph.output[0].name, "Transpose", perm=[1, 0])
    shape = model.graph.output[0].type.tensor_type.shape.dim
    shape[0].dim_value, shape[1].dim_value = shape[1].dim_value, shape[0].dim_value


def _use_unknown_operator(model: ModelProto) -> None:
    model.graph.node[-1].op_type = "NoSuchOperator"


def _drop_weight(model: ModelProto) -> None:
    weight = nodes_of(model, "Conv")[0].input[1]
    held = next(one for one in model.graph.initializer if one.name == weight)
    model.graph.initializer.remove(held)


def _weight_becomes_input(model: ModelProto) -> None:
    weight = nodes_of(model, "Conv")[0].input[1]
    held = next(one for one in model.graph.initializer if one.name == weight)
    model.graph.input.append(helper.make_tensor_value_info(weight, held.data_type, held.dims))
    model.graph.initializer.remove(held)


def _cut_weight(model: ModelProto) -> None:
    weight = nodes_of(model, "Conv")[0].input[1]
    held = next(one for one in model.graph.initializer if one.name == weight)
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held)[:-1], weight))


def _extra_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.FLOAT, [1]))


def _extra_output(model: ModelProto) -> None:
    inner = next(made.output[0] for made in model.graph.node if made.op_type == "Relu")
    shapes = {info.name: info for info in shape_inference.infer_shapes(model).graph.value_info}
    model.graph.output.append(shapes[inner])


_on_copy("extra_output", "one output more", _extra_output)
_on_copy("output_renamed", "an output renamed", lambda model: _rename_output(model, "answer"))
_on_copy("output_cast", "an output cast to a larger type", _cast_output)
_on_copy("output_flattened", "an output of another shape", _flatten_output)
_on_copy("output_transposed", "an output transposed", _transpose_output)
_on_copy("input_renamed", "the input renamed", _rename_input)
_on_copy("input_cast", "the input declared in a larger type, cast behind", _cast_input)
_on_copy("input_batch", "the input declared for a batch of one", _set_dimension(0, 1))
_on_copy("input_channels", "the input declared with four channels", _set_dimension(1, 4), runs=False)
_on_copy("input_added", "one input more, which nobody reads", _extra_input)
_on_copy("weight_is_input", "a folded weight made an input that the caller has to feed", _weight_becomes_input)
_on_copy(
    "unknown_operator",
    "an operator that doesn't exist",
    _use_unknown_operator,
    interface=False,
    valid=False,
    runs=False,
)
_on_copy("weight_missing", "a folded weight not written", _drop_weight, interface=False, valid=False, runs=False)
_on_copy("weight_cut", "a folded weight one channel short", _cut_weight, interface=False, runs=False)


def _set_opset(version: int) -> Callable[[ModelProto], object]:
    def change(model: ModelProto) -> None:
        model.opset_import[0].version = version

    return change


_on_copy("opset_from_the_future", "an opset that nobody knows", _set_opset(999), interface=False, runs=False)


@fault(
    valid=False,
    runs=False,
    benign_in=(("kept", "has no operator that opset 10 lacks or reads otherwise"),),
)
def opset_lowered(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Opset 10 declared without conversion: Clip and Resize have other inputs there."""
    if not nodes_of(correct, "Clip", "Resize"):
        return None
    wrong = copied(correct)
    wrong.opset_import[0].version = 10
    return wrong


@fault(interface=True)
def output_lost(_original: ModelProto, correct: ModelProto) -> Wrong:
    """One output less."""
    if len(correct.graph.output) < 2:
        return None
    wrong = copied(correct)
    del wrong.graph.output[-1]
    return wrong


@fault(interface=True)
def outputs_in_other_order(_original: ModelProto, correct: ModelProto) -> Wrong:
    """The outputs in another order."""
    if len(correct.graph.output) < 2:
        return None
    wrong = copied(correct)
    ends = list(wrong.graph.output)[::-1]
    del wrong.graph.output[:]
    wrong.graph.output.extend(ends)
    return wrong


@fault()
def second_output_wrong(_original: ModelProto, correct: ModelProto) -> Wrong:
    """The second output multiplied by 1.01, the first as it should be."""
    if len(correct.graph.output) < 2:
        return None
    wrong = copied(correct)
    target = wrong.graph.output[1].name
    consumers = [made for made in wrong.graph.node if target in made.input]
    put(wrong, "percent_more", own(wrong, 1.01))
    insert(wrong, target, "Mul", "percent_more")
    for consumer in consumers:
        consumer.input[0] = f"{target}_unchanged"
    return wrong


@fault()
def output_from_elsewhere(_original: ModelProto, correct: ModelProto) -> Wrong:
    """An output under the right name, with what stands before the last Relu or Softmax."""
    wrong = copied(correct)
    ends = {info.name for info in wrong.graph.output}
    for made in nodes_of(wrong, "Relu", "Softmax"):
        if made.output[0] in ends:
            bypass(wrong, made)
            return wrong
    return None
