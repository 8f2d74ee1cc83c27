"""What an attack on an early version found: each once gave a wrong model, an invalid one, or a crash."""

import numpy as np
import onnx
import pytest
from build import ANY, make, node, tensor
from conftest import assert_same, feeds_for, fold_proto, run
from onnx import TensorProto, helper

from bnfold.api import FoldOptions, fold
from bnfold.errors import InputError

STATISTICS = {
    "s": np.array([2, 4, 0.5, -1], "f4"),
    "b": np.array([1, 2, -1, 0.5], "f4"),
    "m": np.array([0.3, 0.1, 0.7, 0.9], "f4"),
    "v": np.array([1.1, 0.3, 0.5, 0.7], "f4"),
}
X = tensor("x", [2, 4, 6, 6])


def bn(source, target="y"):
    return node("BatchNormalization", [source, "s", "b", "m", "v"], [target], name="bn")


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def body(nodes, name, outputs, inputs=()):
    outs = [helper.make_tensor_value_info(out, TensorProto.FLOAT, None) for out in outputs]
    return helper.make_graph(nodes, name, list(inputs), outs)


def same(model, feeds=None):
    """Folded or not, it must compute the same; returns how many folds there were."""
    folded, plans = fold_proto(model)
    feeds = feeds_for(model) if feeds is None else feeds
    assert_same(run(model, feeds), run(folded, feeds), 256)
    return sum(len(plan.folds) for plan in plans)


def test_a_sum_with_two_constants():
    nodes = [node("Conv", ["x", "w"], ["t"]), node("Sum", ["t", "k1", "k2"], ["a"]), bn("a")]
    same(make(nodes, [X], [ANY], {"w": normal(4, 4, 1, 1), "k1": normal(4, 1, 1), "k2": normal(4, 1, 1), **STATISTICS}))


@pytest.mark.parametrize(
    "nodes",
    [
        [bn("c", "d"), node("Add", ["x", "d"], ["y"])],
        [bn("c", "d"), node("Conv", ["d", "w"], ["e"]), node("Add", ["x", "e"], ["y"])],
        [node("Conv", ["x", "w"], ["t"]), node("Dropout", ["c"], ["d"]), node("Add", ["t", "d"], ["a"]), bn("a")],
        [node("Dropout", ["c"], ["d"]), node("Mul", ["d", "k"], ["e"]), node("Add", ["x", "e"], ["y"])],
    ],
    ids=["added", "convolved", "dropout", "chain"],
)
def test_maps_never_rest_on_a_constant(nodes):
    held = {"c": normal(2, 4, 6, 6), "w": normal(4, 4, 1, 1), "k": normal(4, 1, 1), **STATISTICS}
    same(make(nodes, [X], [ANY], held))


def test_sparse_initializers_are_constants():
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3.0, 4.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [2], [2, 7]), [4, 4, 1, 1])
    model = make(
        [node("Conv", ["x", "w"], ["t"], name="conv"), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS}
    )
    model.graph.initializer.remove(model.graph.initializer[0])
    model.graph.sparse_initializer.append(sparse)
    assert same(model) == 1


