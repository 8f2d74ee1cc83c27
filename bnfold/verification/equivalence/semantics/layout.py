"""Layout operators: the class goes through, and the transform moves with it as the operator's rule says."""

from __future__ import annotations

from math import prod

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, integers, pad_value, padding, slices
from bnfold.numerics.affine import Affine
from bnfold.rules.layout import MOST_ENTRIES
from bnfold.verification.equivalence.abstract_values import AbstractValue, Either
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned, evened
from bnfold.verification.equivalence.semantics.opaque import version
from bnfold.verification.equivalence.semantics.operands import floats
from bnfold.verification.equivalence.semantics.views import is_view, repeated_key, sizes_of, turned, viewed


def carried(interpreter: Interpreter, node: Node) -> bool:
    """A layout operator: the class goes through, and the transform moves with it as the operator's rule says."""
    state = interpreter.state_of(node.inputs[0])
    if not all(value is None or _is_fixed(interpreter, value) for value in node.inputs[1:]):
        return False
    if node.op in ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"):
        state = interpreter.positive(node, state)
    states = interpreter.carried(node, state)
    if states is None:  # perhaps for a gain that differs in its last bits alone
        gain, error = state.affine.gain, state.gain_error
        for axis in range(gain.ndim):
            gain, error = evened(gain, error, [axis], interpreter.eps(node.inputs[0]))
        if gain.size < state.affine.gain.size:
            state = AbstractValue(state.base, Affine.of(*aligned(gain, state.affine.shift)), error, state.shift_error)
            states = interpreter.carried(node, state)
    if states is None:
        state = interpreter.unshifted(node, state, interpreter.eps(node.inputs[0]))
        states = interpreter.carried(node, state)
    if states is None:
        return False
    if (whole := _whole(interpreter, node, state.base)) is not None:
        moved = states[node.output]
        interpreter.states[node.output] = AbstractValue(whole, moved.affine, moved.gain_error, moved.shift_error)
        return True
    keys = [(*key, version(node)) for key in _moves(interpreter, node, state.base)]
    for index, value in enumerate(node.outputs):
        if value is not None:
            base = interpreter.made(node, Either(tuple((*key, index) for key in keys))).base
            moved = states[value]
            interpreter.states[value] = AbstractValue(base, moved.affine, moved.gain_error, moved.shift_error)
            if node.op == "Slice" and keys[-1][0] == "cut":
                interpreter.slices.setdefault(base, (keys[-1][1], dict(keys[-1][2])))  # type: ignore[arg-type, call-overload]
    return True


def _is_fixed(interpreter: Interpreter, value: Value) -> bool:
    """Return True for constants, and for sizes, axes and places that are computed: no transform moves integers."""
    if value.graph.constants.is_constant(value):
        return True
    return value.dtype is not None and value.dtype.kind in "iu" and interpreter.state_of(value).is_plain


