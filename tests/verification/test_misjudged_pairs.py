"""Pairs that were once judged wrong: different models called equivalent, right folds called different."""

import numpy as np
import onnx
import pytest
from onnx import helper

from bnfold.api import FoldOptions, fold
from bnfold.options import VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights

PROOFS = ("structure", "weights")


def verdict(tmp_path, before, after, checks=PROOFS):
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path, model in zip(paths, (before, after), strict=True):
        path.write_bytes(model.SerializeToString())
    return verify_files(*paths, VerifyOptions(checks))[0].verdict


def random(op, second, inputs):
    """The difference of two random values, or of one and itself."""
    attributes = {"shape": [3]} if op == "RandomNormal" else {}
    read = [] if op == "RandomNormal" else inputs
    nodes = [node(op, read, [name], name=name, **attributes) for name in ("r1", "r2")]
    held = {"ratio": np.array(0.5, "f4"), "yes": np.array(True)}
    held = held if op == "Dropout" else {}
    nodes.append(node("Sub", ["r1", second], ["d"]))
    nodes.append(node("Add", ["d", "x"], ["y"]))
    return make(nodes, [tensor("x", [3])], [tensor("y", [3])], held)


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniformLike", "Bernoulli", "Dropout"])
def test_two_random_values_are_not_one(op, tmp_path):
    inputs = ["x", "ratio", "yes"] if op == "Dropout" else ["x"]
    assert verdict(tmp_path, random(op, "r2", inputs), random(op, "r1", inputs)) != "equivalent"


def nested(op, opset, **attributes):
    """An operator inside an If."""
    body = helper.make_graph([node(op, ["x"], ["t"], **attributes)], "then", [], [tensor("t", None)])
    other = helper.make_graph([node("Identity", ["x"], ["e"])], "else", [], [tensor("e", None)])
    nodes = [node("If", ["c"], ["y"], then_branch=body, else_branch=other)]
    inputs = [tensor("x", [1, 4, 4, 1]), tensor("c", [], 9)]
    return make(nodes, inputs, [tensor("y", None)], {}, opset=opset, ir_version=9)


def test_an_operator_of_a_nested_graph_may_have_changed_with_its_opset(tmp_path):
    """DFT took another axis by default before opset 20."""
    assert verdict(tmp_path, nested("DFT", 19), nested("DFT", 20)) == "inconclusive"
    assert verdict(tmp_path, nested("Relu", 19), nested("Relu", 20)) == "equivalent"


def test_the_operators_of_another_domain_may_have_changed_with_its_version(tmp_path):
    def custom(version):
        nodes = [node("Foo", ["x"], ["y"], domain="zz")]
        graph = helper.make_graph(nodes, "g", [tensor("x", [3])], [tensor("y", [3])])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("zz", version)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    assert verdict(tmp_path, custom(1), custom(2)) == "inconclusive"
    assert verdict(tmp_path, custom(2), custom(2)) == "equivalent"


def test_texts_are_told_apart_byte_by_byte(tmp_path):
    def split(delimiter):
        nodes = [node("StringSplit", ["x"], ["y", "n"], delimiter=delimiter)]
        return make(nodes, [tensor("x", [3], 8)], [tensor("y", None, 8)], {}, opset=20, ir_version=9)

    assert verdict(tmp_path, split(b"\xff"), split(b"\xfe")) == "different"


@pytest.mark.parametrize("picked", [[0, 3], [1], [0, 1, 2, 3, 4]])
def test_a_fold_of_a_few_channels_is_right(picked, tmp_path):
    """What nobody reads keeps its weights: most of the layer is then as it was, and some of it is not."""
    held = {**batch_norm("bn", len(picked), 1), "w": weights(1, 5, 4, 1, 1), "i": np.array(picked)}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Gather", ["c", "i"], ["p"], axis=1), bn_node("p", "y", "bn")]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor("y", None)], held)
    path, out = tmp_path / "m.onnx", tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions())
    assert (result.inspection.kept, result.verification.verdict) == (0, "equivalent")