def test_what_a_loop_carries_has_no_certain_shape():
    inner = body(
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
    assert same(make([node("Loop", ["n3", "", "x"], ["hh", "y"], body=inner)], [X], outputs, held)) == 0


def test_declared_shapes_of_outputs_prove_nothing():
    nodes = [node("Reshape", ["x", "shape"], ["t"]), node("MatMul", ["t", "w"], ["u"]), bn("u")]
    inputs = [tensor("x", [2, 4, 5]), tensor("shape", [None], TensorProto.INT64)]
    model = make(nodes, inputs, [tensor("t", [8, 5]), ANY], {"w": normal(5, 4), **STATISTICS})
    model.graph.output[0].CopyFrom(tensor("t", [8, 5]))
    assert same(model, {"x": normal(2, 4, 5), "shape": np.array([2, 4, 5])}) == 0


def test_negative_dimensions_are_unknown():
    nodes = [
        node("Relu", ["x"], ["t"]),
        bn("t", "u"),
        node("Conv", ["u", "w"], ["y"], auto_pad="SAME_UPPER", strides=[4, 4]),
    ]
    model = make(nodes, [tensor("x", [2, 4, -1, -1])], [ANY], {"w": normal(3, 4, 3, 3), **STATISTICS})
    assert same(model, {"x": normal(2, 4, 6, 6)}) == 0


def test_types_are_not_shared_between_bodies():
    then = body([node("MatMul", ["p", "w"], ["t"]), bn("t", "y1")], "then", ["y1"])
    other = body([node("MatMul", ["q", "w"], ["t"]), node("Relu", ["t"], ["y2"])], "else", ["y2"])
    choice = node("If", ["f"], ["y"], then_branch=then, else_branch=other)
    inputs = [tensor("p", [3, 5]), tensor("q", [2, 3, 5]), tensor("f", [], TensorProto.BOOL)]
    model = make([choice], inputs, [tensor("y", None)], {"w": normal(5, 4), **STATISTICS})
    assert same(model, {"p": normal(3, 5), "q": normal(2, 3, 5), "f": np.array(True)}) == 1


@pytest.mark.parametrize(("dtype", "weight", "scale"), [("float16", 1e-3, 1e-5), ("float32", 1e-20, 1e-30)])
def test_weights_that_vanish_altogether_are_not_dead_channels(dtype, weight, scale):
    held = {"w": np.full((4, 4, 1, 1), weight, dtype), "s": np.full(4, scale, dtype)}
    held |= {"b": np.zeros(4, dtype), "m": np.zeros(4, dtype), "v": np.ones(4, dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [tensor("x", [2, 4, 6, 6], kind)], outputs, held)
    _, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["overflow"]


def test_a_name_is_not_moved_over_a_body_that_has_it_too():
    def branch(name, inner, out):
        return body([node("Abs", ["x"], [inner]), node("Neg", [inner], [out])], name, [out])

    choice = node("If", ["f"], ["o"], then_branch=branch("then", "b2", "o1"), else_branch=branch("else", "q", "o2"))
    nodes = [node("Conv", ["x", "w"], ["t"]), choice, bn("t", "b2"), node("Relu", ["b2"], ["y"])]
    inputs = [X, tensor("f", [], TensorProto.BOOL)]
    model = make(nodes, inputs, [ANY, tensor("o", None)], {"w": normal(4, 4, 1, 1), **STATISTICS})
    assert same(model) == 1
    onnx.checker.check_model(fold_proto(model)[0], full_check=True)


def test_a_function_that_gains_nothing_leaves_the_rest_foldable(tmp_path):
    inside = [node("Relu", ["x"], ["r"]), node("BatchNormalization", ["r", "s", "b", "m", "v"], ["y"])]
    function = helper.make_function(
        "local", "F", ["x", "s", "b", "m", "v"], ["y"], inside, [helper.make_opsetid("", 17)]
    )
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn("t", "u"),
        node("F", ["u", "s", "b", "m", "v"], ["y"], domain="local"),
    ]
    model = make(nodes, [X], [tensor("y", [2, 4, 6, 6])], {"w": normal(4, 4, 1, 1), **STATISTICS}, functions=[function])
    path = tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, tmp_path / "out.onnx")
    assert (result.inspection.foldable, result.inspection.kept) == (1, 1)
    assert result.verification.verdict == "equivalent"
    assert len(onnx.load(tmp_path / "out.onnx").functions) == 1


def test_constants_are_rounded_before_they_become_integers():
    nodes = [
        node("Mul", ["c", "ten"], ["d"]),
        node("Cast", ["d"], ["i"], to=TensorProto.INT64),
        node("Cast", ["i"], ["s"], to=TensorProto.FLOAT),
        node("Conv", ["x", "w"], ["t"]),
        bn("t"),
    ]
    rest = {name: data for name, data in STATISTICS.items() if name != "s"}
    held = {"w": normal(4, 4, 1, 1), "c": np.full(4, 0.7, "f4"), "ten": np.float32(10), **rest}
    assert same(make(nodes, [X], [ANY], held)) == 1


def test_the_broadcast_of_opset_6_does_not_grow():
    nodes = [
        node("Conv", ["x", "w"], ["t"]),
        node("Add", ["t", "k"], ["a"], broadcast=1),
        node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"], is_test=1),
    ]
    model = make(nodes, [X], [ANY], {"w": normal(4, 4, 1, 1), "k": np.array([0.5], "f4"), **STATISTICS}, opset=6)
    folded, _ = fold_proto(model)
    assert all(len(t.dims) in (1, 4) for t in folded.graph.initializer)


