"""The attributes of a node that matter, normalized: defaults are left out."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from bnfold.ir.graph import Node

TRIVIAL = {"pads": 0, "strides": 1, "dilations": 1, "output_padding": 0}
"""Attributes that say nothing where they hold nothing but this."""

COUNTED_IN_OUTPUT = frozenset({"OneHot", "ConcatFromSequence", "Unsqueeze"})
"""Operators whose axes are those of their output."""

SETS_OF_AXES = frozenset({"Squeeze", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"})
"""Operators whose ``axes`` are a set, counted in their input."""

MANY_SPELLINGS = frozenset(
    """
    LSTM GRU RNN MaxPool AveragePool LpPool Reshape Transpose Slice Pad Resize Upsample Expand Squeeze Unsqueeze Tile
    Gather Split ReduceMean ReduceSum ReduceMax ReduceMin Cast ConstantOfShape Range Shape Size Where Dropout If Loop
    Scan
    """.split()  # noqa: SIM905
)
"""Operators whose attributes and constants can be written in several ways of one meaning."""


def essential(node: Node, rank: int | None) -> tuple[tuple[str, Any], ...]:
    """Return names and values, with axes counted from the first of the ``rank`` of what the node reads."""
    defaults = {name: _counted(node.op, name, value, rank) for name, value in _defaults(node.op, node.opset).items()}
    found: dict[str, Any] = {}
    for name, value in node.attrs.items():
        plain = _counted(node.op, name, _plain(value), rank)
        trivial = name in TRIVIAL and isinstance(plain, tuple) and set(plain) <= {TRIVIAL[name]}
        if name != "consumed_inputs" and not trivial and not (name in defaults and defaults[name] == plain):
            found[name] = plain
    if found.get("auto_pad") == "VALID":
        found.pop("pads", None)
        del found["auto_pad"]
    if node.op == "AveragePool" and not found.keys() & {"pads", "auto_pad", "ceil_mode"}:
        found.pop("count_include_pad", None)
    if node.op == "Transpose" and rank:
        found.setdefault("perm", tuple(reversed(range(rank))))
    for attribute in getattr(node.handle, "attribute", ()):
        if attribute.name not in node.attrs and not attribute.HasField("g") and not attribute.graphs:
            found[attribute.name] = attribute.SerializeToString()
    if node.settings:
        found["settings"] = node.settings
    return tuple(sorted(found.items()))


def _counted(op: str, name: str, value: Any, rank: int | None) -> Any:
    """An attribute that names axes, with the axes counted from the first of the input."""
    if op in COUNTED_IN_OUTPUT:
        return value
    if rank and name == "axis" and isinstance(value, int) and value < 0:
        return value + rank
    if rank and name == "axes" and op in SETS_OF_AXES and isinstance(value, tuple):
        return tuple(sorted(n % rank for n in value))
    return value


@cache
def _defaults(op: str, opset: int) -> dict[str, Hashable]:
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return {}
    given = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {name: _plain(helper.get_attribute_value(value)) for name, value in given.items() if value.name}


def _plain(value: Any) -> Any:
    """An attribute's value as something that can be compared and hashed."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and value != value:
        return "NaN"  # which equals nothing, itself included
    return tuple(value) if isinstance(value, list) else value
