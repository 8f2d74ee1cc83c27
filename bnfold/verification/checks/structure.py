"""The structure check: the interface is the same, and every value that is not a fold is the original's.

The proof rests on the alignment (:mod:`bnfold.verification.equivalence.alignment`), which reads both models as
mathematics and asks neither the planner nor the names inside the graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from bnfold.frontends.onnx.type_inference import bodies
from bnfold.io.load import LoadedModel
from bnfold.results.verification import CheckResult
from bnfold.verification.equivalence.alignment import Alignment


def check_structure(original: LoadedModel, folded: LoadedModel, found: Alignment | str) -> CheckResult:
    """Judge interface and graph; ``found`` is a sentence where the models could not be aligned."""
    if changed := next(_interface(original.proto, folded.proto), None):
        return CheckResult("structure", "fail", changed)
    if odd := _operator_sets(original.proto, folded.proto):
        return CheckResult("structure", "inconclusive", odd)
    return judge_graph(found)


def judge_graph(found: Alignment | str) -> CheckResult:
    """Judge the graphs of two models of one interface by where they part."""
    if isinstance(found, str):
        return CheckResult("structure", "inconclusive", found)
    kinds = [mismatch.kind for mismatch in found.mismatches]
    figures = {
        "nodes": len(found.folded.graphs.scopes[0].nodes),
        "unchanged": sum(node in found.folded.untouched for node in found.folded.graphs.scopes[0].nodes),
        "parted": len(kinds) - kinds.count("numbers"),
    }
    for mismatch in found.mismatches:
        if mismatch.kind == "attributes":
            counterpart = (
                ""
                if mismatch.counterpart is None
                else f" as {mismatch.counterpart.op} {mismatch.counterpart.name!r} of the original"
            )
            detail = f"{mismatch.name} reads the same{counterpart} and is set otherwise"
            return CheckResult("structure", "fail", detail, figures)
    for mismatch in found.mismatches:
        if mismatch.kind == "unknown":
            detail = f"{mismatch.name} computes something that the original does not, as far as can be told"
            return CheckResult("structure", "inconclusive", detail, figures)
    wrong = [name for name, channels in found.wrong_outputs.items() if channels is None and not kinds]
    if wrong:
        return CheckResult("structure", "fail", f"output {wrong[0]!r} is another function of the inputs", figures)
    unchanged, nodes = figures["unchanged"], figures["nodes"]
    others = f"{len(kinds)} with other numbers" if kinds else "the others follow from folds"
    some = f"{unchanged} of {nodes} nodes as they were, {others}"
    detail = f"the same interface, {some if unchanged < nodes else 'all nodes as they were'}"
    return CheckResult("structure", "pass", detail, figures)


def _interface(before: ModelProto, after: ModelProto) -> Iterator[str]:
    """What callers would notice, one sentence each."""
    held, held_after = ({tensor.name for tensor in model.graph.initializer} for model in (before, after))
    inputs = [info for info in before.graph.input if info.name not in held]
    now = [info for info in after.graph.input if info.name not in held_after]
    for what, old, new in (("inputs", inputs, now), ("outputs", list(before.graph.output), list(after.graph.output))):
        if [info.name for info in old] != [info.name for info in new]:
            yield f"the {what} are {[info.name for info in new]}, not {[info.name for info in old]}"
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


def _operator_sets(before: ModelProto, after: ModelProto) -> str | None:
    """Why the two models' operators may mean different things: other versions, in which they have changed."""
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
