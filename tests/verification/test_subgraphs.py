"""The subgraphs that the layers check runs: where they are cut, and what stands beside what."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.options import VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights
from tests.support import fold_proto

STEPS, BATCH, FEATURES, HIDDEN = 7, 2, 8, 5


def reshaped_behind(tail: list[onnx.NodeProto], **held: np.ndarray) -> onnx.ModelProto:
    """Linear and Relu over (T, N, C), a BatchNorm over (T N, C), a Reshape back to ``s``, and a ``tail`` that reads it.

    The tail asks for the shape of ``s``, which is known: that is how torch's TorchScript exporter writes an LSTM.
    """
    nodes = [
        node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["a"]), node("Relu", ["a"], ["r"]),
        node("Reshape", ["r", "flat"], ["f"]), bn_node("f", "n", "bn"), node("Reshape", ["n", "back"], ["s"]),
        node("Shape", ["s"], ["shape"]), node("Gather", ["shape", "one"], ["batch"]), *tail,
    ]  # fmt: skip
    held |= {
        "w": weights(1, FEATURES, FEATURES), "b": weights(2, FEATURES), **batch_norm("bn", FEATURES),
        "flat": np.array([STEPS * BATCH, FEATURES]), "back": np.array([STEPS, BATCH, FEATURES]), "one": np.array([1]),
    }  # fmt: skip
    return make(nodes, [tensor("x", [STEPS, BATCH, FEATURES])], [tensor("y", None)], held)


def recurrent(op: str) -> onnx.ModelProto:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    states = ["h", "h"] if op == "LSTM" else ["h"]
    tail = [
        node("Concat", ["direction", "batch", "hidden"], ["size"], axis=0), node("Expand", ["zero", "size"], ["h"]),
        node(op, ["s", "wx", "wh", "wb", "", *states], ["y"], hidden_size=HIDDEN, name="rnn"),
    ]  # fmt: skip
    held = {
        "wx": weights(3, 1, gates * HIDDEN, FEATURES), "wh": weights(4, 1, gates * HIDDEN, HIDDEN),
        "wb": weights(5, 1, 2 * gates * HIDDEN), "direction": np.array([1]), "hidden": np.array([HIDDEN]),
        "zero": np.zeros((1, 1, 1), "f4"),
    }  # fmt: skip
    return reshaped_behind(tail, **held)


def attention() -> onnx.ModelProto:
    """Queries, keys and values of one sequence, flattened to a shape that is computed."""
    tail = [
        *(node("MatMul", ["s", f"w{name}"], [f"{name}0"], name=name) for name in "qkv"),
        *(node("Add", [f"{name}0", f"b{name}"], [name]) for name in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), node("MatMul", ["q", "kt"], ["qk"]),
        node("Softmax", ["qk"], ["p"]), node("MatMul", ["p", "v"], ["z"]),
        node("Concat", ["batch", "rest"], ["size"], axis=0), node("Reshape", ["z", "size"], ["y"]),
    ]  # fmt: skip
    held = {f"w{name}": weights(seed, FEATURES, FEATURES) for seed, name in enumerate("qkv", 3)}
    held |= {f"b{name}": weights(seed, FEATURES) for seed, name in enumerate("qkv", 6)}
    return reshaped_behind(tail, rest=np.array([-1]), **held)


NETWORKS = {op: lambda op=op: recurrent(op) for op in ("LSTM", "GRU", "RNN")} | {"attention": attention}


def judged(original, folded, folder):
    paths = folder / "original.onnx", folder / "folded.onnx"
    for path, model in zip(paths, (original, folded), strict=True):
        path.write_bytes(model.SerializeToString())
    return verify_files(*paths, VerifyOptions(("layers", "outputs")))[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_value_that_only_its_shape_is_asked_of_is_compared_with_nothing(name, tmp_path):
    """It keeps its name and holds a transform of what it held: its name must not pair it with the original's."""
    original = NETWORKS[name]()
    folded, _ = fold_proto(original)
    found = judged(original, folded, tmp_path)
    assert [check.verdict for check in found.checks] == ["pass", "pass"], found.checks
    assert (found.verdict, bool(found.layers)) == ("equivalent", True)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_behind_it_is_still_judged(name, tmp_path):
    original = NETWORKS[name]()
    folded, _ = fold_proto(original)
    wrong = next(t for t in folded.graph.initializer if t.name.startswith(("wx", "wq")))
    data = numpy_helper.to_array(wrong).copy()
    data *= np.float32(1.001)
    wrong.CopyFrom(numpy_helper.from_array(data, wrong.name))
    found = judged(original, folded, tmp_path)
    assert [check.verdict for check in found.checks] == ["fail", "fail"], found.checks
