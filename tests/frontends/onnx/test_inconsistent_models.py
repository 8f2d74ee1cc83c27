"""Models whose parts contradict each other, or stand in unusual places: what structural fuzzing found."""

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnfold.api import FoldOptions, fold, inspect, verify
from bnfold.errors import InputError
from bnfold.options import VerifyOptions
from sample_models.build import batch_norm, bn_node, node, tensor, weights
from tests.support import assert_same, feeds_for, fold_proto, run

STATIC = VerifyOptions(checks=("structure", "weights"))

BATCH_NORM = ("scale", "bias", "mean", "var")

HELD = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 4, 1, 1), "v": weights(2, 4, 4, 1, 1)}


def make(nodes, inputs, outputs, held, opset=17):
    """A model as it is, without a look at whether its parts fit."""
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in held.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def between(*nodes, held=None, opset=17, shape=(2, 4, 6, 6)):
    """A convolution and a BatchNorm around operators that read ``c`` and make ``d``."""
    chain = [
        node("Conv", ["x", "w"], ["c"]),
        *nodes,
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    return make(chain, [tensor("x", shape)], [tensor("y", None)], {**HELD, **(held or {})}, opset=opset)


def reasons(model):
    """Why each BatchNorm stays; None for one that goes."""
    return [row.reason["code"] if row.reason else None for row in inspect(model).rows]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (node("Relu", ["c"], ["other", "d"]), "'other': Relu can't have 2 outputs"),
        (node("Relu", ["c", "c"], ["d"]), "'d': Relu can't have 2 inputs"),
        (node("Identity", ["c", ""], ["d"]), "'d': Identity can't have 2 inputs"),
        (node("Relu", [], ["d"]), "'d': Relu lacks its input 0"),
        (node("MaxPool", ["c"], ["", "d"], kernel_shape=[1, 1]), "'d': MaxPool lacks its output 0"),
        (node("Transpose", ["c"], [], name="t"), "'t': Transpose lacks its output 0"),
        (node("Concat", [], ["d"], axis=1), "'d': Concat can't have 0 inputs"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_inputs_and_outputs_that_an_operator_does_not_have(odd, said):
    """onnxruntime refuses them too."""
    model = between(odd) if "d" in odd.output else between(odd, node("Relu", ["c"], ["d"]))
    with pytest.raises(InputError, match="node " + said):
        inspect(model)
    with pytest.raises(Exception, match="INVALID_GRAPH"):
        run(model, feeds_for(model))


@pytest.mark.parametrize("op", ["Relu", "Neg", "PRelu", "InstanceNormalization", "Transpose"])
def test_an_opset_that_nobody_knows_yet_may_give_an_operator_more_inputs(op):
    """It is read as the newest one; a map on what is new stops there."""
    held = {"slope": np.full((4, 1, 1), 0.5, "f4"), "g": weights(3, 4), "h": weights(4, 4)}
    own = {"PRelu": ["slope"], "InstanceNormalization": ["g", "h"]}.get(op, [])
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node(op, ["x", *own, "b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], {**HELD, **held}, opset=999)
    ((_, kept),) = fold_proto(model)[1][0].outcomes
    assert f"{op} 'y' reads the value as a parameter" in kept.detail


@pytest.mark.parametrize(
    ("newer", "since"),
    [
        (node("Resize", ["c", "scales"], ["d"], mode="nearest"), 10),
        (node("Expand", ["c", "shape"], ["d"]), 8),
    ],
    ids=["Resize", "Expand"],
)
def test_an_operator_is_unknown_to_the_opsets_before_it(newer, since):
    held = {"scales": np.ones(4, "f4"), "shape": np.array([1])}
    assert reasons(between(newer, held=held, opset=since)) == [None]
    assert reasons(between(newer, held=held, opset=since - 1)) == ["unknown-op"]


def test_an_operator_of_torch_is_unknown_in_a_file():
    """Linear has a rule, and is no operator of ONNX."""
    model = between(node("Linear", ["c", "l"], ["d"]), held={"l": weights(3, 6, 6)})
    assert reasons(model) == ["unknown-op"]


@pytest.mark.parametrize(
    ("axes", "reason"), [([2], None), ([3], None), ([4], "unknown-shape"), ([2, 3], "unknown-shape")]
)
def test_a_rule_may_meet_axes_that_are_not_there(axes, reason):
    resize = node("Resize", ["c", "", "scales"], ["d"], axes=axes)
    assert reasons(between(resize, held={"scales": np.full(1, 2.0, "f4")}, opset=18)) == [reason]


def test_indices_that_are_no_integers():
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Gather", ["b", "indices"], ["g"], axis=1),
        node("Conv", ["g", "w"], ["y"]),
    ]
    for kind, reason in (("i8", None), ("f4", "unknown-shape")):
        held = {**HELD, "indices": np.arange(4).astype(kind)}
        assert reasons(make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], held)) == [reason]


def test_two_batch_norms_over_different_numbers_of_channels():
    """Nobody reads them, and for nodes in this order onnx infers no shapes: nobody else says how many there are."""
    held = {**batch_norm("three", 3, 1), **batch_norm("six", 6, 2), "k": weights(1, 3, 3, 1, 1)}
    nodes = [
        node("AveragePool", ["a"], ["p"], kernel_shape=[2, 2]),
        node("Concat", ["x", "x"], ["c"], axis=1),
        bn_node("p", "dead", "three"),
        bn_node("c", "a", "six"),
        node("Conv", ["x", "k"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 3, 6, 6])], [tensor("y", None)], held)
    assert set(reasons(model)) <= {None, "unknown-shape"}


