"""Shapes that a model computes: known where they follow from what is known, and where they matter."""

import numpy as np
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from tests.builders import ANY, STATISTICS, make, node, normal, parse, tensor
from tests.folding import fold_and_compare, fold_reasons

CONV = "(float[N, 3, 8, W] x) => (float[] y) {\n t = Conv (x, w)\n"
NORM = " y = BatchNormalization ({}, s, b, m, v)\n }}"
HELD = {"w": normal(4, 3, 1, 1), **STATISTICS}
INPUT = {"x": normal(2, 3, 8, 6)}

FOLDS = {
    "half the channels, by Shape and Div": (
        """n = Shape <start = 1, end = 2> (u)
        h = Div (n, two)
        z = Slice (u, zero, h, one)""",
        {"two": np.array([2]), "zero": np.array([0]), "one": np.array([1]), "w": normal(8, 3, 1, 1)},
    ),
    "a crop of positions of unknown size": (
        """n = Shape <start = 3, end = 4> (u)
        h = Div (n, two)
        z = Slice (u, zero, h, three)""",
        {"two": np.array([2]), "zero": np.array([0]), "three": np.array([3])},
    ),
    "a reshape to [N, 4, 1, -1]": (
        """n = Shape <start = 0, end = 1> (u)
        c = Shape <start = 1, end = 2> (u)
        c2 = Div (c, one)
        k = Concat <axis = 0> (n, c2, one, rest)
        z = Reshape (u, k)""",
        {"one": np.array([1]), "rest": np.array([-1])},
    ),
    "padding of positions by computed numbers": (
        """n = Shape <start = 2, end = 3> (u)
        h = Div (n, four)
        o = Sub (h, h)
        k = Concat <axis = 0> (o, o, h, h, o, o, h, o)
        z = Pad <mode = "edge"> (u, k)""",
        {"four": np.array([4])},
    ),
    "resizing to twice a computed size": (
        """n = Shape <start = 0, end = 2> (u)
        p = Shape <start = 2, end = 4> (u)
        q = Mul (p, two)
        k = Concat <axis = 0> (n, q)
        z = Resize (u, "", "", k)""",
        {"two": np.array([2])},
    ),
}


@pytest.mark.parametrize(("nodes", "held"), FOLDS.values(), ids=FOLDS)
def test_a_batch_norm_folds_through_computed_sizes(nodes, held):
    graph = CONV.replace("t =", "u =") + nodes + "\n" + NORM.format("z")
    assert fold_and_compare(parse(graph, {**HELD, **held}), INPUT) == 1


KEPT = {
    "channels cut at a size that is not known": (
        """n = Shape <start = 3, end = 4> (u)
        z = Slice (u, zero, n, one)""",
        {"zero": np.array([0]), "one": np.array([1]), "w": normal(8, 3, 1, 1)},
        ["dynamic-weights"],
        {"x": normal(2, 3, 8, 4)},
    ),
    "padding of channels by a size that is not known": (
        """n = Shape <start = 3, end = 4> (u)
        o = Sub (n, n)
        p = Mod (n, two)
        k = Concat <axis = 0> (o, p, o, o, o, p, o, o)
        z = Pad <mode = "edge"> (u, k)""",
        {"two": np.array([2])},
        ["channel-axis"],
        INPUT,
    ),
}


@pytest.mark.parametrize(("nodes", "held", "expected", "feeds"), KEPT.values(), ids=KEPT)
def test_a_batch_norm_is_kept_where_the_size_matters_and_is_not_known(nodes, held, expected, feeds):
    graph = CONV.replace("t =", "u =") + nodes + "\n" + NORM.format("z")
    model = parse(graph, {**HELD, **held})
    assert fold_reasons(model)[0] == expected
    assert fold_and_compare(model, feeds) == 0


def test_a_weight_is_cut_out_by_computed_bounds():
    """Its bounds depend on the shape of an activation whose batch is not known."""
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        n = Shape <start = 1, end = 2> (x)
        e = Add (n, one)
        w = Slice (table, one, e, zero)
        t = Conv (x, w)
        y = BatchNormalization (t, s, b, m, v)
    }"""
    held = {"table": normal(9, 3, 1, 1)[:9], "one": np.array([1]), "zero": np.array([0])}
    held |= {name: data[:3] for name, data in STATISTICS.items()}
    assert fold_and_compare(parse(graph, held)) == 1


def test_what_is_known_behind_a_computed_size_is_known_further_on():
    """The sum of two branches, one of them padded and cut again, has the channels of both."""
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        n = Shape <start = 2, end = 3> (x)
        h = Div (n, four)
        o = Sub (h, h)
        k = Concat <axis = 0> (o, o, h, h, o, o, h, h)
        q = Pad (x, k)
        t = Conv (q, w5)
        r = Relu (t)
        f = Conv (r, w4)
        g = Conv (x, w)
        a = Add (f, g)
        y = BatchNormalization (a, s, b, m, v)
    }"""
    held = {**HELD, "w5": normal(4, 3, 5, 5), "w4": normal(4, 4, 1, 1), "four": np.array([4])}
    assert fold_and_compare(parse(graph, held)) == 1


def test_a_size_that_a_loop_carries_is_not_known():
    graph = """(float[N, 4, 8, 8] x) => (float[] z) {
        c, z = Loop (n2, "", k0) <body = body (int64 i, bool go, int64[1] k) => (bool go2, int64[1] k2, float[] part) {
            go2 = Identity (go)
            k2 = Sub (k, one)
            cut = Slice (x, zero, k, one)
            t = Conv (cut, w1)
            part = ReduceMean <keepdims = 0> (t)
        }>
    }"""
    held = {
        "n2": np.array(2),
        "k0": np.array([4]),
        "one": np.array([1]),
        "zero": np.array([0]),
        "w1": normal(2, 4, 1, 1),
    }

    scope = OnnxGraphs(parse(graph, held)).scopes[1]
    (cut,) = (value for made in scope.nodes for value in made.live_outputs if value.name == "cut")
    assert cut.shape is not None
    assert not isinstance(cut.shape[1], int)


def test_contradicting_sizes_change_nothing():
    nodes = [
        node("Shape", ["x"], ["n"], start=1, end=2),
        node("Sub", ["n", "n"], ["o"]),
        node("Div", ["n", "o"], ["q"]),
        node("Concat", ["q", "q", "q", "q"], ["k"], axis=0),
        node("Reshape", ["x", "k"], ["z"]),
        node("BatchNormalization", ["z", "s", "b", "m", "v"], ["y"]),
    ]
    model = make(nodes, [tensor("x", ["N", 4, 8, 8])], [ANY], dict(STATISTICS))
    assert len(fold_reasons(model)[0]) == 1
