"""Evaluation in float64: onnx's reference implementation on a copy of a model whose floats are all doubles."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


class ConvTranspose(OpRun):
    """Transposed convolution of images, with groups, for which onnx 1.23's own fails."""

    def _run(self, x: NDArray[Any], w: NDArray[Any], b: NDArray[Any] | None = None, **attributes: Any) -> Any:
        given = {key: value for key, value in attributes.items() if value is not None}
        group, (top, left, bottom, right) = given.get("group", 1), given.get("pads", [0] * 4)
        strides, extra = given.get("strides", [1, 1]), given.get("output_padding", [0, 0])
        n, _, height, width = x.shape
        split, kernels = x.reshape(n, group, -1, height, width), w.reshape(group, -1, *w.shape[1:])
        parts = np.einsum("ngihw,giokl->ngohwkl", split, kernels)
        parts = parts.reshape(n, group * w.shape[1], *parts.shape[3:])
        rows = (height - 1) * strides[0] + w.shape[2] + extra[0]
        columns = (width - 1) * strides[1] + w.shape[3] + extra[1]
        y = np.zeros((*parts.shape[:2], rows, columns), x.dtype)
        for k, m in np.ndindex(*w.shape[2:]):
            ends = k + height * strides[0], m + width * strides[1]
            y[:, :, k : ends[0] : strides[0], m : ends[1] : strides[1]] += parts[..., k, m]
        y = y[:, :, top : rows - bottom, left : columns - right]
        return (y if b is None else y + b.reshape(-1, 1, 1),)


ConvTranspose.op_domain = ""


def evaluator(model: ModelProto) -> ReferenceEvaluator:
    """onnx's reference implementation, with what it can't do itself."""
    return ReferenceEvaluator(model, new_ops=[ConvTranspose])


def run_double(model: ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The outputs in float64, overflows and all, without a warning."""
    feeds = {key: data.astype(np.float64) if data.dtype.kind == "f" else data for key, data in feeds.items()}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluator(doubled(model)).run(None, feeds)


def doubled(model: ModelProto) -> ModelProto:
    """A copy with doubles for every float of the model's own type: tensors, constants, declared types, casts."""
    copy = ModelProto.FromString(model.SerializeToString())
    graph, own = copy.graph, copy.graph.input[0].type.tensor_type.elem_type
    _double_tensors(graph.initializer, own)
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == own:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for made in graph.node:
        for attribute in made.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _double_tensors([attribute.t], own)
            elif made.op_type == "Cast" and attribute.name == "to" and attribute.i == own:
                attribute.CopyFrom(helper.make_attribute("to", int(TensorProto.DOUBLE)))
    return copy


def _double_tensors(tensors: Iterable[TensorProto], own: int) -> None:
    for stored in tensors:
        if stored.data_type == own:
            data = numpy_helper.to_array(stored).astype(np.float64)
            stored.CopyFrom(numpy_helper.from_array(data, stored.name))
