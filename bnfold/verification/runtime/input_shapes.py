"""Whether inputs of some shapes fit a graph, by shape inference alone: nothing is run."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from bnfold.frontends.onnx.shape_inference import inferred
from bnfold.frontends.onnx.type_inference import without_weights


def misfit(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """0 if nothing speaks against inputs of these shapes, -1 if they are too small somewhere, 1 if too large.

    Looked at are products with constant matrices, reshapes to sizes that are written down, and results of no size.
    """
    skeleton = without_weights(model)
    del skeleton.graph.value_info[:]
    for info in skeleton.graph.input:
        if info.name in shapes:
            dims = info.type.tensor_type.shape
            dims.ClearField("dim")
            for size in shapes[info.name]:
                dims.dim.add(dim_value=size)
    try:
        seen = inferred(skeleton)
    except Exception:  # onnx raises several kinds for models that it takes for invalid
        return 0
    known = {
        info.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim]
        for info in (*seen.graph.value_info, *seen.graph.input, *seen.graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    known |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in seen.graph.node:
        for name in node.output:
            if any(size is not None and size <= 0 for size in known.get(name, ())):
                return -1
        if node.op_type in ("Gemm", "MatMul"):
            first, second = (known.get(name) for name in node.input[:2])
            if first and second and len(first) > 1 and len(second) > 1:
                flags = {a.name: a.i for a in node.attribute}
                inner = first[-2 if flags.get("transA") else -1], second[-1 if flags.get("transB") else -2]
                if None not in inner and inner[0] != inner[1]:
                    return -1 if (inner[0] or 0) < (inner[1] or 0) else 1
        elif node.op_type == "Reshape" and (source := known.get(node.input[0])) and None not in source:
            target = known.get(node.output[0])
            if target and None not in target:
                before, after = _count(source), _count(target)
                if before != after:
                    return -1 if before < after else 1
    return 0


def _count(sizes: list[int | None]) -> int:
    total = 1
    for size in sizes:
        total *= size or 0
    return total
