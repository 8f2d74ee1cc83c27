"""Integer weights (DequantizeLinear): zero points, types and signs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bnfold.api import FoldOptions, fold
from tests.builders import STATISTICS, chain, node, of_opset, parse
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, reasons
from tests.rules.cases.quantized import CASES
from tests.rules.operator_tests import CaseTests


class TestQuantized(CaseTests):
    cases = CASES


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-1.0, -2.0, -0.5, -3.0], [1.0, -1.0, 2.0, -2.0]])
def test_integer_weights_absorb_factors_of_either_sign(gains):
    rng = np.random.default_rng(0)
    held = {"q": rng.integers(-100, 100, (4, 4, 1, 1)).astype("i1"), "s": np.array([0.01, 0.02, 0.03, 0.04], "f4")}
    nodes = [node("DequantizeLinear", ["q", "s"], ["v"], axis=0), node("Conv", ["c", "v"], ["d"])]
    model = chain(*nodes, held=held, gains=gains)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("zero", [None, 0, 3, 120])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-2.0, -2.0, -2.0, -2.0], [1.0, -1.0, 2.0, -2.0]])
def test_integer_weights_are_negated_about_their_zero_point(dtype, zero, per_channel, gains):
    """A negative scale negates the integers; if one leaves the range of its type, the BatchNorm is kept."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(2)
    q = rng.integers(limits.min, limits.max, (4, 4, 1, 1), endpoint=True).astype(dtype)
    held = {"q": q, "s": (np.array([0.01, 0.02, 0.03, 0.04]) if per_channel else np.array(0.01)).astype("f4")}
    if zero is not None:
        held["z"] = np.full(4 if per_channel else (), zero, dtype)
    nodes = [
        node("DequantizeLinear", ["q", "s", *(["z"] if zero is not None else [])], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(node("Sigmoid", ["c"], ["t"]), *nodes, held=held, gains=gains)
    flipped = 2 * (zero or 0) - q.astype("i8")
    flips = np.array(gains) < 0
    fits = limits.min <= flipped[flips].min(initial=0) and flipped[flips].max(initial=0) <= limits.max
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is bool(fits)
    assert_equivalent(model, folded, 1024.0)


def test_integer_weights_with_two_consumers_are_kept():
    held = {"q": np.full((4, 4, 1, 1), 3, "i1"), "s": np.full(4, 0.5, "f4")}
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["v"], axis=0),
        node("Sigmoid", ["c"], ["t"]),
        node("Conv", ["t", "v"], ["other"]),
        node("Sigmoid", ["other"], ["u"]),
        node("Conv", ["u", "v"], ["d"]),
    ]
    _, (plan,) = fold_proto(chain(*nodes, held=held))
    assert reasons(plan) == ["consumers"]


@pytest.mark.parametrize("axis", [0, 1, None])
def test_scales_along_another_axis_absorb_no_factor(axis):
    held = {"q": np.full((4, 4, 1, 1), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], **({} if axis is None else {"axis": axis})),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (axis == 0)
    assert_equivalent(model, folded, 1024.0)


@pytest.mark.parametrize("opset", [10, 12, 13, 17])
@pytest.mark.parametrize("gains", [[2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 0.5, 3.0]])
def test_one_scale_for_all_becomes_one_per_channel_where_the_operator_can(opset, gains):
    """DequantizeLinear has an axis since opset 13."""
    held = {"q": np.random.default_rng(1).integers(-99, 99, (4, 4, 1, 1)).astype("i1"), "s": np.array(0.02, "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"]),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=gains)
    of_opset(model, opset)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (opset >= 13)
    assert_equivalent(model, folded, 512.0)


def initializer(model, name):
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


@pytest.mark.parametrize("gain", [2.0, -2.0, 0.5])
@pytest.mark.parametrize("zero", [None, 3])
def test_one_scale_for_all_remains_one_for_one_factor(gain, zero):
    held = {"q": np.random.default_rng(1).integers(-99, 99, (4, 4, 1, 1)).astype("i1"), "s": np.array(0.02, "f4")}
    held["bn_var"] = np.full(4, 1.0, "f4")
    if zero is not None:
        held["z"] = np.array(zero, "i1")
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", *(["z"] if zero is not None else [])], ["v"]),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[gain] * 4)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    (dequantize,) = (n for n in folded.graph.node if n.op_type == "DequantizeLinear")
    scale = initializer(folded, dequantize.input[1])
    assert scale.shape == ()
    np.testing.assert_allclose(scale, 0.02 * abs(gain) / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert not dequantize.attribute
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    ("integer", "zero", "folds"),
    [(-127, 0, True), (-128, 0, False), (126, -1, True), (127, -1, False), (-128, -1, True), (127, 0, True)],
)
def test_integers_are_negated_up_to_the_ends_of_their_type(integer, zero, folds):
    held = {"q": np.full((4, 4, 1, 1), integer, "i1"), "s": np.full(4, 0.02, "f4"), "z": np.full(4, zero, "i1")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[1.0, -1.0, 2.0, 1.0])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("blocks", [0, 2])
def test_which_integer_types_absorb_a_factor(dtype, blocks):
    """Those of up to 16 bits with one scale per channel, or in blocks of the other channels."""
    held = {"q": np.full((4, 4, 1, 1), 3, dtype), "s": np.full((4, 2, 1, 1) if blocks else 4, 0.5, "f4")}
    attributes = {"axis": 1, "block_size": blocks} if blocks else {"axis": 0}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], **attributes),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[1.0, 2.0, 0.5, 3.0])
    of_opset(model, 21)
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (dtype != "int32"), plan.outcomes


def test_integers_times_a_factor_of_zero_need_not_be_negated():
    """-128 has no opposite in int8; with a scale of 0 it needs none."""
    q = np.full((4, 4, 1, 1), 7, "i1")
    q[2] = -128
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
        held={"q": q, "s": np.full(4, 0.02, "f4")},
        gains=[1.0, -1.0, 0.0, 2.0],
    )
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(("highest", "folds"), [(240, True), (241, False)])
def test_unsigned_integers_are_negated_about_their_zero_point(highest, folds):
    q = np.resize(np.array([0, 60, 130, highest], "u1"), (4, 4, 1, 1))
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
        held={"q": q, "s": np.full(4, 0.02, "f4"), "z": np.full(4, 120, "u1")},
        gains=[1.0, -1.0, 0.5, 2.0],
    )
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_external_integers_of_four_bits(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        w = DequantizeLinear (q, scale)
        t = Conv (x, w)
        y = BatchNormalization (t, s, b, m, v)
    }"""
    held = {"q": np.ones((4, 4, 1, 1), ml_dtypes.int4), "scale": np.float32(0.1), **STATISTICS}
    model = parse(graph, held, opset=21, ir_version=10)
    packed = model.graph.initializer[0]
    (tmp_path / "q.bin").write_bytes(packed.raw_data)
    packed.ClearField("raw_data")
    packed.data_location = TensorProto.EXTERNAL
    packed.external_data.add(key="location", value="q.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    fold(tmp_path / "m.onnx", tmp_path / "out.onnx", FoldOptions(verify=None))


def test_integer_weights_that_are_an_output_are_kept():
    graph = """(float[2, 3, 8, 8] x) => (float[] y, float[] w) {
        w = DequantizeLinear (q, one)
        t = Conv (x, w)
        y = BatchNormalization (t, s, b, m, v)
    }"""
    integers = np.random.default_rng(0).integers(-100, 100, (4, 3, 1, 1)).astype("i1")
    held = {"q": integers, "one": np.float32(0.01), **STATISTICS}
    assert fold_and_compare(parse(graph, held)) == 0
