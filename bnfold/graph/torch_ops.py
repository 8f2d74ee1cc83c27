"""ATen operators in ONNX's terms: what the rules need to know of each call, and which arguments hold its constants.

One entry per operator of :data:`TABLE`. What is not listed there, or is called as no rule covers it, stays opaque.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, fx


@dataclass(frozen=True)
class Operand:
    """One input in ONNX's order: an argument of the call (``index`` within a list).

    ``default`` stands for an argument that is absent. ``shape`` is how ONNX wants the argument's data laid out.
    """

    name: str
    index: int | None = None
    default: Callable[[], np.ndarray[Any, Any]] | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Seen:
    """A call as the operator ``op`` of ONNX. ``arguments``: which ones hold the attributes that a fold may set."""

    op: str
    inputs: Sequence[Operand | np.ndarray[Any, Any] | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)


class Call:
    """The arguments of a call by name, defaults filled in."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node
        self.arguments: dict[str, Any] = {}
        for position, formal in enumerate(_schema(node).arguments):
            if formal.name in node.kwargs:
                self.arguments[formal.name] = node.kwargs[formal.name]
            elif position < len(node.args):
                self.arguments[formal.name] = node.args[position]
            elif formal.has_default_value():
                self.arguments[formal.name] = formal.default_value

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def shape(self, name: str) -> tuple[Any, ...] | None:
        """The dimensions of a tensor argument, symbols among them; None for anything else."""
        value = self[name]
        found = value.meta.get("val") if isinstance(value, fx.Node) else None
        return tuple(found.shape) if isinstance(found, Tensor) else None

    def rank(self, name: str) -> int | None:
        """The number of axes of a tensor argument."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def integers(self, name: str, length: int) -> list[int] | None:
        """A list of numbers, one number repeated; None if one is only known at run time."""
        found = self[name]
        found = [found] * length if isinstance(found, int) else list(found or [])
        found = found * length if len(found) == 1 else found
        return found if len(found) == length and all(type(n) is int for n in found) else None


def _schema(node: fx.Node) -> Any:
    return node.target._schema  # type: ignore[union-attr]


def translate(node: fx.Node) -> Seen | None:
    """A call in ONNX's terms; None if it stays opaque."""
    name = str(node.target).removeprefix("aten.")
    found = TABLE.get(name.removesuffix(".default")) or TABLE.get(_functional(name))
    return None if found is None else found(Call(node))


def _functional(name: str) -> str:
    """``relu_.default`` as ``relu``: what an operator that works in place computes."""
    operator, _, overload = name.partition(".")
    plain = operator.removesuffix("_")
    return plain if overload in ("default", "") else f"{plain}.{overload}"


# --- linear operators


def _conv(call: Call) -> Seen | None:
    rank = call.rank("weight")
    if rank is None or call.rank("input") != rank:
        return None
    axes = rank - 2
    strides, dilations = call.integers("stride", axes), call.integers("dilation", axes)
    transposed = bool(call["transposed"]) or "transpose" in str(call.node.target)
    pads = _conv_pads(call, axes, dilations)
    if strides is None or dilations is None or pads is None or type(call["groups"]) is not int:
        return None
    attrs = {"strides": strides, "dilations": dilations, "pads": pads, "group": call["groups"]}
    if transposed:
        extra = call.integers("output_padding", axes)
        if extra is None:
            return None
        attrs["output_padding"] = extra
    inputs = [Operand("input"), Operand("weight"), Operand("bias")]
    return Seen("ConvTranspose" if transposed else "Conv", inputs, attrs)


