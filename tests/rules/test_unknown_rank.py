"""What each operator passes on where the rank of its input is unknown."""

import numpy as np
import pytest

from tests.builders import make, node, tensor, weights
from tests.folding import assert_equivalent, feeds_for, fold_proto

UNKNOWN = {
    "Transpose": node("Transpose", ["r"], ["d"]),
    "Transpose of two": node("Transpose", ["r"], ["d"], perm=[1, 0]),
    "Flatten": node("Flatten", ["r"], ["d"]),
    "Reshape": node("Reshape", ["r", "two"], ["d"]),
    "Squeeze": node("Squeeze", ["r"], ["d"]),
    "Expand": node("Expand", ["r", "two"], ["d"]),
    "Gather": node("Gather", ["r", "one"], ["d"]),
    "Slice": node("Slice", ["r", "one", "three"], ["d"]),
    "Concat": node("Concat", ["r", "r"], ["d"], axis=0),
    "Split": node("Split", ["r"], ["d", "e"], axis=1),
    "ReduceMean": node("ReduceMean", ["r"], ["d"], axes=[1]),
    "ReduceSum": node("ReduceSum", ["r", "one"], ["d"]),
    "ReduceMax": node("ReduceMax", ["r"], ["d"]),
    "Pad": node("Pad", ["r", "pads"], ["d"]),
    "Resize": node("Resize", ["r", "", "scales"], ["d"], mode="nearest"),
    "Add": node("Add", ["r", "r"], ["d"]),
    "Mul": node("Mul", ["r", "k"], ["d"]),
    "MatMul": node("MatMul", ["r", "w2"], ["d"]),
    "Relu": node("Relu", ["r"], ["d"]),
    "Softmax": node("Softmax", ["r"], ["d"]),
}


KEPT = {"Concat", "MatMul", "ReduceMax", "ReduceMean", "ReduceSum", "Slice", "Softmax", "Split"}


@pytest.mark.parametrize("between", UNKNOWN)
def test_what_an_operator_passes_where_the_rank_is_unknown(between):
    """A scalar passes what does not depend on positions; the rest reports the unknown rank."""
    held = {"w": weights(1, 4, 3, 1, 1), "w2": weights(2, 16, 5), "k": np.array(0.5, "f4"), "m": np.array(2.0, "f4")}
    held |= {"one": np.array([1], "i8"), "two": np.array([8, 8], "i8"), "pads": np.array([0, 1, 0, 1], "i8")}
    held |= {"three": np.array([3], "i8")}
    held["scales"] = np.array([1, 2], "f4")
    if between == "Expand":
        held["two"] = np.array([4, 16], "i8")
    held = {name: data for name, data in held.items() if name in {"w", "m", *UNKNOWN[between].input}}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Reshape", ["c", "shape"], ["r"]),
        UNKNOWN[between],
        node("Mul", ["d", "m"], ["e2"]),
        node("Sigmoid", ["e2"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("shape", [None], 7)]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert_equivalent(model, folded, 512.0, {**feeds_for(model), "shape": np.array([4, 16], "i8")})
    assert bool(plan.folds) is (between not in KEPT)
    if between in KEPT:
        assert {outcome.reason for _, outcome in plan.outcomes} <= {"unknown-shape", "dynamic-weights", "nonlinear"}