def pad(interpreter: Interpreter, node: Node) -> bool:
    """Read a Pad: copies go with what they copy; ``v`` around ``g b + h`` is ``(v - h) / g`` around ``b``."""
    state, value = interpreter.state_of(node.inputs[0]), node.inputs[0]
    given = padding(node)
    if node.attr("mode", "constant") != "constant" or given is None or value is None or None in given:
        return carried(interpreter, node)
    pads = [entries or 0 for entries in given]
    number, eps = pad_value(node), LOOSE * interpreter.eps(value)
    if number is not None and len(pads) > 2 and min(ends := (pads[1], pads[len(pads) // 2 + 1])) >= 0 and any(ends):
        count = (interpreter.shape(value) or (None, None))[1]
        if isinstance(count, int):
            state = _with_new_channels(interpreter, node, state, count, ends, number)
            pads[1] = pads[len(pads) // 2 + 1] = 0
    if not any(pads):
        interpreter.states[node.output] = state
        return True
    if number is None or _varies_where_padded(state, pads):
        return False
    if ((state.affine.gain == 0) & (state.affine.shift != number)).any():  # which nothing around ``b`` gives
        state = interpreter.unshifted(node, state, interpreter.eps(value))
    gain, shift, gain_error, shift_error = aligned(
        state.affine.gain, state.affine.shift, state.gain_error, state.shift_error
    )
    if ((gain == 0) & (shift != number)).any():
        return False
    size = np.where(gain == 0, 1.0, gain)
    fill = (number - shift) / size
    bars = (shift_error + eps * (abs(number) + np.abs(shift)) + np.abs(fill) * gain_error) / np.abs(size)
    key = (node.op, state.base, tuple(pads), version(node))
    if (np.abs(fill) <= bars).all():
        base = interpreter.made(node, (*key, "zeros")).base
        if (zeros := _padded_positions(pads, value.rank)) is not None:
            interpreter.pads[base] = state.base, zeros
    else:
        numbers = Numbers.stacked((fill,), (bars,))
        base = interpreter.made(node, (*key, "filled"), lambda: numbers).base
    interpreter.states[node.output] = AbstractValue(base, state.affine, state.gain_error, state.shift_error)
    return True


def _with_new_channels(
    interpreter: Interpreter, node: Node, state: AbstractValue, count: int, ends: tuple[int, int], number: float
) -> AbstractValue:
    """Return a value of ``count`` channels with further ones that hold a number: their class counts for nothing."""
    base = interpreter.made(node, (node.op, state.base, "channels", ends)).base

    def whole(array: Array, new: float) -> Array:
        sizes = [*array.shape, 1, 1][: max(array.ndim, 2)]
        sizes[1] = count
        array = np.broadcast_to(array.reshape(array.shape + (1,) * (2 - array.ndim)), sizes)
        widths = [ends if axis == 1 else (0, 0) for axis in range(array.ndim)]
        return np.pad(array, widths, constant_values=new)

    affine = Affine.of(*aligned(whole(state.affine.gain, 0.0), whole(state.affine.shift, number)))
    error = LOOSE * interpreter.eps(node.inputs[0]) * abs(number)
    return AbstractValue(base, affine, whole(state.gain_error, 0.0), whole(state.shift_error, error))


def _varies_where_padded(state: AbstractValue, pads: list[int]) -> bool:
    rank = len(pads) // 2
    arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
    sizes = np.broadcast_shapes(*(array.shape for array in aligned(*arrays)))
    return any(size != 1 and (pads[axis] or pads[rank + axis]) for axis, size in enumerate(sizes))


VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def _whole(interpreter: Interpreter, node: Node, base: int) -> int | None:
    """Return the class of what a view or a Transpose makes, whatever chain leads to it; None for other operators."""
    source = node.inputs[0]
    if node.op in VIEWS or is_view(node):
        return viewed(interpreter, node, base, sizes_of(interpreter, source), sizes_of(interpreter, node.output))
    if node.op == "Transpose" and source is not None and source.rank is not None:
        perm = node.attr("perm") or tuple(range(source.rank))[::-1]
        return turned(interpreter, node, base, tuple(perm)) if sorted(perm) == list(range(source.rank)) else None
    return None


def _moves(interpreter: Interpreter, node: Node, base: int) -> list[tuple[object, ...]]:
    """Return keys for what is moved and how: as it is written, and by its result where the shapes are known."""
    others = tuple(interpreter.state_of(value).base for value in node.inputs[1:])
    keys: list[tuple[object, ...]] = [(node.op, base, interpreter.attributes(node), others)]
    if node.op == "Expand" and (key := repeated_key(node, base, None)) is not None:
        return [key]
    if node.op == "Slice" and (cut := _slice_key(interpreter, node, base)) is not None:
        keys.append(cut)
    return keys


def _slice_key(interpreter: Interpreter, node: Node, base: int) -> tuple[object, ...] | None:
    """Return what a Slice takes of each axis, however its bounds are written; None where they aren't known.

    Consecutive slices of different axes are one.
    """
    ranges = _slice_ranges(node)
    if ranges is None:
        return None
    inner, cut = interpreter.slices.get(base, (base, {}))
    cut = dict(cut)
    for axis, taken in ranges:
        if taken != (0, _END, 1):
            if axis in cut:
                return None
            cut[axis] = taken
    return "cut", inner, tuple(sorted(cut.items()))


def _slice_ranges(node: Node) -> list[tuple[int, tuple[int, int, int]]] | None:
    """Return start, end and step of a Slice by axis, normalized where sizes are known; None for computed bounds."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    spans = slices(node)
    if shape is None or spans is None:
        return None
    ranges = []
    for axis, span in spans:
        if span is None:
            return None
        start, end, step, size = span.start, span.stop, span.step, shape[axis]
        if isinstance(size, int) and step > 0:
            start, end, step = slice(start, end, step).indices(size)
            end = _END if end == size else end
        ranges.append((axis, (start, min(end, _END), step)))
    return ranges


_END = 2**31 - 1
"""What stands for the end of an axis."""


def _padded_positions(pads: list[int], rank: int | None) -> list[int] | None:
    """Return the padding of the positions, as a convolution could do itself; None for other padding."""
    if rank is None or any((*pads[:2], *pads[rank : rank + 2])) or min(pads) < 0:
        return None
    return [*pads[2:rank], *pads[rank + 2 :]]


def concat(interpreter: Interpreter, node: Node) -> bool:
    """Concat: transforms are joined as the values are."""
    rank = node.output.rank
    states = [interpreter.state_of(value) for value in node.inputs]
    if rank is None or None in node.inputs:
        return False
    if len(states) == 1:
        interpreter.states[node.output] = states[0]
        return True
    axis = node.attr("axis", 1) % rank
    sizes = [None if value is None or value.shape is None else value.shape[axis] for value in node.inputs]
    bases = tuple(state.base for state in states)
    base = interpreter.made(node, ("Concat", axis, bases)).base
    if all(state.is_plain for state in states):
        interpreter.states[node.output] = AbstractValue(base)
        return True
    if not all(isinstance(size, int) for size in sizes):
        return False
    parts = []
    for arrays in zip(*((f.affine.gain, f.affine.shift, f.gain_error, f.shift_error) for f in states), strict=True):
        full = [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]
        common = list(np.broadcast_shapes(*((*array.shape[:axis], 1, *array.shape[axis + 1 :]) for array in full)))
        if prod(common) * sum(n for n in sizes if n) > MOST_ENTRIES:
            return False
        wide = [
            np.broadcast_to(a, (*common[:axis], n or 0, *common[axis + 1 :])) for a, n in zip(full, sizes, strict=True)
        ]
        parts.append(np.concatenate(wide, axis))
    interpreter.states[node.output] = AbstractValue(base, Affine.of(parts[0], parts[1]), parts[2], parts[3])
    return True


def expand(interpreter: Interpreter, node: Node) -> bool:
    """Expand: to the shape that a value has it is no operator."""
    source, target = sizes_of(interpreter, node.inputs[0]), sizes_of(interpreter, node.output)
    if source is not None and source == target:
        interpreter.states[node.output] = interpreter.state_of(node.inputs[0])
        return True
    return carried(interpreter, node)


def tile(interpreter: Interpreter, node: Node) -> bool:
    """Tile: where it repeats axes of length 1, an Expand."""
    repeats = integers(node, "repeats", 1)
    if repeats is None or not node.graph.constants.is_constant(node.input(1)):
        return False
    state = interpreter.state_of(node.inputs[0])
    if all(count == 1 for count in repeats):
        interpreter.states[node.output] = state
        return True
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    states = interpreter.carried(node, state)
    if states is None or shape is None or len(repeats) != len(shape):
        return False
    key = repeated_key(node, state.base, tuple(repeats)) or ("Tile", state.base, tuple(repeats))
    base, moved = interpreter.made(node, (*key, version(node), 0)).base, states[node.output]
    interpreter.states[node.output] = AbstractValue(base, moved.affine, moved.gain_error, moved.shift_error)
    return True


def gather(interpreter: Interpreter, node: Node) -> bool:
    """Gather: the rows of a constant table matter up to a transform of its columns; else it is a layout operator."""
    shape, indices = floats(node, 0), node.input(1)
    if shape is None or indices is None:
        return carried(interpreter, node)
    if len(shape) != 2 or node.attr("axis", 0) or indices.rank is None:
        return False
    held = constant(node, 0).astype(np.float64)
    middle = np.median(held, axis=0)  # one huge entry must not hide what the others are
    lead = (1,) * indices.rank
    columns = (held - middle).T.reshape(lead + shape[::-1])
    bars = LOOSE * interpreter.eps(node.inputs[0]) * np.abs(held).T.reshape(lead + shape[::-1])
    key = ("table", shape, interpreter.state_of(indices).base)
    state = interpreter.made(node, key, lambda: Numbers(columns, bars), "any")
    offset = middle.reshape(lead + middle.shape)
    interpreter.states[node.output] = state.shifted(offset, LOOSE * interpreter.eps(node.inputs[0]) * np.abs(offset))
    return True


def shape_of(interpreter: Interpreter, node: Node) -> bool:
    """Shape and Size: they don't depend on numbers."""
    base = interpreter.state_of(node.inputs[0]).base
    interpreter.states[node.output] = interpreter.made(node, (node.op, base, interpreter.attributes(node)))
    return True


SEMANTICS = {
    "Concat": concat,
    "Gather": gather,
    "Expand": expand,
    "Pad": pad,
    "Tile": tile,
    **dict.fromkeys(("Shape", "Size"), shape_of),
    **dict.fromkeys(
        (
            *VIEWS, "Transpose", "SpaceToDepth", "DepthToSpace", "MaxPool", "GlobalMaxPool", "AveragePool",
            "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Resize", "Upsample",
            "Slice", "Split", "Std", "Var", "GatherElements", "GatherND", "ReverseSequence",
        ),
        carried,
    ),
}  # fmt: skip
