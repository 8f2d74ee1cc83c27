"""What is known of shapes: nothing that the model may contradict."""

import numpy as np

from tests.builders import ANY, STATISTICS, X, bn, make, node, normal, parse, tensor
from tests.folding import fold_and_compare, fold_proto


def test_a_loop_carried_tensor_has_no_known_shape():
    graph = """(float[2, 4, 6, 6] x) => (float[?, ?, ?, ?] hh, float[?] y) {
        hh, y = Loop (n3, "", x) <body = body (int64 i, bool go, float[2, 4, 6, 6] h) => (
            bool go2, float[] h2, float[] zz
        ) {
            go2 = Identity (go)
            r = Relu (h)
            n = BatchNormalization (r, s, b, m, v)
            z = Conv <auto_pad = "SAME_UPPER", strides = [3, 3]> (n, w)
            h2 = Pad (h, pads)
            zz = ReduceMean <keepdims = 0> (z)
        }>
    }"""
    held = {"n3": np.array(3), "pads": np.array([0] * 6 + [1, 1]), "w": normal(3, 4, 3, 3), **STATISTICS}
    assert fold_and_compare(parse(graph, held)) == 0


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
    graph = """(float[3, 5] p, float[2, 3, 5] q, bool f) => (float[] y) {
        y = If (f) <
            else_branch = else () => (float[] y2) {
                t = MatMul (q, w)
                y2 = Relu (t)
            },
            then_branch = then () => (float[] y1) {
                t = MatMul (p, w)
                y1 = BatchNormalization (t, s, b, m, v)
            }
        >
    }"""
    model = parse(graph, {"w": normal(5, 4), **STATISTICS})
    assert fold_and_compare(model, {"p": normal(3, 5), "q": normal(2, 3, 5), "f": np.array(True)}) == 1


def test_ai_onnx_is_the_default_domain():
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS})
    model.opset_import[0].domain = "ai.onnx"
    assert len(fold_proto(model)[1][0].folds) == 1
