"""Who folded is known by the bytes; what has been changed since, in whatever place, is judged like anybody's."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.errors import UsageError
from bnfold.io.load import load
from bnfold.options import PlanOptions, VerifyOptions
from bnfold.verification.onnx.refold import is_refolded
from sample_models.build import SAMPLES, batch_norm, bn_node, make, node, tensor, weights

PROOFS = VerifyOptions(("structure", "weights"))
X, Y = tensor("x", [2, 3, 4, 4]), tensor("y", None)
HELD = {"w": weights(1, 3, 3, 1, 1), **batch_norm("bn", 3, 2)}
HEAD = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "b", "bn")]


def folded(model, folder, options=None):
    """The paths of a model and of its fold."""
    paths = folder / "original.onnx", folder / "folded.onnx"
    paths[0].write_bytes(model.SerializeToString())
    fold(*paths, options or FoldOptions(verify=None))
    return paths


def change(path, edit):
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())


def judged(paths, options=None):
    return verify(*paths, options or VerifyOptions()).verification


def clipping(low, high):
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Relu", ["b"], ["y"])]
    model = make(nodes, [X], [Y], HELD)
    bounds = [helper.make_node("Constant", [], [n], value_float=float(v)) for n, v in (("lo", low), ("hi", high))]
    body = [*bounds, node("Clip", ["a", "lo", "hi"], ["z"])]
    opsets = [helper.make_opsetid("", 17)]
    for overload in ("", "wide"):
        wide = body if not overload else [node("Clip", ["a"], ["z"])]
        model.functions.append(helper.make_function("f", "F", ["a"], ["z"], wide, opsets, overload=overload))
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.graph.node[-1].CopyFrom(node("F", ["b"], ["y"], domain="f"))
    model.ir_version = 10
    return model


def widen_the_functions_clip(model):
    for entry in model.functions[0].node:
        if entry.output[0] == "hi":
            entry.attribute[0].f = 1e6


def call_the_other_overload(model):
    model.graph.node[-1].overload = "wide"


@pytest.mark.parametrize("edit", [widen_the_functions_clip, call_the_other_overload])
def test_a_function_that_was_changed_since(edit, tmp_path):
    paths = folded(clipping(-1000, 1000), tmp_path)
    assert judged(paths).origin == "bnfold"
    change(paths[1], edit)
    found = judged(paths)
    assert (found.origin, found.verdict) == ("changed", "different")


def test_the_indices_of_a_sparse_initializer(tmp_path):
    model = make([*HEAD, node("Add", ["b", "s"], ["y"])], [X], [Y], HELD)
    values, places = numpy_helper.from_array(np.float32([5]), "s"), numpy_helper.from_array(np.int64([7]), "s_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 4, 4]))
    paths = folded(model, tmp_path)
    assert judged(paths, PROOFS).verdict == "equivalent"
    moved = numpy_helper.from_array(np.int64([8]))
    change(
        paths[1], lambda m: m.graph.sparse_initializer[0].indices.MergeFrom(onnx.TensorProto(raw_data=moved.raw_data))
    )
    assert judged(paths, PROOFS).verdict == "different"


def branching(names=("if", "other")):
    """Two If nodes, each with a weight of its own under one name."""
    nodes, held = list(HEAD), dict(HELD)
    for index, name in enumerate(names):
        bodies = {}
        for label in ("then", "else"):
            data = numpy_helper.from_array(weights(index + 5, 3, 3, 1, 1), "v")
            inner = [node("Conv", ["b", "v"], [f"{name}{index}{label}"])] if label == "then" else []
            inner = inner or [node("Identity", ["b"], [f"{name}{index}{label}"])]
            kept = [data] if label == "then" else []
            out = [tensor(f"{name}{index}{label}", [2, 3, 4, 4])]
            bodies[f"{label}_branch"] = helper.make_graph(inner, label, [], out, kept)
        nodes.append(node("If", ["t"], [f"y{index}"], name=name, **bodies))
    inputs = [X, tensor("t", [], onnx.TensorProto.BOOL)]
    return make(nodes, inputs, [tensor("y0", None), tensor("y1", None)], held)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("names", [("if", "other"), ("same", "same")])
def test_a_weight_of_a_subgraph(which, names, tmp_path):
    paths = folded(branching(names), tmp_path)
    assert judged(paths, PROOFS).verdict == "equivalent"

    def swap(model):
        holder = [entry for entry in model.graph.node if entry.op_type == "If"][which]
        branch = next(entry.g for entry in holder.attribute if entry.name == "then_branch")
        branch.initializer[0].CopyFrom(numpy_helper.from_array(weights(50, 3, 3, 1, 1), "v"))

    change(paths[1], swap)
    assert judged(paths, PROOFS).verdict == "different"


@pytest.mark.parametrize(
    "options",
    [
        FoldOptions(),
        FoldOptions(only=["bn_bn"]),
        FoldOptions(skip=["bn_bn"]),
        FoldOptions(scales=False),
        FoldOptions(threshold=True),
        FoldOptions(merge=True),
        FoldOptions(freeze=True, external="always"),
    ],
    ids=lambda options: options.record(),
)
def test_options_are_recorded_and_used_again(options, tmp_path):
    nodes = [*HEAD, node("Relu", ["b"], ["r"]), node("Conv", ["r", "v"], ["d"]), node("Mul", ["d", "k"], ["e"])]
    nodes += [bn_node("e", "z", "second"), node("Conv", ["x", "u"], ["p"]), node("Add", ["z", "p"], ["y"])]
    held = {**HELD, "v": weights(3, 3, 3, 1, 1), "u": weights(4, 3, 3, 1, 1), "k": np.float32(2)}
    model = make(nodes, [X], [Y], {**held, **batch_norm("second", 3, 9)})
    paths = folded(
        model, tmp_path, FoldOptions(verify=None, **{k: v for k, v in vars(options).items() if k != "verify"})
    )
    renamed = tmp_path / "renamed.onnx"
    shutil.copy(paths[0], renamed)
    found = judged((renamed, paths[1]), PROOFS)
    assert (found.origin, found.verdict) == ("bnfold", "equivalent")
    provenance_of = {entry.key: entry.value for entry in load(paths[1]).proto.metadata_props}
    assert PlanOptions.from_record(provenance_of["bnfold.options"]).record() == options.record()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '{"merge": 1}', '{"only": "bn"}', '{"only": [1]}', '{"external": "always"}', "[" * 10**5],
)
def test_a_record_that_is_none(text):
    assert PlanOptions.from_record(text) is None


def test_a_record_of_other_options_is_not_believed(pair):
    def lie(model):
        entry = next(entry for entry in model.metadata_props if entry.key == "bnfold.options")
        entry.value = json.dumps({"skip": ["/1/BatchNormalization"]})

    change(pair[1], lie)
    assert not is_refolded(load(pair[0]), load(pair[1]))


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"external_data", "training_mode", "two_consumers"}))
def test_every_sample_is_known_again(name, samples, tmp_path):
    if not (samples / f"{name}.onnx").exists():
        pytest.skip("not among the samples")
    target = tmp_path / "folded.onnx"
    fold(samples / f"{name}.onnx", target, FoldOptions(verify=None, freeze=True, threshold=True))
    first, second = load(samples / f"{name}.onnx"), load(target)
    changed = second.proto.SerializeToString() != first.proto.SerializeToString()
    assert is_refolded(first, second) is changed


def test_one_bit_of_a_weight_is_somebody_elses_fold(pair):
    """It is within what a fold in float32 costs, and so it is equivalent; but it is not what bnfold wrote."""

    def nudge(model):
        held = next(t for t in model.graph.initializer if t.name.endswith("_bnfold") and len(t.dims) > 1)
        data = numpy_helper.to_array(held).copy()
        data.reshape(-1)[0] = np.nextafter(data.reshape(-1)[0], np.float32(9))
        held.CopyFrom(numpy_helper.from_array(data, held.name))

    change(pair[1], nudge)
    found = judged(pair, PROOFS)
    assert (found.origin, found.verdict) == ("changed", "equivalent")


def test_mismatches_of_the_proof_count_whoever_folded(pair, monkeypatch):
    """Even if folding again were to give the same wrong model: a fault of the rules is in both."""
    from bnfold.verification.onnx import verify as judge

    def double(model):
        held = next(t for t in model.graph.initializer if t.name.endswith("_bnfold") and len(t.dims) > 1)
        held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * 2, held.name))

    change(pair[1], double)
    monkeypatch.setattr(judge, "is_refolded", lambda *_: True)
    assert judged(pair, PROOFS).verdict == "different"


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_models_in_the_wrong_order(suffix, samples, tmp_path):
    if suffix == "pt2":
        pytest.importorskip("torch")
    original, target = samples / f"digits.{suffix}", tmp_path / f"folded.{suffix}"
    fold(original, target, FoldOptions(verify=None))
    with pytest.raises(UsageError, match="was folded from") as caught:
        verify(target, original)
    assert caught.value.hint == f"bnfold verify {original} {target}"


def test_a_program_records_its_options(samples, tmp_path):
    pytest.importorskip("torch")
    target = tmp_path / "folded.pt2"
    fold(samples / "digits.pt2", target, FoldOptions(verify=None, threshold=True))
    found = verify(samples / "digits.pt2", target, PROOFS).verification
    assert (found.origin, found.verdict) == ("bnfold", "equivalent")


def test_what_was_not_checked_is_not_claimed(samples, tmp_path):
    target = tmp_path / "folded.onnx"
    fold(samples / "digits.onnx", target, FoldOptions(verify=None))
    found = verify(samples / "digits_corrupted.onnx", target, VerifyOptions(("structure",))).verification
    assert found.verdict == "inconclusive"
    assert found.left_open == "structure passes; weights, layers, outputs not run"
