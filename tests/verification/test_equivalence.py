"""The alignment: folds of any tool are recognised by what they compute, not by names; faults are pinned down."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.multiples import Numbers, match
from sample_models.build import ANY, IMAGE, SAMPLES, batch_norm, bn_node, make, node, tensor, weights
from tests.support import ROOT, fold_proto
from tests.verification.aligned import aligned


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with other names for everything inside."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    kept = {info.name for info in (*copy.graph.input, *copy.graph.output)}
    names: dict[str, str] = {}

    def fresh(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"v{len(names)}")

    for held in copy.graph.initializer:
        held.name = fresh(held.name)
    for index, item in enumerate(copy.graph.node):
        item.name = f"n{index}"
        item.input[:] = [fresh(name) for name in item.input]
        item.output[:] = [fresh(name) for name in item.output]
    del copy.graph.value_info[:]
    return copy


FLAT = [name for name in SAMPLES if name not in ("if_branches", "function", "external_data")]


@pytest.mark.parametrize("name", SAMPLES)
def test_our_folds_are_recognised(name):
    model = SAMPLES[name]()
    found = aligned(model, fold_proto(model)[0])
    assert (found.mismatches, found.wrong_outputs) == ([], {})


@pytest.mark.parametrize("name", FLAT)
def test_names_do_not_matter(name):
    model = SAMPLES[name]()
    found = aligned(model, renamed(fold_proto(model)[0]))
    assert (found.mismatches, found.wrong_outputs) == ([], {})
    assert all(tensor.ulps.max() <= 2 for tensor in found.tensors)


def conv_bn(**changes: object) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu; ``changes`` replace tensors."""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4), **changes}
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("Relu", ["b"], ["y"], name="act"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


def test_a_fault_is_reported_once_with_its_channels():
    folded = fold_proto(conv_bn())[0]
    tensor = next(t for t in folded.graph.initializer if t.name.startswith("w"))
    data = onnx.numpy_helper.to_array(tensor).copy()
    data[2, 1] *= 1.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(data, tensor.name))
    found = aligned(conv_bn(), folded)
    assert [(mismatch.kind, mismatch.channels) for mismatch in found.mismatches] == [("numbers", [2])]
    assert found.tensors[0].ulps.argmax() == 2


def test_other_settings_are_told_from_other_operators():
    folded = fold_proto(conv_bn())[0]
    other = onnx.ModelProto.FromString(folded.SerializeToString())
    other.graph.node[0].attribute.append(onnx.helper.make_attribute("dilations", [2, 2]))
    assert [mismatch.kind for mismatch in aligned(conv_bn(), other).mismatches] == ["attributes"]
    other = onnx.ModelProto.FromString(folded.SerializeToString())
    other.graph.node[-1].op_type = "Softplus"
    assert [mismatch.kind for mismatch in aligned(conv_bn(), other).mismatches] == ["unknown"]


@pytest.mark.parametrize("scale", [2.0, 0.25])
def test_a_free_gauge_between_two_layers_is_no_fault(scale):
    """A scale that one layer takes in and the next one undoes, through a Relu, is the same function."""
    held = {"w": weights(1, 4, 3, 3, 3), "v": weights(2, 5, 4, 1, 1)}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("Conv", ["r", "v"], ["y"])]
    other = {"w": held["w"] * np.float32(scale), "v": held["v"] / np.float32(scale)}
    found = aligned(make(nodes, [IMAGE], [ANY], held), make(nodes, [IMAGE], [ANY], other))
    assert (found.mismatches, found.wrong_outputs) == ([], {})
    wrong = {**other, "w": -other["w"], "v": -other["v"]}
    assert aligned(make(nodes, [IMAGE], [ANY], held), make(nodes, [IMAGE], [ANY], wrong)).mismatches


def test_spellings_of_one_network():
    """Zero padding by Pad or by Conv, Relu or Clip, Gemm or MatMul and Add, slices in one or in two."""
    held = {
        "w": weights(1, 4, 3, 3, 3),
        "v": weights(2, 4, 2),
        "b": weights(3, 2),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    held |= {
        name: np.array(v) for name, v in {"s": [0], "e": [2], "a": [2], "a3": [3], "ss": [0, 0], "ee": [2, 2]}.items()
    }
    held["aa"] = np.array([2, 3])
    held["zero"] = np.array(0, np.float32)
    tail = [node("GlobalAveragePool", ["q"], ["p"]), node("Flatten", ["p"], ["f"])]
    one = [
        node("Pad", ["x", "pads"], ["xp"]), node("Conv", ["xp", "w"], ["c"]), node("Relu", ["c"], ["r"]),
        node("Slice", ["r", "s", "e", "a"], ["s1"]), node("Slice", ["s1", "s", "e", "a3"], ["q"]), *tail,
        node("MatMul", ["f", "v"], ["m"]), node("Add", ["m", "b"], ["y"]),
    ]  # fmt: skip
    two = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Clip", ["c", "zero"], ["r"]),
        node("Slice", ["r", "ss", "ee", "aa"], ["q"]), *tail, node("Gemm", ["f", "v", "b"], ["y"]),
    ]  # fmt: skip
    found = aligned(make(one, [IMAGE], [ANY], held), make(two, [IMAGE], [ANY], held))
    assert (found.mismatches, found.wrong_outputs) == ([], {})


