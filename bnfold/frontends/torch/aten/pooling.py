"""Pools, padding, interpolation: what combines positions."""

from __future__ import annotations

import re

import numpy as np

from bnfold.frontends.torch.aten.call import Call, OnnxView, Operand, Translation


def _max_pool(call: Call) -> OnnxView | None:
    return OnnxView("MaxPool", [Operand("self")]) if _batched(call) else None


def _average_pool(call: Call) -> OnnxView | None:
    """Padding zeros count unless the call says otherwise."""
    axes = _axes(call)
    pads = call.integers("padding", axes)
    if pads is None or not _batched(call):
        return None
    attrs = {"pads": pads * 2, "count_include_pad": int(call["count_include_pad"]), "ceil_mode": int(call["ceil_mode"])}
    divisor = call["divisor_override"]
    return OnnxView("AveragePool", [Operand("self")], attrs) if divisor is None else None


def _adaptive(op: str) -> Translation:
    """Means and maxima over parts of each channel, whatever their sizes."""
    return lambda call: OnnxView(op, [Operand("self")]) if _batched(call) else None


def _axes(call: Call) -> int:
    """The number of positional axes, which the operator's name tells."""
    found = re.search(r"(\d)d", str(call.node.target))
    assert found is not None
    return int(found[1])


def _batched(call: Call) -> bool:
    return call.rank("self") == _axes(call) + 2


def _pad(call: Call) -> OnnxView | None:
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
        return OnnxView("Pad", [Operand("self")], attrs)
    return OnnxView("Pad", [Operand("self"), None, Operand("value", default=lambda: np.zeros((), np.float32))], attrs)


def _resize(call: Call) -> OnnxView | None:
    """Interpolation over positions alone: batch and channels keep their sizes."""
    rank = call.rank("self") or call.rank("input")
    name = "self" if "self" in call.arguments else "input"
    if rank is None or rank < 3:
        return None
    return OnnxView("Upsample", [Operand(name)], {"scales": [1.0, 1.0, *[2.0] * (rank - 2)]})


_MAX, _MEAN = "MaxPool", "GlobalAveragePool"
_POOLS: dict[str, Translation] = {f"max_pool{n}d{kind}": _max_pool for n in (1, 2, 3) for kind in ("", "_with_indices")}
_POOLS |= {f"avg_pool{n}d": _average_pool for n in (1, 2, 3)}
_POOLS |= {f"adaptive_avg_pool{n}d": _adaptive(_MEAN) for n in (1, 2, 3)}
_POOLS |= {f"_adaptive_avg_pool{n}d": _adaptive(_MEAN) for n in (2, 3)}
_POOLS |= {f"adaptive_max_pool{n}d": _adaptive(_MAX) for n in (1, 2, 3)}

TABLE: dict[str, Translation] = {
    **_POOLS,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"{kind}_pad{n}d": _pad for kind in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"upsample_{kind}{vec}": _resize for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d",
       "trilinear3d", "bicubic2d") for vec in ("", ".vec")},
    **{f"_upsample_{kind}{vec}": _resize for kind in ("bilinear2d_aa", "bicubic2d_aa", "nearest_exact1d",
       "nearest_exact2d", "nearest_exact3d") for vec in ("", ".vec")},
}  # fmt: skip
