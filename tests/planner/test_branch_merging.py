"""Parallel branches that become one convolution, and those that must not."""

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import CHECKS, VerifyOptions
from tests.builders import ANY, batch_norm, bn_node, make, node, tensor, weights
from tests.folding import assert_equivalent


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


@pytest.mark.parametrize(
    "options", [{"pads": (0, 0, 2, 2)}, {"tap": True}, {"pads": (2, 2, 0, 0), "identity": False}], ids=str
)
def test_branches_of_another_geometry_or_with_other_consumers_are_kept(options, tmp_path):
    _, operators = merged(block(**options), tmp_path, verify=None)
    assert operators.count("Conv") == 2


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