def test_a_dead_channel_behind_a_product():
    nodes = [node("Mul", ["x", "k"], ["a"]), bn("a")]
    held = {"k": normal(4, 1, 1), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4")}
    same(make(nodes, [X], [ANY], held))


def test_the_other_name_of_the_default_domain():
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS})
    model.opset_import[0].domain = "ai.onnx"
    assert len(fold_proto(model)[1][0].folds) == 1


def test_external_integers_of_four_bits(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    nodes = [node("DequantizeLinear", ["q", "scale"], ["w"]), node("Conv", ["x", "w"], ["t"]), bn("t")]
    held = {"q": np.ones((4, 4, 1, 1), ml_dtypes.int4), "scale": np.float32(0.1), **STATISTICS}
    model = make(nodes, [X], [ANY], held, opset=21, ir_version=10)
    packed = model.graph.initializer[0]
    (tmp_path / "q.bin").write_bytes(packed.raw_data)
    packed.ClearField("raw_data")
    packed.data_location = TensorProto.EXTERNAL
    packed.external_data.add(key="location", value="q.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    fold(tmp_path / "m.onnx", tmp_path / "out.onnx", FoldOptions(verify=None))


HOSTILE = {
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


@pytest.mark.parametrize("name", HOSTILE)
def test_invalid_nodes_are_refused(name, tmp_path):
    graph = helper.make_graph([HOSTILE[name], bn("t")], "g", [X], [ANY])
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
def test_odd_graphs_end_in_an_answer(nodes, tmp_path):
    held = {
        "w": normal(4, 4, 1, 1), "s3": normal(3), "one": np.float32(1),
        "i8": np.ones((4, 4, 1, 1), "i1"), "row": np.array([1, 1, 30000, 1]), "column": np.array([1, 1, 1, 30000]),
    }  # fmt: skip
    graph = helper.make_graph(nodes, "g", [X], [])
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in {**held, **STATISTICS}.items())
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())
    fold(path, tmp_path / "out.onnx", FoldOptions(verify=None))


def test_convolutions_of_no_channels():
    nodes = [node("Conv", ["z", "w"], ["t"]), bn("t")]
    model = make(nodes, [tensor("z", [1, 0, 3, 3])], [ANY], {"w": np.zeros((4, 0, 1, 1), "f4"), **STATISTICS})
    assert not fold_proto(model)[1][0].folds


def test_a_loop_of_links_is_refused(tmp_path):
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS})
    (tmp_path / "sl").symlink_to("sl")
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="sl")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError):
        fold(tmp_path / "m.onnx", tmp_path / "out.onnx", FoldOptions(verify=None))


# --- found by random graphs


def conv_then(*nodes, **held):
    first = node("Conv", ["x", "w"], ["t"], name="c")
    return make([first, *nodes], [tensor("x", [2, 3, 8, 8])], [ANY], {"w": normal(4, 3, 1, 1), **STATISTICS, **held})


