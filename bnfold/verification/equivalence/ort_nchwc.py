"""onnxruntime's blocked layout (NCHWc), undone: what its offline save at level *all* writes on a CPU.

There, convolutions and pools of domain ``com.microsoft.nchwc`` hold 8 or 16 channels side by side, and the weights are
stored in that order. The arithmetic is that of the plain operators: read them as those, with the weights put back.
Source: onnxruntime, ``nchwc_transformer.cc`` and ``reorder.cpp``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.io.load import LoadedModel

DOMAIN = "com.microsoft.nchwc"

BLOCKS = (16, 8)
"""Channels that lie side by side: with AVX-512, and with AVX2. The file does not say which."""


def is_nchwc(model: ModelProto) -> bool:
    """Return True if the model has nodes in the blocked layout."""
    return any(node.domain == DOMAIN for node in model.graph.node)


def nchwc_values(model: ModelProto) -> set[str]:
    """Return the names of values in the blocked layout, which can be neither fed nor read from outside."""
    found: set[str] = set()
    for node in model.graph.node:
        own = node.domain == DOMAIN
        if (own and node.op_type != "ReorderOutput") or (not own and any(name in found for name in node.input)):
            found.update(node.output)
    return found


def without_nchwc(model: LoadedModel, block: int) -> ModelProto | None:
    """Return a copy with the plain operators; None if its channels don't fill blocks of this size.

    Channels that were added to fill the last block have no weights and no bias; they are left out.
    """
    copy = ModelProto()
    copy.CopyFrom(model.proto)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    inside = nchwc_values(model.proto)
    done: set[str] = set()
    channels: dict[str, int] = {}
    for node in copy.graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type == "Conv":
            tensor = tensors.get(node.input[1])
            if tensor is None:
                return None
            if tensor.name not in done:
                plain = _plain_weight(model, tensor, node, block, node.input[0] in inside)
                if plain is None:
                    return None
                bias = tensors.get(node.input[2]) if len(node.input) > 2 else None
                level = None if bias is None else model.external.read(bias)
                plain = _without_filling(plain, bias, level, channels.get(node.input[0]))
                tensor.CopyFrom(numpy_helper.from_array(plain, tensor.name))
                done.add(tensor.name)
            for attribute in node.attribute:
                if attribute.name == "group" and tensor.dims[1] == 1 < attribute.i:
                    attribute.i = tensor.dims[0]  # depthwise: the channels that fill the last block were counted too
            channels[node.output[0]] = tensors[node.input[1]].dims[0]
            node.op_type, node.domain = "FusedConv", "com.microsoft"
        elif node.op_type == "Upsample":
            _as_resize(copy, node)
        elif node.op_type in ("ReorderInput", "ReorderOutput"):
            node.op_type, node.domain = "Identity", ""
            node.ClearField("attribute")
        else:
            node.domain = ""
    return copy


def _as_resize(model: ModelProto, node: NodeProto) -> None:
    """Let an Upsample of whole factors, which are its attribute, be the Resize that it was made of."""
    scales = next((np.asarray(a.ints, np.float32) for a in node.attribute if a.name == "scales"), None)
    if scales is None:
        return
    kept = [a for a in node.attribute if a.name in ("mode", "coordinate_transformation_mode", "nearest_mode")]
    if not any(a.name == "coordinate_transformation_mode" for a in kept):
        kept.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    if not any(a.name == "nearest_mode" for a in kept):
        kept.append(helper.make_attribute("nearest_mode", "floor"))
    del node.attribute[:]
    node.attribute.extend(kept)
    name = f"{node.output[0]} scales"
    model.graph.initializer.append(numpy_helper.from_array(scales, name))
    node.op_type, node.domain = "Resize", ""
    node.input[:] = [node.input[0], "", name]


def _plain_weight(
    model: LoadedModel, tensor: TensorProto, node: NodeProto, block: int, from_blocked: bool
) -> NDArray[np.generic] | None:
    """A filter ``(O, I, h, w)`` whose blocks of output (and input) channels were moved to the end, put back."""
    stored = model.external.read(tensor)
    outer, inner, *kernel = stored.shape
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if outer % block:
        return None
    if from_blocked and not (inner == 1 and group > 1):
        if inner % block:
            return None
        parts = stored.reshape(outer // block, inner // block, *kernel, block, block)
        return parts.transpose(0, 5, 1, 4, 2, 3).reshape(stored.shape)
    return stored.reshape(outer // block, inner, *kernel, block).transpose(0, 4, 1, 2, 3).reshape(stored.shape)


def _without_filling(
    weight: NDArray[np.generic], bias: TensorProto | None, level: NDArray[np.generic] | None, inner: int | None
) -> NDArray[np.generic]:
    """The weight without the rows, and without the columns, that only fill a block; the bias is cut alike."""
    used = np.asarray(weight.reshape(len(weight), -1).any(axis=1))
    if level is not None and len(level) == len(used):
        used |= level != 0
    outer = int(np.flatnonzero(used).max(initial=0)) + 1
    if bias is not None and level is not None and len(level) == len(used):
        bias.CopyFrom(numpy_helper.from_array(level[:outer], bias.name))
    return weight[:outer, : inner if inner is not None else weight.shape[1]]
