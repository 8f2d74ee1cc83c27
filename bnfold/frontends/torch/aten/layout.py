"""What moves entries about, joins and takes apart; reductions."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bnfold.frontends.torch.aten.call import Call, OnnxView, Operand, Translation, plain


def _view(op: str, *shapes: str) -> Translation:
    """Reshape and Expand take the new shape from the result; where it is known, as a constant, for constants' sake.

    ``shapes`` names the argument whose shape it is.
    """

    def view(call: Call) -> OnnxView | None:
        after = call.node.meta.get("val")
        shape = list(after.shape) if isinstance(after, Tensor) else []
        known = isinstance(after, Tensor) and all(type(n) is int for n in shape)
        size = [np.asarray(shape, np.int64)] if known else []
        return OnnxView(op, [Operand("self"), *size], shapes=shapes)

    return view


def _permute(call: Call) -> OnnxView | None:
    rank, dims = call.rank("self"), call["dims"]
    return None if rank is None else OnnxView("Transpose", [Operand("self")], {"perm": [int(d) % rank for d in dims]})


def _swap(call: Call) -> OnnxView | None:
    rank = call.rank("self")
    if not rank:
        return None
    names = ("axis0", "axis1") if "axis0" in call.arguments else ("dim0", "dim1")
    first, second = (call[name] for name in names) if names[0] in call.arguments else (0, min(1, rank - 1))
    perm = list(range(rank))
    perm[first % rank], perm[second % rank] = perm[second % rank], perm[first % rank]
    return OnnxView("Transpose", [Operand("self")], {"perm": perm})


def _movedim(call: Call) -> OnnxView | None:
    rank = call.rank("self")
    if rank is None:
        return None
    named = np.empty(tuple(range(1, rank + 1)))  # whose lengths tell its axes apart
    perm = [size - 1 for size in np.moveaxis(named, call["source"], call["destination"]).shape]
    return OnnxView("Transpose", [Operand("self")], {"perm": perm})


def _reduce(op: str) -> Translation:
    """Reductions over the axes of ``dim``; over all where it names none."""

    def view(call: Call) -> OnnxView | None:
        if call["dtype"] is not None:
            return None
        dims, rank = call["dim"], call.rank("self")
        if rank is None:
            return None
        dims = list(range(rank)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
        return OnnxView(op, [Operand("self")], {"axes": dims, "keepdims": int(bool(call["keepdim"]))})

    return view


def _cat(call: Call) -> OnnxView | None:
    tensors = call["tensors"]
    if not isinstance(tensors, list | tuple) or type(call["dim"]) is not int:
        return None
    ranks = {len(t.meta["val"].shape) for t in tensors if isinstance(t.meta.get("val"), Tensor)}
    if len(ranks) != 1:
        return None  # an empty tensor of one axis joins anything
    inputs = [Operand("tensors", index) for index in range(len(tensors))]
    return OnnxView("Concat", inputs, {"axis": call["dim"]})


def _split(call: Call) -> OnnxView | None:
    return OnnxView("Split", [Operand("self")], {"axis": call["dim"]})


def _slice(call: Call) -> OnnxView | None:
    start, end, step, dim = (call[name] for name in ("start", "end", "step", "dim"))
    start, end = 0 if start is None else start, 2**62 if end is None else end
    if not all(type(n) is int for n in (start, end, step, dim)):
        return None
    bounds = [np.asarray([n], np.int64) for n in (start, end, dim, step)]
    return OnnxView("Slice", [Operand("self"), *bounds])


def _narrow(call: Call) -> OnnxView | None:
    start, length, dim = (call[name] for name in ("start", "length", "dim"))
    if not all(type(n) is int for n in (start, length, dim)) or start < 0:
        return None
    bounds = [np.asarray([n], np.int64) for n in (start, start + length, dim)]
    return OnnxView("Slice", [Operand("self"), *bounds])


def _index_select(call: Call) -> OnnxView | None:
    if call.rank("index") != 1 or not call.rank("self"):
        return None
    return OnnxView("Gather", [Operand("self"), Operand("index")], {"axis": call["dim"]})


def _index(call: Call) -> OnnxView | None:
    """Entries picked along one axis, as ``x[:, [3, 1]]`` does; masks and several axes are no Gather."""
    picked = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
    if len(picked) != 1:
        return None
    ((axis, index),) = picked
    held = index.meta.get("val")
    if not isinstance(held, Tensor) or held.dtype.is_floating_point or held.element_size() < 4 or held.dim() != 1:
        return None
    return OnnxView("Gather", [Operand("self"), Operand("indices", axis)], {"axis": axis})


def _flip(call: Call) -> OnnxView | None:
    """Slices from the last entry to the first."""
    dims = list(call["dims"])
    bounds = [np.full(len(dims), n, np.int64) for n in (-1, -(2**62), 0, -1)]
    bounds[2] = np.asarray(dims, np.int64)
    return OnnxView("Slice", [Operand("self"), *bounds]) if dims else None


def _norm(call: Call) -> OnnxView | None:
    """Norms of order 1 and 2."""
    order = call["ord"] if "ord" in call.arguments else call["p"]
    op = {1: "ReduceL1", 2: "ReduceL2"}.get(order) if type(order) in (int, float) else None
    return None if op is None else _reduce(op)(call)


def _spread(op: str) -> Translation:
    """Standard deviation and variance; ``correction`` or ``unbiased`` says by what the squares are divided."""

    def view(call: Call) -> OnnxView | None:
        rank, dims = call.rank("self"), call["dim"]
        if rank is None:
            return None
        dims = list(range(rank)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
        return OnnxView(op, [Operand("self")], {"axes": dims, "keepdims": int(bool(call["keepdim"]))})

    return view


def _select(call: Call) -> OnnxView | None:
    if type(call["index"]) is not int:
        return None
    return OnnxView("Gather", [Operand("self"), np.asarray(call["index"], np.int64)], {"axis": call["dim"]})


def _shuffle(op: str, name: str) -> Translation:
    """Positions into channels or back, in torch's one order; torch takes further leading axes, ONNX does not."""

    def view(call: Call) -> OnnxView | None:
        return (
            OnnxView(op, [Operand("self")], {"blocksize": call[name], "mode": "CRD"})
            if call.rank("self") == 4
            else None
        )

    return view


