"""Every case of the table with one thing changed: a constant that is computed, a value that somebody else sees.

What still folds must compute the same; conditions that a rule forgets show here, whichever rule it is.
"""

import cases_gauge  # noqa: F401 - registers its cases
import numpy as np
import onnx
import pytest
from cases import CASES
from conftest import assert_same, feeds_for, fold_proto, run
from onnx import ModelProto, helper, numpy_helper

pytest.importorskip("onnxruntime")

FOLDING = [case for case in CASES if case.folds and case.build().graph.node]


def copied(model):
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def runs(model, feeds):
    """The outputs, or None for a model that onnxruntime does not take."""
    try:
        return run(model, feeds)
    except Exception:  # not every variation makes sense
        return None


def judged(model, feeds, options, ulps):
    """1 if the variation folds and computes the same, 0 if it does not fold or can't be run."""
    expected = runs(model, feeds)
    if expected is None or not all(np.isfinite(array).all() for array in expected if array.dtype.kind == "f"):
        return 0
    folded, plans = fold_proto(model, **options)
    assert_same(expected, run(folded, feeds), 4 * ulps)
    return int(any(plan.folds for plan in plans))


@pytest.mark.parametrize("case", FOLDING, ids=lambda case: case.name)
def test_a_constant_that_is_fed(case):
    model = case.build()
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in listed:
            continue
        fed = copied(model)
        kept = [other for other in fed.graph.initializer if other.name != tensor.name]
        del fed.graph.initializer[:]
        fed.graph.initializer.extend(kept)
        fed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        feeds = {**feeds_for(fed), tensor.name: numpy_helper.to_array(tensor)}
        judged(fed, feeds, case.options, case.ulps)


@pytest.mark.parametrize("case", FOLDING, ids=lambda case: case.name)
def test_a_value_that_is_an_output_too(case):
    model = case.build()
    made = [name for node in model.graph.node for name in node.output if name]
    known = {info.name for info in model.graph.output}
    for name in made:
        if name not in known:
            seen = copied(model)
            seen.graph.output.append(onnx.ValueInfoProto(name=name))
            judged(seen, feeds_for(seen), case.options, case.ulps)


def test_variations_do_fold():
    """The two above would pass if nothing ever folded."""
    count = 0
    for case in FOLDING[:40]:
        model = case.build()
        for node in model.graph.node[:1]:
            seen = copied(model)
            seen.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
            count += judged(seen, feeds_for(seen), case.options, case.ulps)
    assert count > 3
