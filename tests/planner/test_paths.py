"""A reason names what blocks in the graph's own terms, and the path to it where it is not next to the BatchNorm."""

import itertools

import pytest

from bnfold import inspect
from tests.builders import ANY, IMAGE, batch_norm, bn_node, make, node, positive, weights


def behind_sigmoid(*nodes, bn=None, **held):
    """Return Sigmoid → BatchNormalization → the given nodes, from ``b`` to ``y``: nothing takes it upstream."""
    held = {**held, **(positive("bn", 3) if bn is None else bn)}
    return make([node("Sigmoid", ["x"], ["s"], name="act"), bn_node("s", "b", "bn"), *nodes], [IMAGE], [ANY], held)


def pools(count, *, then):
    """Return so many pools in a row, and an operator behind them."""
    names = ["b", *(f"p{index}" for index in range(1, count + 1))]
    shape = {"kernel_shape": [1, 1]}
    rows = [node("MaxPool", [a], [b], name=b, **shape) for a, b in itertools.pairwise(names)]
    return [*rows, then(names[-1])]


def padded(value):
    return node("Conv", [value, "w"], ["y"], name="conv", pads=[1, 1, 1, 1])


def sides(model):
    (row,) = inspect(model).batch_norms
    return row.reason["previous"], row.reason["next"]


W = {"w": weights(1, 4, 3, 3, 3)}


@pytest.mark.parametrize(
    ("count", "path"),
    [
        (0, ""),
        (1, " (through MaxPool 'p1')"),
        (3, " (through MaxPool 'p1' → MaxPool 'p2' → MaxPool 'p3')"),
        (7, " (through MaxPool 'p1' → MaxPool 'p2' → 4 more → MaxPool 'p7')"),
    ],
)
def test_the_path_to_the_layer_that_pads(count, path):
    found = sides(behind_sigmoid(*pools(count, then=padded), **W))
    assert found == ("Sigmoid 'act' does not carry the transform", f"Conv 'conv' pads its input with zeros{path}")


def test_the_path_to_an_output_and_to_an_operator():
    _, behind = sides(behind_sigmoid(*pools(2, then=lambda value: node("Identity", [value], ["y"], name="last"))))
    assert behind == "'y' is an output of the model (through MaxPool 'p1' → MaxPool 'p2' → Identity 'last')"
    _, behind = sides(behind_sigmoid(*pools(1, then=lambda value: node("Erf", [value], ["y"], name="last"))))
    assert behind == "Erf 'last' does not carry the transform (through MaxPool 'p1')"


def test_the_other_consumer_needs_no_path():
    held = {"w": weights(1, 3, 3, 3, 3), **batch_norm("bn", 3)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["c"], ["g"], name="gate"),
        node("Mul", ["b", "g"], ["y"], name="gated"),
    ]
    found = sides(make(nodes, [IMAGE], [ANY], held))
    assert found == ("tensor 'c' is also used by Sigmoid 'gate'", "Mul 'gated' has two non-constant inputs")


def test_what_computes_a_weight_is_named():
    nodes = [node("Sigmoid", ["x"], ["k"], name="maker"), node("Conv", ["b", "k"], ["y"], name="conv")]
    _, behind = sides(behind_sigmoid(*nodes))
    assert behind == "'k' of Conv 'conv' is computed at run time by Sigmoid 'maker'"


def test_names_of_a_path_are_escaped():
    nodes = [node("MaxPool", ["b"], ["p"], name="a\x1b[31m\n'b", kernel_shape=[1, 1]), padded("p")]
    _, behind = sides(behind_sigmoid(*nodes, **W))
    assert "\x1b" not in behind and "\n" not in behind and "through MaxPool" in behind
