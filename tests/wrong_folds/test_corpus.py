"""The corpus keeps its promises: every fault has a place, and is wrong there in the way that it says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.support import feeds_for
from tests.wrong_folds.arithmetic import Recipe, places, refold
from tests.wrong_folds.corpus import FAULTS, cases, network
from tests.wrong_folds.evaluate import run_double
from tests.wrong_folds.networks import NETWORKS, SHAPE

DTYPES = ("float32", "float16")
SCALES = (1, 1, 0.1, 10)
NOISE = 1e-12


def feeds():
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal(SHAPE) * scale} for scale in SCALES]


@pytest.fixture(scope="module")
def found():
    return list(cases(DTYPES))


@pytest.fixture(scope="module")
def expected():
    return {
        (name, dtype): [run_double(network(name, dtype)[1], one) for one in feeds()]
        for name in NETWORKS
        for dtype in DTYPES
    }


def where(case_id):
    return tuple(case_id.split("-")[1:])


def interface(model):
    return [(info.name, info.type.SerializeToString()) for info in (*model.graph.input, *model.graph.output)]


def differ(good, bad):
    """True if two runs' outputs differ by more than the order of sums explains."""
    for one, other in zip(good, bad, strict=True):
        if one.shape != other.shape or not np.isfinite(other).all():
            return True
        if np.abs(one - other).max() > NOISE * np.abs(one).max():
            return True
    return False


def refused_by_onnxruntime(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, feeds_for(model))
    except Exception:  # onnxruntime's exceptions have no common base
        return True
    return False


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_fold_without_a_mistake_is_the_correct_one(name, dtype):
    """Two implementations agree to the last bit, so what the faults change is the mistake alone."""
    for seed in range(3):
        original, correct = network(name, dtype, seed)
        found = places(original, correct)
        assert len(found) == len(original.graph.node) - len(correct.graph.node)
        again = refold(original, correct, {place.bn: Recipe() for place in found})
        assert again.SerializeToString() == correct.SerializeToString()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_every_time(name):
    assert NETWORKS[name](0, "float32").SerializeToString() == NETWORKS[name](0, "float32").SerializeToString()
    assert NETWORKS[name](1, "float32").SerializeToString() != NETWORKS[name](0, "float32").SerializeToString()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_evaluation_in_float64_is_right(name, dtype):
    """It agrees with onnxruntime on the network and on its fold, and the values are of a sane size."""
    for model in network(name, dtype):
        onnx.checker.check_model(model, full_check=True)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = feeds_for(model)
        for ours, theirs in zip(run_double(model, given), session.run(None, given), strict=True):
            assert 0.05 < np.abs(ours).max() < 100
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=20 * np.finfo(dtype).eps * np.abs(ours).max())


def test_every_fault_has_a_place(found):
    assert {fault.name for *_, fault in found} == set(FAULTS)
    assert len({case_id for case_id, *_ in found}) == len(found)


def test_faults_leave_the_models_that_they_are_given_alone():
    for name in NETWORKS:
        model, correct = network(name, "float32")
        before = model.SerializeToString(), correct.SerializeToString()
        for fault in FAULTS.values():
            fault(model, correct)
        assert before == (model.SerializeToString(), correct.SerializeToString())


def test_every_wrong_fold_has_other_bytes_and_is_a_model(found):
    for case_id, _, correct, wrong, fault in found:
        assert wrong.SerializeToString() != correct.SerializeToString(), case_id
        try:
            onnx.checker.check_model(wrong)
        except onnx.checker.ValidationError:
            assert not fault.valid, case_id
        else:
            assert fault.valid, case_id


def test_where_a_fault_is_benign_it_makes_no_case(found):
    made = {(fault.name, *where(case_id)) for case_id, *_, fault in found}
    for fault in FAULTS.values():
        for place in fault.where_benign:
            name, _, dtype = place.partition("/")
            assert not any((fault.name, name, one) in made for one in DTYPES if not dtype or one == dtype)


def test_the_interface_changes_where_a_fault_says_so(found):
    for case_id, _, correct, wrong, fault in found:
        assert (interface(correct) != interface(wrong)) == fault.interface, case_id


def test_what_does_not_run_does_not_run(found):
    for case_id, _, _, wrong, fault in found:
        if not fault.runs:
            assert refused_by_onnxruntime(wrong), case_id


def test_the_outputs_differ_unless_a_fault_is_silent(found, expected):
    for case_id, _, _, wrong, fault in found:
        if fault.interface or fault.silent or not fault.runs:
            continue
        pairs = zip(expected[where(case_id)], feeds(), strict=True)
        assert any(differ(good, run_double(wrong, one)) for good, one in pairs), case_id


def test_no_usual_input_shows_a_silent_fault(found, expected):
    for case_id, _, _, wrong, fault in found:
        for good, one, scale in zip(expected[where(case_id)], feeds(), SCALES, strict=True):
            if fault.silent and scale <= 1:
                assert not differ(good, run_double(wrong, one)), case_id