@pytest.mark.parametrize("lost", ["gain", "shift"])
def test_a_lost_batch_norm_is_seen_at_the_output(lost):
    """Nothing but the output's own map is wrong."""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "y", "bn")]
    model = make(nodes, [IMAGE], [ANY], held)
    held["bn_scale" if lost == "gain" else "bn_bias"] = np.zeros(4, np.float32)
    found = aligned(model, fold_proto(make(nodes, [IMAGE], [ANY], held))[0])
    assert found.wrong_outputs["y"] == [0, 1, 2, 3]


class TestMatch:
    """Numbers as multiples of others, channel by channel."""

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
    def test_factors_are_found_within_their_bounds(self, channels, entries, seed):
        rng = np.random.default_rng(seed)
        old = rng.standard_normal((channels, entries))
        factor = rng.uniform(0.1, 10, channels) * rng.choice([-1, 1], channels)
        exact = factor[:, None] * old
        stored = exact.astype(np.float32)
        errors = np.spacing(np.abs(stored)).astype(np.float64)
        found = match(Numbers(stored.astype(np.float64), errors), Numbers(old, np.zeros_like(old)), "any")
        assert found is not None
        assert found.same.all()
        assert (np.abs(found.factor - factor) <= found.error + 1e-12 * np.abs(factor)).all()

    @settings(max_examples=100, deadline=None)
    @given(st.integers(2, 9), st.integers(0, 2**32 - 1), st.floats(1e-3, 1.0))
    def test_what_is_no_multiple_is_not_matched(self, entries, seed, off):
        old = np.random.default_rng(seed).uniform(0.5, 1.5, (1, entries))
        new = old.copy()
        new[0, 0] *= 1 + off
        errors = np.full_like(new, 1e-6)
        found = match(Numbers(new, errors), Numbers(old, np.zeros_like(old)), "any")
        assert found is not None
        assert not found.same.any()

    @pytest.mark.parametrize(("scale", "same"), [("any", True), ("positive", False), ("none", False)])
    def test_signs_count_where_they_must(self, scale, same):
        old = np.array([[1.0, 2.0]])
        found = match(Numbers(-old, np.zeros((1, 2))), Numbers(old, np.zeros((1, 2))), scale)
        assert found is not None
        assert bool(found.same.all()) is same

    def test_infinity_and_nan_match_only_themselves(self):
        old = Numbers(np.array([[1.0, np.inf], [1.0, np.nan], [1.0, np.inf]]), np.zeros((3, 2)))
        new = Numbers(np.array([[2.0, np.inf], [2.0, np.nan], [2.0, 5.0]]), np.ones((3, 2)))
        found = match(new, old, "positive")
        assert found is not None
        assert found.same.tolist() == [True, True, False]


def test_infinite_bars_excuse_nothing():
    """An infinite bias has an infinite rounding error, and is wrong all the same."""
    good = AbstractValue(1, Affine.along(1, [1.0, 1.0], [0.5, 0.5]))
    bad = AbstractValue(1, Affine(good.affine.gain, np.array([[0.5, np.inf]])), shift_error=np.array([[0.0, np.inf]]))
    assert good.agrees(bad, 1e-7).tolist() == [[True, False]]
    assert bad.agrees(good, 1e-7).tolist() == [[True, False]]


def test_the_alignment_asks_no_planner():
    """It must not share the planner's mistakes: neither plan nor flood nor rewrite is imported."""
    folder = ROOT / "bnfold" / "verification" / "equivalence"
    text = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert "class Matcher" in text
    assert "bnfold.planner.planner" not in text
    assert "bnfold.planner.apply" not in text
    assert "bnfold.planner.propagation" not in text
    assert ".rewrite(" not in text


def test_a_constant_too_large_to_be_computed_is_known_by_what_makes_it():
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "y", "bn"),
        node("ConstantOfShape", ["dims"], ["big"], name="big"),
        node("ReduceSum", ["big"], ["z"], keepdims=0),
    ]
    held = {"w": weights(1, 4, 3, 1, 1), "dims": np.asarray([2**20, 2**20]), **batch_norm("bn", 4)}
    model = make(nodes, [IMAGE], [tensor("y", [None] * 4), tensor("z", [])], held)
    right = aligned(model, fold_proto(model)[0])
    assert not right.mismatches and not right.wrong_outputs
    other = fold_proto(model)[0]
    next(t for t in other.graph.initializer if t.name == "dims").CopyFrom(
        onnx.numpy_helper.from_array(np.asarray([2**20, 2**19]), "dims")
    )
    found = aligned(model, other)
    assert found.mismatches or found.wrong_outputs
