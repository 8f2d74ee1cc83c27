"""What is known of shapes: nothing that the model may contradict."""

import numpy as np
from onnx import TensorProto

from tests.builders import ANY, STATISTICS, X, bn, make, node, normal, parse, subgraph, tensor
from tests.folding import fold_and_compare, fold_proto


def test_a_loop_carried_tensor_has_no_known_shape():
    inner = subgraph(
        [
            node("Identity", ["go"], ["go2"]),
            node("Relu", ["h"], ["r"]),
            bn("r", "n"),
            node("Conv", ["n", "w"], ["z"], auto_pad="SAME_UPPER", strides=[3, 3]),
            node("Pad", ["h", "pads"], ["h2"]),
            node("ReduceMean", ["z"], ["zz"], keepdims=0),
        ],
        "body",
        ["h2", "zz"],
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("h", [2, 4, 6, 6])],
    )
    inner.output.insert(0, tensor("go2", [], TensorProto.BOOL))
    held = {"n3": np.array(3), "pads": np.array([0] * 6 + [1, 1]), "w": normal(3, 4, 3, 3), **STATISTICS}
    outputs = [tensor("hh", [None] * 4), tensor("y", [None])]
    assert fold_and_compare(make([node("Loop", ["n3", "", "x"], ["hh", "y"], body=inner)], [X], outputs, held)) == 0


def test_declared_output_shapes_are_not_trusted():
    graph = """(float[2, 4, 5] x, int64[?] shape) => (float[8, 5] t, float[] y) {
        t = Reshape (x, shape)
        u = MatMul (t, w)
        y = BatchNormalization (u, s, b, m, v)
    }"""
    model = parse(graph, {"w": normal(5, 4), **STATISTICS})
    model.graph.output[0].CopyFrom(tensor("t", [8, 5]))
    assert fold_and_compare(model, {"x": normal(2, 4, 5), "shape": np.array([2, 4, 5])}) == 0


def test_negative_dimensions_are_unknown():
    nodes = [
        node("Relu", ["x"], ["t"]),
        bn("t", "u"),
        node("Conv", ["u", "w"], ["y"], auto_pad="SAME_UPPER", strides=[4, 4]),
    ]
    model = make(nodes, [tensor("x", [2, 4, -1, -1])], [ANY], {"w": normal(3, 4, 3, 3), **STATISTICS})
    assert fold_and_compare(model, {"x": normal(2, 4, 6, 6)}) == 0


def test_types_are_not_shared_between_subgraphs():
    then = subgraph([node("MatMul", ["p", "w"], ["t"]), bn("t", "y1")], "then", ["y1"])
    other = subgraph([node("MatMul", ["q", "w"], ["t"]), node("Relu", ["t"], ["y2"])], "else", ["y2"])
    choice = node("If", ["f"], ["y"], then_branch=then, else_branch=other)
    inputs = [tensor("p", [3, 5]), tensor("q", [2, 3, 5]), tensor("f", [], TensorProto.BOOL)]
    model = make([choice], inputs, [tensor("y", None)], {"w": normal(5, 4), **STATISTICS})
    assert fold_and_compare(model, {"p": normal(3, 5), "q": normal(2, 3, 5), "f": np.array(True)}) == 1


def test_ai_onnx_is_the_default_domain():
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS})
    model.opset_import[0].domain = "ai.onnx"
    assert len(fold_proto(model)[1][0].folds) == 1