def _conv_pads(call: Call, axes: int, dilations: list[int] | None) -> list[int] | None:
    """Begins and ends; ``same`` puts the odd one at the end, as ONNX's SAME_UPPER does."""
    if call["padding"] == "valid":
        return [0] * 2 * axes
    if call["padding"] == "same":
        shape = call.shape("weight")
        assert shape is not None
        totals = [d * (int(k) - 1) for d, k in zip(dilations or [], shape[2:], strict=False)]
        return [t // 2 for t in totals] + [t - t // 2 for t in totals]
    pads = call.integers("padding", axes)
    return None if pads is None else pads * 2


def _linear(call: Call) -> Seen | None:
    if call.rank("weight") != 2:
        return None
    return Seen("Linear", [Operand("input"), Operand("weight"), Operand("bias")])


def _addmm(call: Call) -> Seen | None:
    if not all(type(call[name]) in (int, float) for name in ("alpha", "beta")):
        return None
    attrs = {"alpha": float(call["alpha"]), "beta": float(call["beta"])}
    return Seen("Gemm", [Operand("mat1"), Operand("mat2"), Operand("self")], attrs, {"beta": "beta"})


def _product(first: str, second: str) -> Callable[[Call], Seen | None]:
    def seen(call: Call) -> Seen | None:
        return Seen("MatMul", [Operand(first), Operand(second)])

    return seen


# --- normalisation


def _batch_norm(call: Call) -> Seen | None:
    """``training`` and a BatchNorm without running statistics normalise by the batch."""
    shape = call.shape("input")
    if shape is None or len(shape) < 2 or type(shape[1]) is not int:
        return None
    channels = shape[1]
    kind = str(call.node.target)
    trains = call["training"] if "training" in call.arguments else "no_training" not in kind
    trains = bool(trains) or call["running_mean"] is None or call["running_var"] is None
    inputs = [
        Operand("input"),
        Operand("weight", default=lambda: np.ones(channels, np.float32)),
        Operand("bias", default=lambda: np.zeros(channels, np.float32)),
        Operand("running_mean", default=lambda: np.zeros(channels, np.float32)),
        Operand("running_var", default=lambda: np.ones(channels, np.float32)),
    ]
    return Seen("BatchNormalization", inputs, {"epsilon": call["eps"], "training_mode": int(trains)})


def _instance_norm(call: Call) -> Seen | None:
    if not call["use_input_stats"] or call["weight"] is None or call["bias"] is None:
        return None
    inputs = [Operand("input"), Operand("weight"), Operand("bias")]
    return Seen("InstanceNormalization", inputs, {"epsilon": call["eps"]})


# --- arithmetic and activations


def _binary(op: str, *, swapped: bool = False) -> Callable[[Call], Seen | None]:
    def seen(call: Call) -> Seen | None:
        if call["alpha"] not in (None, 1) or call["rounding_mode"] is not None:
            return None
        operands = [Operand("self"), Operand("other")]
        return Seen(op, operands[::-1] if swapped else operands)

    return seen


def _plain(op: str, name: str = "self", **attrs: Any) -> Callable[[Call], Seen | None]:
    return lambda _: Seen(op, [Operand(name)], attrs)


def _clip(low: str, high: str) -> Callable[[Call], Seen | None]:
    return lambda call: Seen("Clip", [Operand("self"), Operand(low), Operand(high)])


def _relu6(_: Call) -> Seen:
    return Seen("Clip", [Operand("self"), np.zeros((), np.float32), np.full((), 6.0, np.float32)])


def _leaky_relu(call: Call) -> Seen:
    return Seen("LeakyRelu", [Operand("self")], {"alpha": call["negative_slope"]})


def _prelu(call: Call) -> Seen | None:
    """The slope belongs to axis 1; ONNX aligns it with the last axis."""
    shape, rank = call.shape("weight"), call.rank("self")
    if shape is None or rank is None or rank < 2 or len(shape) != 1:
        return None
    return Seen("PRelu", [Operand("self"), Operand("weight", shape=(int(shape[0]), *(1 for _ in range(rank - 2))))])


def _dropout(call: Call) -> Seen | None:
    return None if call["train"] and call["p"] else Seen("Identity", [Operand("input")])


def _copies(name: str = "self") -> Callable[[Call], Seen | None]:
    """Operators that give the same values, perhaps elsewhere or in another type."""

    def seen(call: Call) -> Seen | None:
        before, after = call[name], call.node.meta.get("val")
        held = before.meta.get("val") if isinstance(before, fx.Node) else None
        if not isinstance(held, Tensor) or not isinstance(after, Tensor):
            return None
        if held.dtype == after.dtype:
            return Seen("Identity", [Operand(name)])
        return Seen("Cast", [Operand(name)], {"to": _ONNX_TYPES.get(after.dtype, 0)})

    return seen


_ONNX_TYPES = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}


# --- pools and borders


def _max_pool(call: Call) -> Seen | None:
    return Seen("MaxPool", [Operand("self")]) if _batched(call) else None