@pytest.mark.parametrize("branch", ["then", "else"])
def test_branches_may_each_have_a_weight_of_one_name(branch, tmp_path):
    def body(name, with_bn):
        nodes = [node("Conv", ["x", "w"], [f"{name}_c"])]
        nodes.append(bn_node(f"{name}_c", f"{name}_y", "bn") if with_bn else node("Relu", [f"{name}_c"], [f"{name}_y"]))
        held = [onnx.numpy_helper.from_array(weights(len(name) + with_bn, 3, 3, 1, 1), "w")]
        return helper.make_graph(nodes, name, [], [tensor(f"{name}_y", [1, 3, 4, 4])], held)

    bodies = {f"{name}_branch": body(name, name == branch) for name in ("then", "else")}
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("c", [], 9)]
    nodes = [node("If", ["c"], ["y"], **bodies)]
    model = make(nodes, inputs, [tensor("y", None)], batch_norm("bn", 3, 1))
    path, out = tmp_path / "m.onnx", tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions(verify=VerifyOptions(PROOFS)))
    assert (result.inspection.kept, result.verification.verdict) == (0, "equivalent")


def typed(op, data, outputs="y"):
    """An operator whose result depends on the type of a constant."""
    nodes = [node(op, ["x", *(["scale"] if op == "QuantizeLinear" else []), "k"], ["q"])]
    if op == "QuantizeLinear":
        nodes.append(node("DequantizeLinear", ["q", "scale", "k"], [outputs]))
    else:
        nodes.append(node("Cast", ["q"], [outputs], to=1))
    held = {"k": data, "scale": np.float32(0.05)}
    used = {name: held[name] for name in held if any(name in entry.input for entry in nodes)}
    return make(nodes, [tensor("x", [2, 3])], [tensor(outputs, [2, 3])], used)


@pytest.mark.parametrize(
    ("op", "one", "other"),
    [
        ("QuantizeLinear", np.uint8(0), np.int8(0)),
        ("CastLike", np.int64(0), np.int8(0)),
        ("CastLike", np.float16(0), np.float32(0)),
    ],
)
def test_equal_constants_of_other_types_are_others(op, one, other, tmp_path):
    assert verdict(tmp_path, typed(op, one), typed(op, other)) != "equivalent"
    assert verdict(tmp_path, typed(op, other), typed(op, one)) != "equivalent"
    assert verdict(tmp_path, typed(op, one), typed(op, one)) == "equivalent"


def calling(default, op="LeakyRelu", **given):
    """A function whose attribute has a default, called without or with it."""
    inner = node(op, ["a", *(["s", "b", "m", "v"] if op == "BatchNormalization" else [])], ["z"])
    name = "epsilon" if op == "BatchNormalization" else "alpha"
    inner.attribute.add(name=name, ref_attr_name="k", type=onnx.AttributeProto.FLOAT)
    reads = ["a", "s", "b", "m", "v"] if op == "BatchNormalization" else ["a"]
    body = helper.make_function("my", "f", reads, ["z"], [inner], [helper.make_opsetid("", 17)])
    body.attribute_proto.append(helper.make_attribute("k", default))
    held = {"w": weights(1, 3, 3, 1, 1), "s": np.ones(3, "f4"), "b": np.zeros(3, "f4"), "m": np.zeros(3, "f4")}
    held["v"] = np.float32([0.1, 0.2, 0.3])
    used = {name: data for name, data in held.items() if name in ("w", *reads)}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, 4, 4])], [tensor("y", [2, 3, 4, 4])], used, ir_version=10)
    model.graph.node[1].CopyFrom(node("f", ["c", *reads[1:]], ["y"], domain="my", **given))
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("my", 1))
    return model


def test_defaults_of_a_functions_attributes_count(tmp_path):
    assert verdict(tmp_path, calling(0.2), calling(0.5)) == "different"
    assert verdict(tmp_path, calling(0.2), calling(0.5, k=0.2)) == "equivalent"


@pytest.mark.parametrize("given", [{}, {"k": 0.25}])
def test_defaults_of_a_functions_attributes_are_folded(given, tmp_path):
    """An epsilon of a half, which only the function says."""
    path = tmp_path / "m.onnx"
    path.write_bytes(calling(0.5, "BatchNormalization", **given).SerializeToString())
    result = fold(path, tmp_path / "f.onnx", FoldOptions())
    assert (result.inspection.kept, result.verification.verdict) == (0, "equivalent")


