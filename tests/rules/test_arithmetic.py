"""What Add, Sub, Mul and Div with a constant have in common, also before opset 7."""

import numpy as np
import onnx
import pytest

from bnfold.errors import InputError
from bnfold.planner.plan import Fold
from tests.builders import CONSTANT, chain, node, of_opset
from tests.folding import assert_equivalent, assert_same, feeds_for, fold_proto, run


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [False, True])
def test_arithmetic_between_a_layer_and_its_batch_norm(op, first):
    """With scale and offset behind it; only a constant divided by the tensor is no affine transform."""
    model = chain(node(op, ["k", "c"] if first else ["c", "k"], ["d"], name="op"), held={"k": CONSTANT})
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is not (op == "Div" and first)
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize(
    ("shape", "attributes", "folds"),
    [
        ((4,), {"broadcast": 1, "axis": 1}, True),
        ((4,), {"broadcast": 1, "axis": -3}, True),
        ((4, 1), {"broadcast": 1, "axis": 1}, True),
        ((4, 1, 1), {"broadcast": 1}, True),
        ((1,), {"broadcast": 1}, True),
        ((1, 4, 1, 1), {"broadcast": 1, "axis": 0}, True),
        ((1, 4, 4, 4), {}, True),
        ((1, 4, 4, 4), {"axis": 1}, True),  # without effect where nothing is broadcast
        ((4, 1, 1), {}, False),
        ((1, 1), {}, False),
        ((4,), {"broadcast": 1}, False),
        ((4,), {"broadcast": 1, "axis": 3}, False),
        ((4,), {"broadcast": 1, "axis": 4}, False),
        ((4,), {}, False),
    ],
)
def test_broadcasting_before_opset_7(op, shape, attributes, folds):
    """Compare after onnx's own conversion to a newer opset; a vector along the width is not per channel."""
    from onnx import version_converter

    constant = np.resize(np.array([0.5, -1.0, 2.0, 0.25], "f4").repeat(max(1, np.prod(shape) // 4)), shape)
    model = chain(node(op, ["c", "k"], ["d"], name="op", **attributes), held={"k": constant})
    model = of_opset(model, 6)
    try:
        folded, (plan,) = fold_proto(model)
    except InputError:
        assert not folds
        return
    bn = [outcome for op_, outcome in plan.outcomes if op_.form == "BatchNormalization"]
    assert all(isinstance(outcome, Fold) for outcome in bn) is folds or op in ("Add", "Sub")
    try:
        newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
        expected = run(newer[0], feeds_for(model))
    except Exception:  # the converter or onnxruntime refuses the invalid ones
        return
    assert_same(expected, run(newer[1], feeds_for(model)), 512.0)


@pytest.mark.parametrize("opset", [6, 7])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(1,), (4, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("same", [False, True])
def test_a_constant_grows_only_since_opset_7(opset, op, shape, same):
    """A scalar can't become one number per channel where an attribute says how it is broadcast."""
    from onnx import version_converter

    constant = np.array([0.5, -1.0, 2.0, 0.25], "f4")[: int(np.prod(shape))].reshape(shape)
    broadcast = {"broadcast": 1} if opset < 7 else {}
    model = chain(node(op, ["c", "k"], ["d"], **broadcast), held={"k": constant}, gains=[1.5] * 4)
    if same:  # one transform for all channels
        for tensor_ in model.graph.initializer:
            if tensor_.name.startswith("bn_"):
                tensor_.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 0.75, "f4"), tensor_.name))
    model = of_opset(model, opset)
    folded, (plan,) = fold_proto(model, scales=False)
    outcome = next(outcome for op_, outcome in plan.outcomes if op_.form == "BatchNormalization")
    fits = same or shape == (4, 1, 1) or opset == 7
    fits &= op in ("Add", "Sub") or shape != (1, 1, 4)  # the offset would differ by column
    assert isinstance(outcome, Fold) is fits, outcome
    newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
    assert_same(run(newer[0], feeds_for(model)), run(newer[1], feeds_for(model)), 512.0)


@pytest.mark.parametrize("axis", [-1, 3])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_the_axis_before_opset_7_counts_from_either_end(op, axis):
    """A constant along the width, which a scale that is the same everywhere passes."""
    from onnx import version_converter

    k = np.array([0.5, -1.0, 2.0, 0.25], "f4")
    model = chain(node(op, ["c", "k"], ["d"], broadcast=1, axis=axis), held={"k": k})
    for tensor_ in model.graph.initializer:
        if tensor_.name.startswith("bn_"):
            data = np.full(4, 0.0 if tensor_.name in ("bn_mean", "bn_bias") else 1.5, "f4")
            tensor_.CopyFrom(onnx.numpy_helper.from_array(data, tensor_.name))
    model = of_opset(model, 6)
    folded, (plan,) = fold_proto(model, scales=False)
    assert [fold.op.form for fold in plan.folds] == ["BatchNormalization"], plan.outcomes
    if axis < 0:  # which the converter does not support
        return
    newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
    assert_same(run(newer[0], feeds_for(model)), run(newer[1], feeds_for(model)), 512.0)