def test_a_dead_channel_behind_a_product_of_matrices():
    held = {"w": normal(6, 4), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4")}
    assert same(make([node("MatMul", ["x", "w"], ["p"]), bn("p")], [tensor("x", [2, 6])], [ANY], held)) == 1


def test_a_dead_channel_behind_a_division():
    zeros = np.zeros(4, "f4")
    held = {"k": np.float32(255), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4"), "b": zeros, "m": zeros}
    same(make([node("Div", ["x", "k"], ["u"]), bn("u")], [tensor("x", [2, 4, 4, 4])], [ANY], held))


def test_a_factor_of_zero_from_an_earlier_fold():
    dead = normal(4, 1, 1)
    dead[1] = 0
    nodes = [
        node("Mul", ["t", "k1"], ["p"]),
        node("Conv", ["x", "w2"], ["c0"]),
        node("Relu", ["c0"], ["r"]),
        bn("r", "z"),
        node("Transpose", ["p"], ["mt"], perm=[0, 1, 3, 2]),
        node("Mul", ["mt", "k2"], ["u"]),
        node("Add", ["u", "z"], ["y"]),
    ]
    same(conv_then(*nodes, w2=normal(4, 3, 1, 1), k1=normal(4, 1, 1), k2=dead))


def test_a_constant_beside_a_value_of_unknown_height():
    nodes = [
        node("Conv", ["x", "w"], ["t"]),
        node("Concat", ["t", "k"], ["z"], axis=2),
        bn("z"),
    ]
    held = {"w": normal(4, 3, 1, 1), "k": normal(2, 4, 3, 8), **STATISTICS}
    model = make(nodes, [tensor("x", ["N", 3, "H", 8])], [ANY], held)
    assert same(model, {"x": normal(2, 3, 5, 8)}) == 1


def test_rearranged_positions_carry_no_map_that_varies_along_them():
    nodes = [
        node("Mul", ["x", "j"], ["a"]),
        node("DepthToSpace", ["a"], ["b"], blocksize=2),
        node("Mul", ["b", "k"], ["y"]),
    ]
    same(make(nodes, [tensor("x", [2, 4, 4, 4])], [ANY], {"k": normal(8), "j": normal(1)}))


def test_integer_weights_that_are_an_output_stay():
    nodes = [node("DequantizeLinear", ["q", "one"], ["w"]), node("Conv", ["x", "w"], ["t"]), bn("t")]
    integers = np.random.default_rng(0).integers(-100, 100, (4, 3, 1, 1)).astype("i1")
    outputs = [ANY, helper.make_tensor_value_info("w", 1, None)]
    held = {"q": integers, "one": np.float32(0.01), **STATISTICS}
    assert same(make(nodes, [tensor("x", [2, 3, 8, 8])], outputs, held)) == 0


def test_a_resize_that_keeps_the_number_of_channels_is_still_one():
    resize = node("Resize", ["t", "", "scales"], ["z"], axes=[1, 2], mode="linear")
    model = conv_then(resize, bn("z"), scales=np.array([1.2, 2], "f4"))
    model.opset_import[0].version = 18
    assert same(model) == 0
    resize = node("Resize", ["t", "", "scales"], ["z"], axes=[2, 3], mode="linear")
    model = conv_then(resize, bn("z"), scales=np.array([1.2, 2], "f4"))
    model.opset_import[0].version = 18
    assert same(model) == 1


def test_a_clip_whose_bounds_are_the_wrong_way_round_is_not_turned_over():
    nodes = [node("Clip", ["t", "low", "high"], ["z"]), node("Mul", ["z", "k"], ["y"])]
    same(conv_then(*nodes, low=np.float32(2), high=np.float32(-1), k=np.float32(-2)))


@pytest.mark.parametrize(
    "between", [[node("Identity", ["t"], ["u"])], [node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2])]]
)
def test_the_shift_that_others_undo_is_looked_at_behind_other_operators_too(between):
    held = {
        **STATISTICS,
        "s": np.full(4, 1e-6, "f4"),
        "b": np.ones(4, "f4"),
        "m": np.zeros(4, "f4"),
        "v": np.ones(4, "f4"),
    }
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="c"),
        *between,
        bn("u"),
        node("Conv", ["t", "w2"], ["q"], name="c2"),
    ]
    outputs = [ANY, helper.make_tensor_value_info("q", 1, None)]
    model = make(
        nodes, [tensor("x", [2, 3, 8, 8])], outputs, {"w": normal(4, 3, 1, 1), "w2": normal(4, 4, 1, 1), **held}
    )
    assert same(model) == 0


def test_folding_twice_with_options_changes_nothing_more():
    nodes = [
        node("Sigmoid", ["x"], ["g"]),
        bn("g", "u"),
        node("BatchNormalization", ["u", "one", "b", "m", "v"], ["z"]),
        node("Relu", ["z"], ["r"]),
        node("Conv", ["r", "w"], ["y"]),
    ]
    held = {"w": normal(3, 4, 1, 1), **STATISTICS, "s": np.abs(STATISTICS["s"]), "one": np.ones(4, "f4")}
    model = make(nodes, [X], [ANY], held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert len(plan.folds) == 2
    assert not fold_proto(folded, threshold=True)[1][0].folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 256)


def test_a_recurrent_layer_without_its_first_output():
    nodes = [bn("x", "u"), node("Transpose", ["u"], ["s3"], perm=[2, 0, 1])]
    nodes.append(node("LSTM", ["s3", "w", "r"], ["", "y"], hidden_size=5))
    held = {"w": normal(1, 20, 4), "r": normal(1, 20, 5), **STATISTICS}
    assert same(make(nodes, [tensor("x", [2, 4, 3])], [ANY], held)) == 1
