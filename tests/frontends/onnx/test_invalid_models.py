"""Models that are invalid or contradict themselves: an error or a kept BatchNorm, never a crash."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnfold.api import FoldOptions, fold
from bnfold.errors import InputError
from tests.builders import ANY, STATISTICS, X, batch_norm, bn, make, node, normal, parse, tensor, weights
from tests.folding import fold_proto

INVALID_NODES = {
    "conv without weight": node("Conv", ["x"], ["t"]),
    "conv with empty weight": node("Conv", ["x", ""], ["t"]),
    "conv of nothing": node("Conv", [], ["t"]),
    "matmul of one": node("MatMul", ["x"], ["t"]),
    "identity of nothing": node("Identity", [], ["t"]),
    "dropout of nothing": node("Dropout", [""], ["t"]),
    "group is text": node("Conv", ["x", "w"], ["t"], group="abc"),
    "group is broken": node("Conv", ["x", "w"], ["t"], group=2.5),
    "beta is text": node("Gemm", ["x", "w"], ["t"], beta="q"),
    "shape of nothing": node("Shape", [], ["t"]),
    "expand by nothing": node("Expand", ["x"], ["t"]),
    "dropout of no first output": node("Dropout", ["x"], ["", "t"]),
    "max pool of no first output": node("MaxPool", ["x"], ["", "t"], kernel_shape=[1, 1]),
    "negation of two outputs": node("Neg", ["x"], ["t", "more"]),
}


@pytest.mark.parametrize("name", INVALID_NODES)
def test_invalid_nodes_are_refused(name, tmp_path):
    graph = helper.make_graph([INVALID_NODES[name], bn("t")], "g", [X], [ANY])
    graph.initializer.extend(
        onnx.numpy_helper.from_array(v, k) for k, v in {"w": normal(4, 4, 1, 1), **STATISTICS}.items()
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    with pytest.raises(InputError, match="node"):
        fold(path, tmp_path / "out.onnx", FoldOptions(verify=None))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w"], ["t"], group=5), bn("t")],
        [node("Conv", ["x", "w", "s3"], ["t"]), bn("t")],
        [node("DequantizeLinear", ["i8", "one"], ["q"], block_size=10**12), node("Conv", ["x", "q"], ["t"]), bn("t")],
        [node("ConstantOfShape", ["row"], ["r1"]), node("ConstantOfShape", ["column"], ["c1"]),
         node("Add", ["r1", "c1"], ["k1"]), node("Conv", ["x", "w"], ["t"]), node("Add", ["t", "k1"], ["a"]), bn("a")],
    ],
    ids=["groups", "bias", "blocks", "broadcast bomb"],
)  # fmt: skip
def test_unusual_models_are_no_crash(nodes, tmp_path):
    held = {
        "w": normal(4, 4, 1, 1), "s3": normal(3), "one": np.float32(1),
        "i8": np.ones((4, 4, 1, 1), "i1"), "row": np.array([1, 1, 30000, 1]), "column": np.array([1, 1, 1, 30000]),
    }  # fmt: skip
    graph = helper.make_graph(nodes, "g", [X], [])
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in {**held, **STATISTICS}.items())
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())
    fold(path, tmp_path / "out.onnx", FoldOptions(verify=None))


def test_a_cycle_of_symbolic_links_is_refused(tmp_path):
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS})
    (tmp_path / "sl").symlink_to("sl")
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="sl")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError):
        fold(tmp_path / "m.onnx", tmp_path / "out.onnx", FoldOptions(verify=None))


@pytest.mark.parametrize(
    "wrong",
    [
        node("DepthToSpace", ["c"], ["d"], blocksize=2),
        node("Transpose", ["c"], ["d"], perm=[0, 2, 1]),
        node("Slice", ["c", "two", "two", "one", "one"], ["d"]),
        node("Add", ["c"], ["d"]),
        node("Mul", ["c", ""], ["d"]),
        node("Add", ["", "c"], ["d"]),
    ],
    ids=lambda n: f"{n.op_type} {len(n.input)}",
)
def test_inconsistent_operators_fold_nothing(wrong):
    """Six channels are no four blocks, for example; the loader refuses some of these, the rules the others."""
    held = batch_norm("bn", 6, 1) | {"w": weights(1, 6, 3, 1, 1), "one": np.array([1]), "two": np.array([0, 1])}
    graph = """(float[1, 3, 4, 4] x, float[1, 6, 4, 4] d) => (float[] y) {
        c = Conv (x, w)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    try:
        model = parse(graph, held)
        del model.graph.input[1]
        model.graph.node.insert(1, wrong)
        model.graph.value_info.append(tensor("d", [1, 6, 4, 4]))
        _, (plan,) = fold_proto(model)
    except InputError:
        return
    assert not plan.folds, plan.outcomes
