"""Free dimensions are solved from the graph."""

from __future__ import annotations

import pytest

from bnfold.options import InputOptions
from bnfold.verification.onnx.inputs import misfit, size_choices
from bnfold.verification.runtime.inputs import Sizes
from sample_models.build import ANY, make, node, tensor, weights


def dense(side: int, op: str):
    """A convolution without padding, flattened into a product that takes one size alone."""
    inner = 2 * (side - 2) ** 2
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Flatten", ["c"], ["f"]), node(op, ["f", "v"], ["y"])]
    held = {"w": weights(1, 2, 3, 3, 3), "v": weights(2, inner, 4)}
    return make(nodes, [tensor("x", ["N", 3, "H", "W"])], [ANY], held)


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@pytest.mark.parametrize("side", [5, 29, 32, 97, 231])
def test_the_size_that_a_product_needs_is_found(side, op):
    assert next(size_choices(InputOptions(), dense(side, op))).others[0] == side


def test_a_reshape_to_written_sizes_is_solved():
    nodes = [node("Reshape", ["x", "to"], ["r"]), node("Relu", ["r"], ["y"])]
    held = {"to": __import__("numpy").array([1, 3 * 19 * 19])}
    model = make(nodes, [tensor("x", ["N", 3, "H", "W"])], [ANY], held)
    assert next(size_choices(InputOptions(), model)).others[0] == 19


def test_nothing_is_asked_of_declared_shapes():
    model = make([node("Relu", ["x"], ["y"])], [tensor("x", [2, 3])], [ANY], {})
    assert list(size_choices(InputOptions(), model)) == [Sizes()]


def test_signs_say_which_way_to_go():
    model = dense(29, "Gemm")
    assert [misfit(model, {"x": (1, 3, side, side)}) for side in (28, 29, 30)] == [-1, 0, 1]
    assert misfit(model, {"x": (1, 3, 2, 2)}) == -1
