"""Lists of sizes: computed as far as they are known, and no further."""

import numpy as np
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from tests.builders import make_unchecked, node, tensor

INT = np.int64


def entries(nodes, held, shape=("N", 64, 8, "W"), overridable=()):
    """Return what is known of ``k``, which ``nodes`` compute from ``x`` of this shape."""
    inputs = [tensor("x", list(shape)), *(tensor(name, held[name].shape, 7) for name in overridable)]
    model = make_unchecked([*nodes, node("Identity", ["x"], ["y"])], inputs, [tensor("y", None)], held)
    graphs = OnnxGraphs(model)
    (value,) = (value for made in graphs.scopes[0].nodes for value in made.live_outputs if value.name == "k")
    found = graphs.scopes[0].constants.entries(value)
    return graphs.scopes[0].constants.is_constant(value), None if found is None else found.tolist()


SHAPE = node("Shape", ["x"], ["s"])
ONE, TWO, THREE = (np.array(n) for n in (1, 2, 3))


def picked(index, name="c"):
    """Return the nodes that take one dimension out of the shape of ``x``, and their constant."""
    return [SHAPE, node("Gather", ["s", index], [name])]


@pytest.mark.parametrize(
    ("nodes", "held", "expected"),
    [
        ([node("Shape", ["x"], ["k"])], {}, ["N", 64, 8, "W"]),
        ([node("Shape", ["x"], ["k"], start=1, end=3)], {}, [64, 8]),
        ([SHAPE, node("Gather", ["s", "i"], ["k"])], {"i": ONE}, 64),
        ([SHAPE, node("Gather", ["s", "i"], ["k"])], {"i": np.array([0, -3])}, ["N", 64]),
        ([*picked("i"), node("Div", ["c", "d"], ["k"])], {"i": ONE, "d": THREE}, 21),
        ([*picked("i"), node("Mod", ["c", "d"], ["k"])], {"i": ONE, "d": THREE}, 1),
        ([*picked("i"), node("Sub", ["z", "c"], ["n"]), node("Div", ["n", "d"], ["k"])],
         {"i": ONE, "d": THREE, "z": np.array(0)}, -21),
        ([*picked("i"), node("Sub", ["z", "c"], ["n"]), node("Mod", ["n", "d"], ["k"])],
         {"i": ONE, "d": THREE, "z": np.array(0)}, None),  # which sign it has is an attribute's matter
        ([*picked("i"), node("Mul", ["c", "one"], ["k"])], {"i": np.array(0), "one": ONE}, "N"),
        ([*picked("i"), node("Mul", ["c", "d"], ["k"])], {"i": np.array(0), "d": TWO}, None),
        ([*picked("i"), node("Cast", ["c"], ["f"], to=1), node("Mul", ["f", "h"], ["g"]), node("Floor", ["g"], ["e"]),
          node("Cast", ["e"], ["k"], to=7)], {"i": np.array(2), "h": np.array(0.7, "f4")}, 5),
        ([SHAPE, node("Slice", ["s", "one", "three"], ["t"]), node("Concat", ["t", "one"], ["k"], axis=0)],
         {"one": np.array([1]), "three": np.array([3])}, [64, 8, 1]),
        ([SHAPE, node("Equal", ["s", "m"], ["e"]), node("Where", ["e", "o", "s"], ["k"])],
         {"m": np.array([-1]), "o": np.array([1])}, ["N", 64, 8, "W"]),
        ([SHAPE, node("Equal", ["s", "m"], ["e"]), node("Where", ["e", "o", "s"], ["k"])],
         {"m": np.array([64]), "o": np.array([1])}, [None, 1, 8, None]),  # N may be 64
        ([*picked("i"), node("Range", ["z", "c", "d"], ["k"])], {"i": np.array(2), "z": np.array(0), "d": THREE},
         [0, 3, 6]),
        ([*picked("i"), node("Range", ["z", "c", "d"], ["k"])], {"i": np.array(0), "z": np.array(0), "d": THREE}, None),
        ([SHAPE, node("ReduceProd", ["s"], ["k"], keepdims=0)], {}, None),
        ([node("Shape", ["x"], ["s"], start=1, end=3), node("ReduceProd", ["s"], ["k"], keepdims=0)], {}, 512),
        ([node("Shape", ["x"], ["s"], start=1, end=3), node("Cast", ["s"], ["k"], to=3)], {}, [64, 8]),
        ([node("Shape", ["x"], ["s"], start=1, end=2), node("Mul", ["s", "b"], ["m"]),
          node("Cast", ["m"], ["k"], to=6)], {"b": np.array([2**40])}, [None]),  # no int32 has it
    ],
)  # fmt: skip
def test_sizes_are_known_as_far_as_the_shape_is(nodes, held, expected):
    constant, found = entries(nodes, held)
    assert found == expected or (expected is None and found in (None, [None]))
    numbers = found if isinstance(found, list) else [found]
    if all(isinstance(number, int) for number in numbers):
        assert constant


def test_an_initializer_that_a_caller_may_override_gives_no_size():
    nodes = [SHAPE, node("Gather", ["s", "i"], ["k"])]
    assert entries(nodes, {"i": ONE}) == (True, 64)
    assert entries(nodes, {"i": ONE}, overridable=["i"]) == (False, None)


def test_lists_that_double_again_and_again_are_given_up():
    nodes = [node("Shape", ["x"], ["k0"])]
    nodes += [node("Concat", [f"k{place}"] * 2, [f"k{place + 1}"], axis=0) for place in range(40)]
    nodes[-1].output[0] = "k"
    assert entries(nodes, {}) == (False, None)


def test_long_chains_need_no_deep_stack():
    nodes = [node("Shape", ["x"], ["s"], start=1, end=2)]
    nodes += [node("Add", ["s" if not place else f"a{place}", "one"], [f"a{place + 1}"]) for place in range(5000)]
    nodes[-1].output[0] = "k"
    assert entries(nodes, {"one": np.array([1])}) == (True, [5064])
