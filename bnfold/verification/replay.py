"""Replay: fold the original again as bnfold does, and see whether the folded model is that, node by node.

The shortest proof for bnfold's own folds: what is the same graph has been folded by the same rules. Its tensors are
judged by the weights gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx import GraphProto, ModelProto, TensorProto

from bnfold.errors import BnfoldError
from bnfold.files.load import LoadedModel
from bnfold.graph.onnx_edit import SUFFIX
from bnfold.graph.onnx_types import bodies
from bnfold.options import PlanOptions
from bnfold.pipeline import prepare, rewrite


def is_replayed(original: LoadedModel, folded: LoadedModel) -> bool:
    """True if folding ``original`` with some of bnfold's options gives ``folded``, but for the data of new tensors."""
    wanted = _outline(folded.proto)
    freeze = len(folded.proto.graph.input) < len(original.proto.graph.input)
    for options in _options(original, folded, freeze):
        copy = ModelProto()
        copy.CopyFrom(original.proto)  # a rewrite works in place
        try:
            ready = prepare(replace(original, proto=copy), options)
            made = rewrite(ready)[0].proto if ready.changed else copy
        except BnfoldError:
            continue
        if _outline(made) == wanted:
            return True
    return False


def _options(original: LoadedModel, folded: LoadedModel, freeze: bool) -> Iterator[PlanOptions]:
    """The options that may have been used: the default first, then those that leave what was left."""
    yield PlanOptions(freeze=freeze)
    standing = {node.name for node in folded.proto.graph.node} - {""}
    left = [n.name for n in original.proto.graph.node if n.op_type == "BatchNormalization" and n.name in standing]
    for merge in (False, True):
        for threshold in (False, True):
            for scales in (True, False):
                yield PlanOptions(freeze=freeze, merge=merge, threshold=threshold, scales=scales)
                if left and not merge:
                    yield PlanOptions(skip=left, freeze=freeze, threshold=threshold, scales=scales)


def _outline(model: ModelProto) -> list[bytes]:
    """All of the graph but the data of new tensors, as bytes to compare."""
    found: list[bytes] = []
    pending: list[GraphProto] = [model.graph]
    while pending:
        graph = pending.pop()
        found += [info.SerializeToString() for info in (*graph.input, *graph.output)]
        found += sorted(_dims(tensor) for tensor in graph.initializer if SUFFIX in tensor.name)
        for node in graph.node:
            plain = [a.SerializeToString() for a in node.attribute if not a.HasField("g") and not a.graphs]
            heads = (node.op_type, node.domain, node.name, "|", *node.input, "|", *node.output)
            found.append("\0".join(heads).encode("utf-8", "surrogatepass") + b"\0".join(plain))
            pending.extend(body for _, body in bodies(node))
    return found


def _dims(tensor: TensorProto) -> bytes:
    return f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode("utf-8", "surrogatepass")
