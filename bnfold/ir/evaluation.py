"""Evaluate one node of constant inputs: on onnx's reference implementation, arithmetic on floats in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.numerics.dequantize import dequantized, quantized
from bnfold.numerics.rounding import is_float, rounded

MOST_ELEMENTS = 2**28
"""A constant of more elements than this is not computed, whatever the file stores (2 GiB in float64)."""

PRODUCTS = 64
"""Products that are summed up in the time of a few elements that are moved: what a MatMul may cost."""

SMOOTH = frozenset(
    """
    Add Sub Mul Div Neg Sqrt Reciprocal Pow Exp Abs Sum Mean Max Min Clip Relu Sigmoid Tanh Log MatMul
    ReduceMean ReduceSum ReduceSumSquare ReduceL1 ReduceL2 ReduceMax ReduceMin BatchNormalization
    """.split()  # noqa: SIM905
)
STEPS = frozenset("Sign Floor Ceil Round Greater Less Equal GreaterOrEqual LessOrEqual And Or Not Where".split())  # noqa: SIM905
"""What jumps: a constant whose last bit decides is found out, since it is computed with and without roundings."""

ARITHMETIC = SMOOTH | STEPS
ADDING = frozenset("Add Sub Sum Mean MatMul ReduceMean ReduceSum ReduceSumSquare BatchNormalization".split())  # noqa: SIM905
"""What may make a small number out of large ones, whose roundings it then carries."""

MOVING = frozenset(
    {
        "Identity", "Cast", "CastLike", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand",
        "Concat", "Slice", "Gather", "ConstantOfShape", "Shape", "DequantizeLinear", "QuantizeLinear", "Split", "Tile",
    }
)  # fmt: skip
EVALUATED = MOVING | ARITHMETIC
"""Operators whose results are constants where their inputs are: what weights are normalized, pruned and built with."""


class NotEvaluable(Exception):
    """A constant that can't be computed here: absurdly large, or its node is invalid."""


def evaluated(
    node: Node, value: Value, inputs: list[NDArray[Any] | None], stored: list[NDArray[Any] | None], budget: int
) -> NDArray[Any]:
    """One node, arithmetic on floats in float64; ``stored`` has the types of its inputs. Raises NotEvaluable."""
    refuse_absurd(node, inputs, budget)
    first, kept = inputs[0], stored[0]
    if node.op in ("Cast", "CastLike") and first is not None and kept is not None and value.dtype is not None:
        if is_float(first.dtype) and is_float(value.dtype):
            return rounded(first, value.dtype)
        first = rounded(first, kept.dtype) if is_float(first.dtype) else first  # an integer is not almost another
        if node.op == "CastLike":
            return first.astype(value.dtype)
        inputs = [first]
    if node.op in ARITHMETIC:
        inputs = [data.astype(np.float64) if data is not None and is_float(data.dtype) else data for data in inputs]
    if node.op == "DequantizeLinear":
        return _dequantized(node, inputs)
    if node.op == "QuantizeLinear":
        return _quantized(node, value, inputs, stored)
    return evaluate_node(node, inputs)[node.outputs.index(value)]


def refuse_absurd(node: Node, inputs: list[NDArray[Any] | None], budget: int) -> None:
    """Keep a small file from asking for a huge tensor, or for many large ones in a row. Raises NotEvaluable."""
    held = [data for data in inputs if data is not None]
    if node.op in ("ConstantOfShape", "Tile"):
        size = float(np.prod(np.abs(held[-1].astype(np.float64)))) * (held[0].size if node.op == "Tile" else 1)
    elif node.op in ARITHMETIC | {"Expand"}:
        shapes = [data.shape for data in held]
        if node.op == "Expand":
            shapes[-1] = tuple(int(dim) for dim in held[-1].reshape(-1))
        rank = max(map(len, shapes), default=0)
        full = [(1,) * (rank - len(shape)) + shape for shape in shapes]
        size = float(np.prod([float(max(dims)) for dims in zip(*full, strict=True)]))
        if node.op == "MatMul" and len(held) == 2 and all(shapes):
            size = max(size, float(held[0].size) * held[1].size / max(held[0].shape[-1], 1) / PRODUCTS)
    elif node.op == "Gather":
        axis = held[0].shape[node.attr("axis", 0)] if held[0].ndim else 1
        size = float(held[0].size) / max(axis, 1) * float(held[-1].size)
    else:
        size = float(sum(data.size for data in held))
    if size > min(budget, MOST_ELEMENTS):
        raise NotEvaluable(f"{node.label} asks for {size:.3g} elements")


def _dequantized(node: Node, inputs: list[NDArray[Any] | None]) -> NDArray[Any]:
    quantized, scale, zero = (*inputs, None)[:3]
    if quantized is None or scale is None:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} lacks an input")
    try:
        return dequantized(quantized, scale, zero, node.attr("axis", 1), node.attr("block_size", 0))
    except (ValueError, IndexError, TypeError) as error:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} can't be evaluated: {error}") from error


def _quantized(
    node: Node, value: Value, inputs: list[NDArray[Any] | None], stored: list[NDArray[Any] | None]
) -> NDArray[Any]:
    values, scale, zero = (*inputs, None)[:3]
    if values is None or scale is None or stored[0] is None or not is_float(stored[0].dtype):
        raise NotEvaluable(f"QuantizeLinear {node.name!r} quantizes no floats")
    dtype = zero.dtype if zero is not None else value.dtype or np.dtype(np.uint8)
    if dtype.kind not in "iu" and "int" not in dtype.name:
        raise NotEvaluable(f"QuantizeLinear {node.name!r} makes {dtype}")
    try:
        values = rounded(values, stored[0].dtype)
        return quantized(values, scale, zero, dtype, node.attr("axis", 1), node.attr("block_size", 0))
    except (ValueError, IndexError, TypeError) as error:
        raise NotEvaluable(f"QuantizeLinear {node.name!r} can't be evaluated: {error}") from error


def evaluate_node(node: Node, inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """One node on onnx's reference implementation. Raises NotEvaluable."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    unknown = helper.make_empty_tensor_value_info
    names = ["" if data is None else f"i{k}" for k, data in enumerate(inputs)]
    outputs = [f"o{k}" for k in range(len(node.outputs))]
    attrs = {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for key, value in node.attrs.items()
    }
    proto = helper.make_node(node.op, names, outputs, **attrs)
    feed = {name: data for name, data in zip(names, inputs, strict=True) if name}
    try:
        graph = helper.make_graph([proto], "constant", [unknown(n) for n in feed], [unknown(n) for n in outputs])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)])
        run = ReferenceEvaluator(model)
        return [np.asarray(result) for result in run.run(None, feed)]
    except MemoryError:
        raise  # says nothing about the node
    except Exception as error:  # an invalid node may raise anything at all
        raise NotEvaluable(f"{node.label} can't be evaluated: {error}") from error
