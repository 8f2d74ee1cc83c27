"""torch.split as its exporter writes it: parts of a sequence are read as Slices, where nothing else can see it."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.api import fold
from sample_models.build import batch_norm, bn_node
from tests.builders import make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto, reasons

C = 6


def network(sizes, places=(0, 1), *, axis=1, more=(), inputs=(), outputs=(), behind=False):
    """A Conv and a BatchNorm, whose channels are split; or a BatchNorm behind the parts, which are convolved."""
    sizes = np.asarray(sizes, np.int64)
    held = {"w": weights(1, C, 3, 1, 1), "sizes": sizes, "u": weights(2, 4, 2, 1, 1), "v": weights(3, 4, 4, 1, 1)}
    held |= {f"at{k}": np.asarray(place, np.int64) for k, place in enumerate(places)} | batch_norm("bn", C)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["g"])]
    if behind:
        nodes.append(bn_node("g", "n", "bn"))
    nodes += [node("SplitToSequence", ["n" if behind else "g", "sizes"], ["s"], axis=axis, name="split")]
    nodes += [node("SequenceAt", ["s", f"at{k}"], [f"p{k}"], name=f"at{k}") for k in range(2)]
    nodes += [node("Conv", ["p0", "u"], ["d"]), node("Conv", ["p1", "v"], ["e"])]
    if behind:
        nodes += [node("Sigmoid", ["d"], ["y"]), node("Sigmoid", ["e"], ["z"])]
    else:
        held |= batch_norm("bn", 8)
        nodes += [node("Concat", ["d", "e"], ["t"], axis=1), bn_node("t", "y", "bn")]
    ends = [tensor("y", [1, None, 4, 4])] + ([tensor("z", [1, None, 4, 4])] if behind else [])
    return make([*nodes, *more], [tensor("x", [1, 3, 4, 4]), *inputs], [*ends, *outputs], held, opset=17, ir_version=8)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("places", [(0, 1), (-2, -1)])
def test_parts_of_known_sizes_are_slices(places, behind, tmp_path):
    model = network([2, 4], places, behind=behind)
    folded, (plan,) = fold_proto(model)
    assert [fold.op.form for fold in plan.folds] == ["BatchNormalization"], plan.outcomes
    assert [n.op_type for n in folded.graph.node if n.op_type in ("SplitToSequence", "SequenceAt")] == [
        "SplitToSequence",
        "SequenceAt",
        "SequenceAt",
    ]
    assert_equivalent(model, folded, 64.0)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert fold(tmp_path / "m.onnx", tmp_path / "f.onnx").verification.verdict == "equivalent"


def test_parts_of_one_size_are_slices():
    """The last one may be smaller."""
    model = network(4, (1, 0), behind=True)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 64.0)


def test_a_sequence_that_something_else_needs_stays_one():
    more = [node("SequenceLength", ["s"], ["count"])]
    model = network([2, 4], behind=True, more=more, outputs=[tensor("count", [], 7)])
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["nonlinear"]
    assert_equivalent(model, folded, 64.0)


@pytest.mark.parametrize("name", ["sizes", "at1"])
def test_sizes_and_positions_that_a_caller_gives_are_not_known(name):
    shape = [2] if name == "sizes" else []
    model = network([2, 4], behind=True, inputs=[tensor(name, shape, 7)])
    _, (plan,) = fold_proto(model)
    assert not plan.folds


def test_positions_beyond_the_parts_are_left_to_the_runtime():
    _, (plan,) = fold_proto(network([2, 4], (0, 2), behind=True))
    assert not plan.folds