def _average_pool(call: Call) -> Seen | None:
    """Zeros beyond the border count unless told otherwise."""
    axes = _axes(call)
    pads = call.integers("padding", axes)
    if pads is None or not _batched(call):
        return None
    attrs = {"pads": pads * 2, "count_include_pad": int(call["count_include_pad"]), "ceil_mode": int(call["ceil_mode"])}
    divisor = call["divisor_override"]
    return Seen("AveragePool", [Operand("self")], attrs) if divisor is None else None


def _adaptive(op: str) -> Callable[[Call], Seen | None]:
    """Means and maxima over parts of each channel, whatever their sizes."""
    return lambda call: Seen(op, [Operand("self")]) if _batched(call) else None


def _axes(call: Call) -> int:
    """The number of positional axes, which the operator's name tells."""
    found = re.search(r"(\d)d", str(call.node.target))
    assert found is not None
    return int(found[1])


def _batched(call: Call) -> bool:
    return call.rank("self") == _axes(call) + 2


def _pad(call: Call) -> Seen | None:
    """Torch lists pairs of begin and end, last axis first."""
    rank, pairs = call.rank("self"), call["pad"] if "pad" in call.arguments else call["padding"]
    if rank is None or not pairs or len(pairs) % 2 or not all(type(n) is int for n in pairs):
        return None
    begins, ends = [0] * rank, [0] * rank
    for place in range(len(pairs) // 2):
        begins[rank - 1 - place], ends[rank - 1 - place] = pairs[2 * place], pairs[2 * place + 1]
    kind = str(call.node.target)
    mode = call["mode"] or ("reflect" if "reflection" in kind else "edge" if "replication" in kind else "constant")
    mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    attrs = {"pads": begins + ends, "mode": mode}
    if mode != "constant":
        return Seen("Pad", [Operand("self")], attrs)
    return Seen("Pad", [Operand("self"), None, Operand("value", default=lambda: np.zeros((), np.float32))], attrs)


def _resize(call: Call) -> Seen | None:
    """Interpolation over positions alone: batch and channels keep their sizes."""
    rank = call.rank("self") or call.rank("input")
    name = "self" if "self" in call.arguments else "input"
    if rank is None or rank < 3:
        return None
    return Seen("Upsample", [Operand(name)], {"scales": [1.0, 1.0, *[2.0] * (rank - 2)]})


# --- layout


def _view(op: str) -> Callable[[Call], Seen | None]:
    """Reshape and Expand take the new shape from the result; where it is known, as a constant, for constants' sake."""

    def seen(call: Call) -> Seen | None:
        after = call.node.meta.get("val")
        shape = list(after.shape) if isinstance(after, Tensor) else []
        known = isinstance(after, Tensor) and all(type(n) is int for n in shape)
        return Seen(op, [Operand("self"), np.asarray(shape, np.int64)] if known else [Operand("self")])

    return seen


def _permute(call: Call) -> Seen | None:
    rank, dims = call.rank("self"), call["dims"]
    return None if rank is None else Seen("Transpose", [Operand("self")], {"perm": [int(d) % rank for d in dims]})


def _swap(call: Call) -> Seen | None:
    rank = call.rank("self")
    if not rank:
        return None
    first, second = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, min(1, rank - 1))
    perm = list(range(rank))
    perm[first % rank], perm[second % rank] = perm[second % rank], perm[first % rank]
    return Seen("Transpose", [Operand("self")], {"perm": perm})


