"""Every case of the table: folded as it must be, kept for the right reason, and computing the same."""

import cases_gauge  # noqa: F401 - registers its cases
import onnx
import pytest
from build import weights
from cases import CASES, behind_conv
from conftest import assert_same, feeds_for, fold_proto, run

from bnfold.planner.plan import Fold


def test_trailing_empty_outputs_are_absent():
    """onnxruntime crashes on such a model, so its twin without the empty names is the judge."""
    counterpart = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=9)
    model = type(counterpart).FromString(counterpart.SerializeToString())
    model.graph.node[1].output.extend(["", "", "", ""])
    folded, _ = fold_proto(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    feeds = feeds_for(counterpart)
    assert_same(run(counterpart, feeds), run(folded, feeds))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case):
    model = case.build()
    folded, plans = fold_proto(model, **case.options)
    outcomes = [outcome for plan in plans for op, outcome in plan.outcomes]
    kept = [outcome for outcome in outcomes if not isinstance(outcome, Fold)]
    assert sum(isinstance(outcome, Fold) for outcome in outcomes) == case.folds, kept
    assert tuple(outcome.reason for outcome in kept) == case.kept, kept
    onnx.checker.check_model(folded, full_check=True)
    if case.nodes is not None:
        assert len(folded.graph.node) == case.nodes
    if not case.folds:
        return
    assert [o.name for o in folded.graph.output] == [o.name for o in model.graph.output]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), case.ulps)
    again, more = fold_proto(folded, **case.options)
    assert not any(plan.folds for plan in more), "folding twice must change nothing more"
    assert again.SerializeToString() == folded.SerializeToString()
