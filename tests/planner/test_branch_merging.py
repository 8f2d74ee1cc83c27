"""Parallel branches that become one convolution, and those that must not."""

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import CHECKS, VerifyOptions
from tests.builders import ANY, batch_norm, bn_node, make, node, parse, tensor, weights
from tests.folding import assert_equivalent

PROOFS = VerifyOptions(("structure", "weights"))


def block(*, stride=1, group=1, identity=True, pads=(1, 1, 1, 1), small=1, tap=False):
    """Return a RepVGG block behind a Relu: 3×3, 1×1 and the input itself, each with a BatchNorm."""
    nodes = [
        node("Relu", ["x"], ["r"], name="relu"),
        node("Conv", ["r", "w3"], ["c3"], name="three", pads=list(pads), strides=[stride] * 2, group=group),
        bn_node("c3", "b3", "bn3"),
        node("Conv", ["r", "w1", "k1"], ["c1"], name="one", strides=[stride] * 2, group=group, pads=[small // 2] * 4),
        bn_node("c1", "b1", "bn1"),
        node("Add", ["b3", "b1"], ["s"], name="sum1"),
    ]
    last = "s"
    if identity:
        nodes += [bn_node("r", "b0", "bn0"), node("Add", ["s", "b0"], ["t"], name="sum2")]
        last = "t"
    nodes.append(node("Relu", [last], ["y"], name="out"))
    held = {"w3": weights(1, 4, 4 // group, 3, 3), "w1": weights(2, 4, 4 // group, small, small), "k1": weights(3, 4)}
    for k in (0, 1, 3):
        held |= batch_norm(f"bn{k}", 4, k)
    outputs = [ANY, onnx.helper.make_tensor_value_info("c1", 1, None)] if tap else [ANY]
    return make(nodes, [tensor("x", ["N", 4, 8, 8])], outputs, held)


def merged(model, tmp_path, **options):
    """Fold with branches merged and compare; return the result and the operators of the folded model."""
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions(merge=True, **options), force=True)
    folded = onnx.load(out)
    assert_equivalent(model, folded)
    return result, [n.op_type for n in folded.graph.node]


@pytest.mark.parametrize("options", [{}, {"group": 2}, {"group": 4}, {"stride": 2, "identity": False}, {"small": 3}])
def test_branches_merge_into_one_convolution(options, tmp_path):
    result, operators = merged(block(**options), tmp_path)
    assert operators == ["Relu", "Conv", "Relu"]
    assert result.inspection.kept == 0
    assert result.verification.verdict == "equivalent"


@pytest.mark.parametrize("pads", [(0, 0, 2, 2), (2, 2, 0, 0), (1, 2, 1, 0)])
def test_a_kernel_that_is_padded_unevenly_takes_the_others_at_their_place(pads, tmp_path):
    _, operators = merged(block(pads=pads), tmp_path, verify=None)
    assert operators == ["Relu", "Conv", "Relu"]


def test_a_branch_with_another_consumer_is_kept(tmp_path):
    _, operators = merged(block(tap=True), tmp_path, verify=None)
    assert operators.count("Conv") == 2


def summed(graph, tmp_path, **held):
    """Merge what is between a Relu and a Relu of four channels, written out; return the folded model."""
    text = f"(float[N, 4, 8, 8] x) => (float[] y) {{ r = Relu (x) {graph} y = Relu (s) }}"
    statistics = {**batch_norm("p", 4, 1), **batch_norm("q", 4, 2), **batch_norm("z", 4, 3)}
    model = parse(text, {**statistics, **held})
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions(merge=True, verify=PROOFS))
    folded = onnx.load(out)
    assert_equivalent(model, folded)
    return result, folded


P, Q, Z = (f"{name}_scale, {name}_bias, {name}_mean, {name}_var" for name in "pqz")
THREE, ONE = "<pads = [1, 1, 1, 1]>", ""
SUMS = {
    "a BatchNorm behind the sum": f"a = Conv {THREE} (r, w) b = Conv (r, v) t = Add (a, b) u = Add (t, r) "
    f"s = BatchNormalization (u, {P})",
    "BatchNorms before and behind it": f"a = Conv {THREE} (r, w) b = BatchNormalization (a, {Q}) c = Conv (r, v) "
    f"t = Add (b, c) s = BatchNormalization (t, {P})",
    "a constant among the summands": f"a = Conv {THREE} (r, w) b = Conv (r, v) t = Add (a, b) s = Add (t, k)",
    "nothing added": f"a = Conv {THREE} (r, w) b = Add (a, o) c = Conv (r, v) s = Add (c, b)",
    "a difference, scaled, in a sum": f"a = Conv {THREE} (r, w) b = BatchNormalization (a, {P}) "
    f"c = BatchNormalization (r, {Q}) d = Sub (b, c) e = Mul (d, k) s = Add (r, e)",
    "nested sums": f"a = Conv {THREE} (r, w) b = Add (r, a) c = Conv (r, v) d = BatchNormalization (r, {Z}) "
    "e = Sub (d, c) s = Sum (r, b, e)",
    "the input twice": f"a = Conv {THREE} (r, w) b = Add (r, a) s = Add (b, r)",
}


@pytest.mark.parametrize("name", SUMS)
def test_whatever_is_linear_in_one_input_becomes_one_convolution(name, tmp_path):
    held = {"w": weights(1, 4, 4, 3, 3), "v": weights(2, 4, 4, 1, 1), "k": weights(3, 4, 1, 1), "o": np.zeros((), "f4")}
    result, folded = summed(SUMS[name], tmp_path, **held)
    assert [n.op_type for n in folded.graph.node] == ["Relu", "Conv", "Relu"]
    assert result.verdict == "equivalent" and result.inspection.kept == 0


GEOMETRIES = {
    "rows and columns (ACNet)": [((4, 4, 3, 3), (1, 1, 1, 1), 1, 1), ((4, 4, 3, 1), (1, 0, 1, 0), 1, 1),
                                 ((4, 4, 1, 3), (0, 1, 0, 1), 1, 1)],
    "a dilated kernel on the grid": [((4, 4, 5, 5), (2, 2, 2, 2), 1, 1), ((4, 4, 3, 3), (2, 2, 2, 2), 1, 2)],
    "even kernels": [((4, 4, 4, 4), (1, 1, 2, 2), 1, 1), ((4, 4, 2, 2), (0, 0, 1, 1), 1, 1)],
    "depthwise beside dense": [((4, 1, 3, 3), (1, 1, 1, 1), 4, 1), ((4, 4, 3, 3), (1, 1, 1, 1), 1, 1)],
    "groups beside finer groups": [((4, 2, 3, 3), (1, 1, 1, 1), 2, 1), ((4, 1, 1, 1), (0, 0, 0, 0), 4, 1)],
}  # fmt: skip
APART = {
    "off the grid": [((4, 4, 3, 3), (2, 2, 2, 2), 1, 2), ((4, 4, 3, 3), (1, 1, 1, 1), 1, 1)],
    "neither holds the other": [((4, 4, 3, 1), (1, 0, 1, 0), 1, 1), ((4, 4, 1, 3), (0, 1, 0, 1), 1, 1)],
    "coarser groups in the smaller kernel": [((4, 1, 3, 3), (1, 1, 1, 1), 4, 1), ((4, 4, 1, 1), (0,) * 4, 1, 1)],
}  # fmt: skip


def convolutions(shapes):
    """Return the graph text of a sum of convolutions, and their weights."""
    text, held = "", {}
    for k, (shape, pads, group, dilation) in enumerate(shapes):
        attributes = f"pads = {list(pads)}, group = {group}, dilations = [{dilation}, {dilation}]"
        text += f"c{k} = Conv <{attributes}> (r, w{k}) "
        held[f"w{k}"] = weights(k, *shape)
    return text + f"s = Sum ({', '.join(held).replace('w', 'c')})", held


@pytest.mark.parametrize("name", GEOMETRIES)
def test_kernels_fit_into_one_that_reads_all_that_they_read(name, tmp_path):
    text, held = convolutions(GEOMETRIES[name])
    _, folded = summed(text, tmp_path, **held)
    assert [n.op_type for n in folded.graph.node] == ["Relu", "Conv", "Relu"]


@pytest.mark.parametrize("name", APART)
def test_kernels_that_fit_into_none_of_them_are_kept(name, tmp_path):
    text, held = convolutions(APART[name])
    _, folded = summed(text, tmp_path, **held)
    assert [n.op_type for n in folded.graph.node].count("Conv") == 2


def test_two_inputs_are_no_branches(tmp_path):
    text = "q = Sigmoid (x) a = Conv (r, v) b = Conv (q, v) s = Add (a, b)"
    _, folded = summed(text, tmp_path, v=weights(2, 4, 4, 1, 1))
    assert [n.op_type for n in folded.graph.node].count("Conv") == 2


def test_a_fold_into_a_merged_weight_rounds_once(tmp_path):
    """A factor that moves up through a Relu reaches a weight that was merged: both are one rounding."""
    held = {"v": weights(2, 4, 4, 1, 1), "w": weights(1, 4, 4, 1, 1), **batch_norm("p", 4, 1)}
    held["p_scale"], held["p_bias"], held["p_mean"] = np.abs(held["p_scale"]), np.zeros(4, "f4"), np.zeros(4, "f4")
    text = f"""(float[N, 4, 8, 8] x) => (float[] y) {{
        q = Sigmoid (x) a = Conv (q, v) b = Conv (q, w) c = Add (a, b) r = Relu (c)
        d = BatchNormalization (r, {P}) y = Softmax <axis = 1> (d)
    }}"""
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(parse(text, held).SerializeToString())
    result = fold(path, out, FoldOptions(merge=True, verify=PROOFS))
    assert result.verdict == "equivalent" and result.inspection.kept == 0
    folded = onnx.load(out)
    (conv,) = (n for n in folded.graph.node if n.op_type == "Conv")
    made = next(onnx.numpy_helper.to_array(t) for t in folded.graph.initializer if t.name == conv.input[1])
    gain = held["p_scale"].astype("f8") / np.sqrt(held["p_var"].astype("f8") + np.float32(1e-5))
    exact = gain.reshape(-1, 1, 1, 1) * (held["v"].astype("f8") + held["w"].astype("f8"))
    np.testing.assert_array_equal(made, exact.astype("f4"))


def test_the_type_of_a_merged_weight_is_that_of_the_old_one(tmp_path):
    """Also where the type of the input is unknown: an operator of another domain produces it."""
    model = block(identity=False)
    model.graph.node[0].domain = "example.org"
    model.opset_import.add(domain="example.org", version=1)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(model, path)
    fold(path, out, FoldOptions(merge=True, verify=None))
    assert [n.op_type for n in onnx.load(out).graph.node].count("Conv") == 1


def test_nothing_merges_unless_asked_for(tmp_path):
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(block().SerializeToString())
    fold(path, out, FoldOptions(verify=None))
    assert [n.op_type for n in onnx.load(out).graph.node].count("Conv") == 2


def test_a_wrong_merge_is_found(tmp_path):
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(block().SerializeToString())
    fold(path, out, FoldOptions(merge=True, verify=None))
    model = onnx.load(out)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    data = onnx.numpy_helper.to_array(weight).copy()
    data[0] *= np.float32(1.001)
    weight.CopyFrom(onnx.numpy_helper.from_array(data, weight.name))
    out.write_bytes(model.SerializeToString())
    checks = {check.check: check.verdict for check in verify(path, out, VerifyOptions(CHECKS)).verification.checks}
    assert checks == {"structure": "pass", "weights": "fail", "layers": "fail", "outputs": "fail"}


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_branches_whose_sum_overflows_are_kept(what, tmp_path):
    """In float16, 40000 + 40000 is infinite."""
    large, small = np.full((4, 4, 1, 1), 40000, "f2"), np.full((4, 4, 1, 1), 2.0**-10, "f2")
    held = dict.fromkeys(("v", "w"), large if what == "weight" else small)
    held |= {name: np.full(4, 1 if what == "weight" else 40000, "f2") for name in ("k", "l")}
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Conv", ["r", "v", "k"], ["c"]),
        node("Conv", ["r", "w", "l"], ["d"]),
        node("Add", ["c", "d"], ["s"]),
        node("Relu", ["s"], ["y"]),
    ]
    output = onnx.helper.make_tensor_value_info("y", 10, [1, 4, 8, 8])
    model = make(nodes, [tensor("x", [1, 4, 8, 8], 10)], [output], held)
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    fold(path, out, FoldOptions(merge=True, verify=None))
    assert [n.op_type for n in onnx.load(out).graph.node] == ["Relu", "Conv", "Conv", "Add", "Relu"]


def test_convolutions_of_one_name_in_both_branches_of_an_if_keep_their_own_weights(tmp_path):
    """In one the sum of two is merged; in both a factor goes up into the weight."""
    held = {name: weights(k, 4, 4, 1, 1) for k, name in enumerate("vwu")} | batch_norm("p", 4, 1)
    held["p_scale"], held["p_bias"], held["p_mean"] = np.abs(held["p_scale"]), np.zeros(4, "f4"), np.zeros(4, "f4")
    behind = f"r = Relu (s) b = BatchNormalization (r, {P}) o = Sigmoid (b)"
    text = f"""(float[N, 4, 8, 8] x, bool c) => (float[] y) {{
        q = Sigmoid (x)
        y = If (c) <
            then_branch = one () => (float[] o) {{ a = Conv (q, v) d = Conv (q, w) s = Add (a, d) {behind} }},
            else_branch = two () => (float[] o) {{ s = Conv (q, u) {behind} }}
        >
    }}"""
    model = parse(text, held)
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    assert fold(path, out, FoldOptions(merge=True, verify=None)).inspection.kept == 0
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype("f4")
    for chosen in (True, False):
        assert_equivalent(model, onnx.load(out), 64.0, {"x": x, "c": np.array(chosen)})
