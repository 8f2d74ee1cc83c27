"""What many tests need: the folders, a fold in memory, random inputs, and a run on onnxruntime."""

from __future__ import annotations

import json
import signal
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
from click.testing import CliRunner, Result

from bnfold.cli.main import main
from bnfold.frontends.onnx.editor import OnnxEditor
from bnfold.frontends.onnx.functions import batch_norms_inlined
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load_bytes
from bnfold.planner.apply import compute_weights, write
from bnfold.planner.planner import Plan

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_models"
GOLDEN = ROOT / "tests" / "golden"


def closed(schema: Any) -> Any:
    """Return a schema in which an object has no fields but those that the schema describes."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: closed(value) for key, value in schema.items()}
    return {**kept, "additionalProperties": False} if isinstance(schema.get("required"), list) else kept


SCHEMA = closed(json.loads((ROOT / "bnfold/report/schema.json").read_text()))
"""The schema of every JSON document that bnfold writes, and of nothing else: ``docs/json.md`` is made from it."""


def assert_described(text: str) -> None:
    """JSON that a command wrote (of several models: a document per line) has only fields that the schema describes."""
    for document in [text] if text.startswith("{\n") else text.splitlines():
        found = json.loads(document)
        kind = "failed" if "error" in found else found["command"]
        jsonschema.validate(found, {**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{kind}"}]})


def call(*words: object, **options: Any) -> Result:
    """Run ``bnfold`` with these words, in this process; what it writes as JSON follows the schema."""
    result = CliRunner().invoke(main, [str(word) for word in words], **options)
    if ("--json", "-") in pairwise(words) and result.stdout.startswith("{"):
        assert_described(result.stdout)
    return result


def interruptible() -> None:
    """Let a process be ended by Ctrl-C even if this one was started in the background: its ``preexec_fn``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def fold_proto(model: onnx.ModelProto, freeze: bool = False, **names: Any) -> tuple[onnx.ModelProto, list[Plan]]:
    """A folded copy and its plans."""
    copy = batch_norms_inlined(model) or onnx.ModelProto.FromString(model.SerializeToString())
    loaded = load_bytes(copy.SerializeToString())
    graphs = OnnxGraphs(loaded.proto, freeze=freeze)
    settled = [compute_weights(scope, **names) for scope in graphs.scopes]
    editor = OnnxEditor(graphs)
    for one in settled:
        write(one, editor)
    editor.finish()
    assert_nothing_written_again(model, graphs.model)
    return graphs.model, [one.plan for one in settled]


def assert_nothing_written_again(model: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    """What does not change keeps its name: a fold adds no constant that a node read already in the same place."""
    before = {node.output[0]: node for node in model.graph.node if node.output}
    old, new = ({tensor.name: tensor for tensor in each.graph.initializer} for each in (model, folded))
    for node in folded.graph.node:
        was = before.get(node.output[0]) if node.output else None
        if was is None or was.op_type != node.op_type:
            continue
        for name, other in zip(node.input, was.input, strict=False):
            if name != other and name in new and name not in old and other in old:
                data = onnx.numpy_helper.to_array(new[name])
                assert not np.array_equal(data, onnx.numpy_helper.to_array(old[other])), (node.op_type, name)


def feeds_for(model: onnx.ModelProto, seed: int = 0, free: int = 2) -> dict[str, np.ndarray]:
    """Random inputs for everything that a caller has to feed."""
    rng = np.random.default_rng(seed)
    held = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name in held:
            continue
        shape = [dim.dim_value or free for dim in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        values = rng.standard_normal(shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 2, shape)
        feeds[info.name] = np.asarray(values).astype(dtype)
    return feeds


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs on onnxruntime, which must not fold anything itself."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # small models: threads that wait for work would only be in the way
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def assert_same(expected: list[np.ndarray], actual: list[np.ndarray], ulps: float = 64.0) -> None:
    """Equal within some ulps of the largest entry: what the order of a few sums may cost."""
    pairs = [
        zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]  # a sequence of tensors
        for a, b in zip(expected, actual, strict=True)
    ]
    for a, b in chain.from_iterable(pairs):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
            continue
        limit = ulps * np.finfo(a.dtype).eps * max(float(np.abs(a).max(initial=0)), 1e-30)
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=0, atol=limit)