def _reduce(op: str) -> Callable[[Call], Seen | None]:
    def seen(call: Call) -> Seen | None:
        if call["dtype"] is not None:
            return None
        dims, rank = call["dim"], call.rank("self")
        if rank is None:
            return None
        dims = list(range(rank)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
        return Seen(op, [Operand("self")], {"axes": dims, "keepdims": int(bool(call["keepdim"]))})

    return seen


def _cat(call: Call) -> Seen | None:
    tensors = call["tensors"]
    if not isinstance(tensors, list | tuple) or type(call["dim"]) is not int:
        return None
    inputs = [Operand("tensors", index) for index in range(len(tensors))]
    return Seen("Concat", inputs, {"axis": call["dim"]})


def _split(call: Call) -> Seen | None:
    return Seen("Split", [Operand("self")], {"axis": call["dim"]})


def _slice(call: Call) -> Seen | None:
    start, end, step, dim = (call[name] for name in ("start", "end", "step", "dim"))
    start, end = 0 if start is None else start, 2**62 if end is None else end
    if not all(type(n) is int for n in (start, end, step, dim)):
        return None
    bounds = [np.asarray([n], np.int64) for n in (start, end, dim, step)]
    return Seen("Slice", [Operand("self"), *bounds])


def _select(call: Call) -> Seen | None:
    if type(call["index"]) is not int:
        return None
    return Seen("Gather", [Operand("self"), np.asarray(call["index"], np.int64)], {"axis": call["dim"]})


def _shuffle(op: str, name: str) -> Callable[[Call], Seen | None]:
    def seen(call: Call) -> Seen | None:
        return Seen(op, [Operand("self")], {"blocksize": call[name], "mode": "CRD"}) if call.rank("self") == 4 else None

    return seen


_MAX, _MEAN = "MaxPool", "GlobalAveragePool"
_POOLS: dict[str, Callable[[Call], Seen | None]] = {
    f"max_pool{n}d{kind}": _max_pool for n in (1, 2, 3) for kind in ("", "_with_indices")
}
_POOLS |= {f"avg_pool{n}d": _average_pool for n in (1, 2, 3)}
_POOLS |= {f"adaptive_avg_pool{n}d": _adaptive(_MEAN) for n in (1, 2, 3)}
_POOLS |= {f"_adaptive_avg_pool{n}d": _adaptive(_MEAN) for n in (2, 3)}
_POOLS |= {f"adaptive_max_pool{n}d": _adaptive(_MAX) for n in (1, 2, 3)}

TABLE: dict[str, Callable[[Call], Seen | None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv1d.padding", "conv2d.padding"), _conv),
    **dict.fromkeys(("conv3d.padding", "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"), _conv),
    "_convolution": _conv,
    "linear": _linear,
    "addmm": _addmm,
    "mm": _product("self", "mat2"),
    "matmul": _product("self", "other"),
    **dict.fromkeys(
        (
            "batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
            "_native_batch_norm_legit.no_stats", "_native_batch_norm_legit_functional", "native_batch_norm",
            "cudnn_batch_norm", "_batch_norm_with_update", "_batch_norm_with_update_functional",
        ),
        _batch_norm,
    ),
    "instance_norm": _instance_norm,
    **{f"{name}.{kind}": _binary(op) for name, op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"))
       for kind in ("Tensor", "Scalar")},
    **{f"rsub.{kind}": _binary("Sub", swapped=True) for kind in ("Tensor", "Scalar")},
    "neg": _plain("Neg"),
    "relu": _plain("Relu"),
    "relu6": _relu6,
    "hardtanh": _clip("min_val", "max_val"),
    "clamp": _clip("min", "max"),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": lambda _: Seen("PRelu", [Operand("self"), Operand("weight")]),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "_to_copy", "to.dtype"), _copies()),
    **dict.fromkeys(("to.device", "to.dtype_layout", "type_as"), _copies()),
    **_POOLS,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"{kind}_pad{n}d": _pad for kind in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"upsample_{kind}{vec}": _resize for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d",
       "trilinear3d", "bicubic2d") for vec in ("", ".vec")},
    "permute": _permute,
    **dict.fromkeys(("transpose.int", "t", "numpy_T"), _swap),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int"), _view("Reshape")),
    **dict.fromkeys(("squeeze", "squeeze.dim", "squeeze.dims", "unsqueeze"), _view("Reshape")),
    "expand": _view("Expand"),
    "mean.dim": _reduce("ReduceMean"),
    "mean": _reduce("ReduceMean"),
    "sum.dim_IntList": _reduce("ReduceSum"),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "cat": _cat,
    **dict.fromkeys(("split.Tensor", "split_with_sizes", "chunk"), _split),
    "slice.Tensor": _slice,
    "select.int": _select,
    "pixel_shuffle": _shuffle("DepthToSpace", "upscale_factor"),
    "pixel_unshuffle": _shuffle("SpaceToDepth", "downscale_factor"),
    **dict.fromkeys(("sym_size.int", "sym_numel", "sym_stride.int"), _plain("Shape")),
}  # fmt: skip
"""How each operator is seen, by its name without the namespace and without ``.default``."""
