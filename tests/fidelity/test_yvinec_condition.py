"""The condition of Yvinec et al.: where it folds a BatchNorm, where not, and of two only one."""

from bnfold.frontends.onnx.graph import OnnxGraphs
from sample_models.build import batch_norm, bn_node
from tests.builders import make, node, tensor, weights
from tests.fidelity.yvinec_condition import compared


def counts(*nodes):
    """How many BatchNormalizations there are, how many the condition folds, and how many bnfold."""
    held = {"w": weights(1, 4, 4, 1, 1), **batch_norm("a", 4), **batch_norm("b", 4)}
    (graph,) = OnnxGraphs(make(list(nodes), [tensor("x", [1, 4, 3, 3])], [tensor("y", [1, 4, 3, 3])], held)).scopes
    return tuple(map(len, compared(graph)))


def test_a_layer_in_front_or_behind_takes_a_batch_norm():
    assert counts(node("Conv", ["x", "w"], ["c"]), bn_node("c", "n", "a"), node("Relu", ["n"], ["y"])) == (1, 1, 1)
    behind = [bn_node("r", "n", "a"), node("Conv", ["n", "w"], ["c"]), node("Relu", ["c"], ["y"])]
    assert counts(node("Relu", ["x"], ["r"]), *behind) == (1, 1, 1)


def test_between_activations_it_is_kept():
    assert counts(node("Tanh", ["x"], ["r"]), bn_node("r", "n", "a"), node("Tanh", ["n"], ["y"])) == (1, 0, 0)


def test_of_two_that_could_each_go_into_the_other_one_goes():
    nodes = [node("Tanh", ["x"], ["r"]), bn_node("r", "n", "a"), bn_node("n", "m", "b"), node("Tanh", ["m"], ["y"])]
    assert counts(*nodes) == (2, 1, 1)
