"""What of a folded ONNX model's interface, or of the meaning of its operators, differs from the original's."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from bnfold.frontends.onnx.nested import bodies
from bnfold.wording import names_change


def interface_change(before: ModelProto, after: ModelProto) -> Iterator[str]:
    """Yield what callers would notice, one sentence each."""
    held, held_after = ({tensor.name for tensor in model.graph.initializer} for model in (before, after))
    inputs = [info for info in before.graph.input if info.name not in held]
    now = [info for info in after.graph.input if info.name not in held_after]
    for what, old, new in (("inputs", inputs, now), ("outputs", list(before.graph.output), list(after.graph.output))):
        if changed := names_change(what[:-1], [info.name for info in old], [info.name for info in new]):
            yield changed
            return
        for one, other in zip(old, new, strict=True):
            if cause := _type_change(one, other, strict=what == "inputs"):
                yield f"{what[:-1]} {one.name!r} {cause}"
    overridable = held_after & {info.name for info in after.graph.input}
    overridable -= held & {info.name for info in before.graph.input}
    if overridable and after.ir_version >= 4:
        yield f"the initializer {sorted(overridable)[0]!r} can be overridden by callers, which the original has not"


def _type_change(before: ValueInfoProto, after: ValueInfoProto, *, strict: bool) -> str | None:
    """A declared type or shape that promises something else; what only one side declares is no change."""
    old, new = before.type.tensor_type, after.type.tensor_type
    if old.elem_type and new.elem_type and old.elem_type != new.elem_type:
        kind = onnx.TensorProto.DataType.Name
        return f"has type {kind(new.elem_type)}, not {kind(old.elem_type)}"
    if not old.HasField("shape") or not new.HasField("shape"):
        return None
    if len(old.shape.dim) != len(new.shape.dim):
        return f"has {len(new.shape.dim)} axes, not {len(old.shape.dim)}"
    for axis, (a, b) in enumerate(zip(old.shape.dim, new.shape.dim, strict=True)):
        fixed = a.HasField("dim_value"), b.HasField("dim_value")
        if all(fixed) and a.dim_value != b.dim_value:
            return f"has size {b.dim_value} on axis {axis}, not {a.dim_value}"
        if strict and fixed == (False, True):
            return f"is fixed to size {b.dim_value} on axis {axis}, which was free"
    return None


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    pending = [model.graph]
    while pending:
        for node in pending.pop().node:
            yield node
            pending.extend(body for _, body in bodies(node))


def operator_set_change(before: ModelProto, after: ModelProto) -> str | None:
    """Return why the two models' operators may mean different things: other versions, in which they have changed."""
    versions = [
        {"" if e.domain == "ai.onnx" else e.domain: e.version for e in model.opset_import} for model in (before, after)
    ]
    used = {node.domain for node in _nodes(after)} - {"", "ai.onnx"}
    for domain in sorted(used & versions[0].keys() & versions[1].keys()):
        if versions[0][domain] != versions[1][domain]:
            return f"the operators of {domain!r} are of version {versions[1][domain]}, not {versions[0][domain]}"
    old, new = (version.get("", 0) for version in versions)
    if old == new:
        return None
    for op in sorted({node.op_type for node in _nodes(after) if node.domain in ("", "ai.onnx")}):
        try:
            since = [onnx.defs.get_schema(op, version, "").since_version for version in (old, new)]
        except onnx.defs.SchemaError:
            return f"{op} is not known in opset {new}"
        if since[0] != since[1] or new > onnx.defs.onnx_opset_version():
            return f"{op} of opset {new} may mean something else than that of opset {old}"
    return None