HUGE = 2**31
SPREAD = {
    "Slice": [node("Slice", ["b", "from", "to", "on"], ["y"])],
    "Slice of channels": [node("Slice", ["b", "from", "to", "one"], ["y"])],
    "Concat": [node("Concat", ["b", "x"], ["y"], axis=2)],
    "Concat of channels": [node("Concat", ["b", "x"], ["y"], axis=1)],
    "Split": [node("Split", ["b", "halves"], ["s", "t"], axis=1), node("Neg", ["s"], ["y"])],
    "SpaceToDepth": [node("SpaceToDepth", ["b"], ["y"], blocksize=HUGE // 4)],
    "DepthToSpace": [node("DepthToSpace", ["b"], ["y"], blocksize=HUGE // 4)],
    "Gather": [node("Gather", ["b", "to"], ["y"], axis=2)],
    "Reshape": [node("Reshape", ["b", "flat"], ["y"])],
    "Expand": [node("Expand", ["b", "long"], ["y"])],
}


@pytest.mark.parametrize("shape", [(1, 4, HUGE, 3), (1, HUGE, 4, 3)], ids=["positions", "channels"])
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("behind", [False, True])
def test_axes_of_any_size_are_declared_by_a_few_bytes(kind, shape, behind):
    """Planning takes next to no memory all the same."""
    held = {
        **HELD, "from": np.array([0]), "to": np.array([HUGE - 1]), "on": np.array([2]), "one": np.array([1]),
        "halves": np.array([HUGE // 2, HUGE // 2]), "flat": np.array([0, -1]), "long": np.array([HUGE, 1, 1, 1]),
    }  # fmt: skip
    if behind:
        operators = [onnx.NodeProto.FromString(made.SerializeToString()) for made in SPREAD[kind]]
        operators[0].input[0], operators[-1].output[0] = "x", "b"
        nodes = [*operators, bn_node("b", "y", "bn")]
    else:
        nodes = [bn_node("x", "b", "bn"), *SPREAD[kind]]
    source = [node("Sigmoid", ["data"], ["x"])]
    model = make([*source, *nodes], [tensor("data", shape)], [tensor("y", None)], held)
    tracemalloc.start()
    inspect(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**28


PARAMETERS = {
    "scale": node("InstanceNormalization", ["image", "part", "bias"], ["y"]),
    "ratio": node("Dropout", ["image", "part"], ["y"]),
    "value": node("Pad", ["image", "pads", "part"], ["y"], mode="edge"),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_map_stops_where_its_value_is_a_parameter(kind):
    """Valid models, in which a value between layers says how another operator works."""
    shape = [1] if kind == "scale" else []
    held = {"shape": np.array(shape, "i8"), "bias": weights(4, 1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    held |= {
        f"bn_{part}": np.full(1, number, "f4") for part, number in zip(BATCH_NORM, (0.2, 0.3, 0.0, 1.0), strict=True)
    }
    part = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Reshape", ["b", "shape"], ["part"])]
    inputs = [tensor("x", [1, 1, 1, 1]), tensor("image", [2, 1, 6, 6])]
    model = make([*part, PARAMETERS[kind]], inputs, [tensor("y", None)], held)
    run(model, feeds_for(model))
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    assert folded == model
    ((_, kept),) = plan.outcomes
    assert f"{PARAMETERS[kind].op_type} 'y'" in kept.detail


def test_nodes_of_any_order_with_nested_graphs():
    """What a subgraph reads from around it has to be defined before it, as what a node reads."""
    body = helper.make_graph([node("Neg", ["a"], ["n"])], "body", [], [helper.make_empty_tensor_value_info("n")])
    nodes = [
        node("If", ["yes"], ["i"], then_branch=body, else_branch=body),
        bn_node("i", "b", "bn"),
        node("Conv", ["b", "v"], ["y"]),
        node("Transpose", ["x"], ["a"], perm=[0, 1, 3, 2]),
    ]
    held = {**HELD, "yes": np.array(True)}
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", [2, 4, 6, 6])], held)
    feeds = feeds_for(model)
    folded, (plan, *_) = fold_proto(model)
    assert plan.folds
    assert_same(run(model, feeds), run(folded, feeds))
    assert fold(model, options=FoldOptions(verify=STATIC)).verification.verdict == "equivalent"


def test_nodes_that_read_each_other_through_a_nested_graph():
    body = helper.make_graph([node("Neg", ["b"], ["n"])], "body", [], [helper.make_empty_tensor_value_info("n")])
    nodes = [node("If", ["yes"], ["i"], then_branch=body, else_branch=body), bn_node("i", "b", "bn")]
    model = make(nodes, [tensor("x", [2, 4])], [tensor("b", [2, 4])], {**HELD, "yes": np.array(True)})
    with pytest.raises(InputError, match="form a cycle"):
        inspect(model)


@pytest.mark.parametrize("default", [False, True], ids=["input", "input with a default"])
def test_an_input_stays_an_input_though_nobody_reads_it_any_more(default):
    """A dead end goes with the BatchNorm at its end; what callers feed stays."""
    nodes = [
        node("Mul", ["unused", "two"], ["m"]),
        bn_node("m", "dead", "bn"),
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "y", "other"),
    ]
    held = {**HELD, **batch_norm("other", 4, 2), "two": np.array(2.0, "f4")}
    if default:
        held["unused"] = weights(5, 1, 4, 6, 6)
    inputs = [tensor("x", [1, 4, 6, 6]), tensor("unused", [1, 4, 6, 6])]
    model = make(nodes, inputs, [tensor("y", [1, 4, 6, 6])], held)
    folded, _ = fold_proto(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert [info.name for info in folded.graph.input] == ["x", "unused"]
    feeds = feeds_for(model)
    feeds["unused"] = weights(6, 1, 4, 6, 6)
    assert_same(run(model, feeds), run(folded, feeds))


def test_a_layer_that_went_with_a_dead_end_needs_no_counterpart(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "y", "bn"),
        node("Conv", ["x", "v"], ["lost"]),
        bn_node("lost", "dead", "other"),
    ]
    held = {**HELD, **batch_norm("other", 4, 2)}
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", [2, 4, 6, 6])], held)
    onnx.save(model, tmp_path / "model.onnx")
    fold(tmp_path / "model.onnx", tmp_path / "folded.onnx", FoldOptions(verify=STATIC))
    found = verify(tmp_path / "model.onnx", tmp_path / "folded.onnx", STATIC).verification
    assert found.verdict == "equivalent"
    assert found.origin == "bnfold"


def test_groups_that_a_weight_can_t_have_take_no_memory():
    nodes = [node("Conv", ["x", "w"], ["c"], group=2**40), bn_node("c", "b", "bn"), node("Relu", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], HELD)
    assert reasons(model) == ["unknown-shape"]


def test_groups_are_looked_at_by_the_verification_too(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"], group=2**40),
        node("Conv", ["x", "w"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Add", ["b", "c"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", None)], HELD)
    onnx.save(model, tmp_path / "model.onnx")
    result = fold(tmp_path / "model.onnx", options=FoldOptions(verify=STATIC))
    assert [row.status for row in result.inspection.rows] == ["folded"]
    assert {check.verdict for check in result.verification.checks if check.check in STATIC.checks} == {"pass"}


def test_a_split_whose_first_part_nobody_names(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "b", "bn"),
        node("Split", ["b"], ["", "y"], axis=1),
    ]
    model = make(nodes, [tensor("x", [2, 4, 6, 6])], [tensor("y", [2, 2, 6, 6])], HELD, opset=13)
    onnx.save(model, tmp_path / "model.onnx")
    result = fold(tmp_path / "model.onnx", options=FoldOptions(verify=STATIC))
    assert [row.status for row in result.inspection.rows] == ["folded"]
    found = verify(tmp_path / "model.onnx", result.output.path, STATIC)
    assert {check.verdict for check in found.verification.checks if check.check in STATIC.checks} == {"pass"}