@pytest.mark.parametrize("wrong", [1.02, 1.0005])
@pytest.mark.parametrize("name", ["mean", "scale"])
def test_a_narrow_input_does_not_blunt_the_proof(name, wrong, tmp_path):
    """Images in float16, everything else in float32."""

    def model(**factors):
        nodes = [
            node("Cast", ["x"], ["a"], to=1), node("Sub", ["a", "mean"], ["p"]), node("Mul", ["p", "scale"], ["q"]),
            node("Conv", ["q", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["y"]),
        ]  # fmt: skip
        held = {"mean": np.float32([0.485, 0.456, 0.406]), "scale": np.float32([4.4, 4.5, 4.3])}
        held = {key: (data * np.float32(factors.get(key, 1))).reshape(3, 1, 1) for key, data in held.items()}
        inputs = [tensor("x", [2, 3, 8, 8], onnx.TensorProto.FLOAT16)]
        return make(nodes, inputs, [tensor("y", None)], {**held, "w": weights(1, 4, 3, 3, 3)})

    assert verdict(tmp_path, model(), model()) == "equivalent"
    assert verdict(tmp_path, model(), model(**{name: wrong})) == "different"


def test_the_axis_of_one_hot_is_counted_in_its_output(tmp_path):
    def model(axis):
        nodes = [node("OneHot", ["i", "depth", "values"], ["y"], axis=axis)]
        held = {"depth": np.array(3), "values": np.float32([0, 1])}
        return make(nodes, [tensor("i", [2, 3], 7)], [tensor("y", None)], held)

    assert verdict(tmp_path, model(-1), model(1)) != "equivalent"
    assert verdict(tmp_path, model(2), model(2)) == "equivalent"


def test_one_huge_entry_of_a_table_hides_no_other(tmp_path):
    table = weights(3, 6, 4)
    table[0, 1] = -1e9
    other = table.copy()
    other[1:, 1] += 0.01

    def model(held):
        nodes = [node("Gather", ["t", "i"], ["e"]), node("Relu", ["e"], ["y"])]
        return make(nodes, [tensor("i", [3], 7)], [tensor("y", None)], {"t": held})

    assert verdict(tmp_path, model(table), model(other)) == "different"
    assert verdict(tmp_path, model(table), model(table)) == "equivalent"


@pytest.mark.parametrize("twice", ["Constant", "LeakyRelu"])
def test_an_attribute_that_is_given_twice_is_no_model(twice, tmp_path):
    from bnfold.errors import InputError

    first = node("Constant", [], ["k"], value_float=2.0) if twice == "Constant" else node("Relu", ["x"], ["k"])
    last = node("Mul", ["x", "k"], ["y"]) if twice == "Constant" else node("LeakyRelu", ["k"], ["y"], alpha=0.1)
    model = make([first, last], [tensor("x", [3])], [tensor("y", None)], {})
    holder = model.graph.node[0 if twice == "Constant" else 1]
    holder.attribute.append(helper.make_attribute("value_float" if twice == "Constant" else "alpha", 0.5))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="twice"):
        fold(path, tmp_path / "f.onnx")


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "HardSigmoid", "Relu", "LeakyRelu"])
def test_activations_that_onnxruntime_fuses_are_followed(op, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    nodes = [node("Conv", ["x", "w", "c0"], ["c"]), bn_node("c", "b", "bn"), node(op, ["b"], ["y"])]
    held = {"w": weights(1, 4, 3, 3, 3), "c0": weights(2, 4), **batch_norm("bn", 4, 1)}
    model = make(nodes, [tensor("x", [2, 3, 8, 8])], [tensor("y", None)], held)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert verdict(tmp_path, model, onnx.load(tmp_path / "optimized.onnx")) == "equivalent"


def test_an_attribute_that_is_no_number_is_itself(tmp_path):
    nodes = [node("Elu", ["x"], ["e"], alpha=float("nan")), node("Conv", ["e", "w"], ["c"]), bn_node("c", "y", "bn")]
    held = {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4, 1)}
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    assert verdict(tmp_path, model, model) == "equivalent"


def test_a_scale_that_moves_through_a_map_of_two_axes(tmp_path):
    """What a convolution takes for channels is another axis than the one that the Mul varies along."""
    nodes = [
        node("Mul", ["x", "k"], ["m"]), node("Transpose", ["m"], ["t"], perm=[0, 2, 3, 1]),
        node("Add", ["t", "s"], ["a"]), node("Conv", ["a", "w"], ["y"]),
    ]  # fmt: skip
    held = {"k": weights(1, 4, 1, 1) + 2, "s": weights(2, 6, 1, 4), "w": weights(3, 3, 6, 1, 1)}
    scale = np.linspace(0.5, 2, 6, dtype="f4")
    moved = {**held, "s": held["s"] * scale.reshape(6, 1, 1), "w": held["w"] / scale.reshape(6, 1, 1)}
    moved["k"] = held["k"] * scale.reshape(6, 1)
    first, second = (make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], each) for each in (held, moved))
    assert verdict(tmp_path, first, second) == "equivalent"
    wrong = {**moved, "k": moved["k"] * np.float32(1.001)}
    assert (
        verdict(tmp_path, first, make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], wrong)) != "equivalent"
    )