def _repeat(call: Call) -> OnnxView | None:
    rank = call.rank("self")
    repeats = None if rank is None else call["repeats"]
    if repeats is None or len(repeats) != rank or not all(type(count) is int for count in repeats):
        return None
    return OnnxView("Tile", [Operand("self"), np.array(repeats, np.int64)])


TABLE: dict[str, Translation] = {
    "gather": lambda call: OnnxView("GatherElements", [Operand("self"), Operand("index")], {"axis": call["dim"]}),
    "repeat": _repeat,
    "scatter.src": lambda call: OnnxView(
        "ScatterElements", [Operand("self"), Operand("index"), Operand("src")], {"axis": call["dim"]}
    ),
    "permute": _permute,
    **dict.fromkeys(("transpose.int", "t", "numpy_T", "swapaxes", "swapdims"), _swap),
    **dict.fromkeys(("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist"), _movedim),
    **dict.fromkeys(("reshape_as", "view_as"), _view("Reshape", "other")),
    "expand_as": _view("Expand", "other"),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int"), _view("Reshape")),
    **dict.fromkeys(("squeeze", "squeeze.dim", "squeeze.dims", "unsqueeze"), _view("Reshape")),
    "expand": _view("Expand"),
    "mean.dim": _reduce("ReduceMean"),
    "mean": _reduce("ReduceMean"),
    "sum.dim_IntList": _reduce("ReduceSum"),
    **dict.fromkeys(("linalg_vector_norm", "norm.ScalarOpt_dim"), _norm),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "cat": _cat,
    **dict.fromkeys(("split.Tensor", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("split.sizes", "unsafe_split.Tensor", "unsafe_split_with_sizes", "unsafe_chunk"), _split),
    **dict.fromkeys(("concat", "concatenate"), _cat),
    **dict.fromkeys(("std", "std.dim", "std.correction"), _spread("Std")),
    **dict.fromkeys(("var", "var.dim", "var.correction"), _spread("Var")),
    "narrow": _narrow,
    "index_select": _index_select,
    "index.Tensor": _index,
    "flip": _flip,
    "slice.Tensor": _slice,
    "select.int": _select,
    "pixel_shuffle": _shuffle("DepthToSpace", "upscale_factor"),
    "pixel_unshuffle": _shuffle("SpaceToDepth", "downscale_factor"),
    **dict.fromkeys(("sym_size.int", "sym_numel", "sym_stride.int"), plain("Shape")),
}  # fmt: skip
