"""Whether the number of rows that a model declares is a mere declaration: nothing in its graph depends on it.

Exporters write down the batch that they were shown. Where every operator up to the last BatchNorm handles whatever rows
there are, one like the other, fewer rows are the same function of each. Only what is provably so counts: for any other
operator, or a size that is written down somewhere, the declared number is the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from bnfold.calibration.layers import Level, held
from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape, integers
from bnfold.rules.rule import INCONSISTENT_MODEL

Check = Callable[[Node, set[Value]], bool]


def rows_are_free(levels: Iterable[Level], inputs: Iterable[Value]) -> bool:
    """Return True if what the levels compute handles any number of rows along the first axis of all ``inputs``."""
    known = set(inputs)
    for level in levels:
        for node in level.nodes:
            check = CHECKS.get(node.op)
            try:
                if check is None or not check(node, known) or _counts_rows(node):
                    return False
                if node.op == "MaxPool" and len(node.live_outputs) > 1:  # its indices count across the batch
                    return False
            except (NotEvaluable, AssertionError, *INCONSISTENT_MODEL):
                return False
            known.update(node.live_outputs)
    return all(layer.source in known for level in levels for layer in level.layers)


def _counts_rows(node: Node) -> bool:
    """Return True if a constant that the node reads is made of the shape of something."""
    pending = [value for value in node.inputs if value is not None and held(value)]
    seen: set[Value] = set()
    while pending:
        value = pending.pop()
        if value in seen or value.producer is None or value.tensor is not None:
            continue
        seen.add(value)
        if value.producer.op in ("Shape", "Size"):
            return True
        pending += [used for used in value.producer.inputs if used is not None]
    return False


def _first(node: Node, known: set[Value]) -> bool:
    """The first input has rows, all others are parameters of the operator."""
    return node.inputs[0] in known and all(value is None or held(value) for value in node.inputs[1:])


def _alike(node: Node, known: set[Value]) -> bool:
    """Operands of one rank with rows; constants that do not reach their axis, or are the same along it."""
    values = [value for value in node.inputs if value is not None]
    ranks = {value.rank for value in values if value in known}
    rank = next(iter(ranks), None)
    if len(ranks) != 1 or rank is None or (node.opset < 7 and len(values) > sum(v in known for v in values)):
        return False
    for index, value in enumerate(node.inputs):
        if value is not None and value not in known:
            shape = constant_shape(node, index) if held(value) else (0,) * (rank + 1)
            if len(shape) > rank or (len(shape) == rank and shape[0] != 1):
                return False
    return True


def _off_first(name: str, default: int | None = None) -> Check:
    """An operator along one axis, which is not that of the rows."""

    def check(node: Node, known: set[Value]) -> bool:
        source, axis = node.inputs[0], node.attr(name, default)
        assert source is not None
        rank = source.rank
        inputs = [value for value in node.inputs if value is not None]
        fed = all(value in known for value in inputs) if node.op == "Concat" else _first(node, known)
        return fed and rank is not None and axis is not None and axis % rank != 0

    return check


def _flatten(node: Node, known: set[Value]) -> bool:
    return _first(node, known) and node.attr("axis", 1) == 1


def _softmax(node: Node, known: set[Value]) -> bool:
    return _off_first("axis", 1 if node.opset < 13 else -1)(node, known)


def _axes(node: Node, known: set[Value]) -> bool:
    """Axes that are added, dropped or reduced, none of them that of the rows."""
    place = 3 if node.op == "Slice" else 1
    axes = integers(node, "axes", place)
    whole = node.output if node.op == "Unsqueeze" else node.inputs[0]
    assert whole is not None
    rank = whole.rank
    return _first(node, known) and bool(axes) and rank is not None and all(axis % rank for axis in axes or ())


def _reshape(node: Node, known: set[Value]) -> bool:
    """The rows kept by a 0, or left over once each row has its size."""
    source = node.inputs[0]
    sizes = integers(node, "shape", 1)
    if not _first(node, known) or not sizes or node.attr("allowzero", 0):
        return False
    assert source is not None
    if sizes[0] == 0:
        return True
    shape = source.shape or ()
    rest = [size for size in shape[1:] if isinstance(size, int)]
    exact = len(rest) == len(shape) - 1 and all(size > 0 for size in sizes[1:])
    return sizes[0] == -1 and exact and prod(rest) == prod(sizes[1:])


def _gemm(node: Node, known: set[Value]) -> bool:
    if not _first(node, known) or node.attr("transA", 0):
        return False
    offset = () if node.input(2) is None else constant_shape(node, 2)
    return len(offset) < 2 or offset[0] == 1


def _matmul(node: Node, known: set[Value]) -> bool:
    source = node.inputs[0]
    assert source is not None
    return _first(node, known) and (source.rank or 0) >= 2 and len(constant_shape(node, 1)) == 2


def _transpose(node: Node, known: set[Value]) -> bool:
    return _first(node, known) and next(iter(node.attr("perm", ())), None) == 0


def _pad(node: Node, known: set[Value]) -> bool:
    pads = integers(node, "pads", 1) or integers(node, "paddings", 1)
    given = pads is not None and not pads[0] and not pads[len(pads) // 2]
    return _first(node, known) and given and node.input(3) is None


def _resize(node: Node, known: set[Value]) -> bool:
    """By scales, of which that of the rows is 1."""
    place = 1 if node.op == "Upsample" or node.opset < 11 else 2
    if not _first(node, known) or node.input(3) is not None or node.attr("axes") is not None:
        return False
    scales = node.attrs["scales"] if "scales" in node.attrs else constant(node, place).reshape(-1)
    return float(scales[0]) == 1.0


def _of(check: Check, ops: str) -> dict[str, Check]:
    return dict.fromkeys(ops.split(), check)


CHECKS: dict[str, Check] = {
    **_of(
        _first,
        "Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool LRN Linear Clip "
        "BatchNormalization InstanceNormalization GroupNormalization DepthToSpace SpaceToDepth Dropout Identity Cast "
        "Relu LeakyRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Gelu Mish Exp Log Sqrt "
        "Abs Neg Reciprocal Erf Floor Ceil Round Sign ThresholdedRelu Shrink",
    ),
    **_of(_alike, "Add Sub Mul Div Pow Min Max Sum Mean PRelu"),
    "Flatten": _flatten,
    **_of(_off_first("axis", -1), "LayerNormalization"),
    **_of(_off_first("axis"), "Concat"),
    **_of(_off_first("axis", 0), "Split"),
    **_of(_softmax, "Softmax LogSoftmax"),
    **_of(_axes, "Squeeze Unsqueeze Slice ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceProd"),
    **_of(_resize, "Resize Upsample"),
    "Reshape": _reshape,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Transpose": _transpose,
    "Pad": _pad,
}
"""When the operators that are known keep rows apart from their number."""
