"""A few seconds of each kind of fuzzing on every run; hypothesis shrinks what it finds among the random networks."""

import collections
import random

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from bnfold.api import FoldOptions, fold
from bnfold.options import VerifyOptions
from tests.folding import assert_equivalent
from tests.fuzz import branch_fuzz, byte_fuzz, fold_fuzz, structural_fuzz, verifier_fuzz


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_networks_compute_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("network")
    fold_fuzz.check(lambda limit: data.draw(st.integers(0, limit - 1)), folder, metamorphic=False)


@pytest.mark.parametrize("seed", range(40))
def test_variants_of_a_network_fold_alike(tmp_path, seed):
    fold_fuzz.check(random.Random(seed).randrange, tmp_path, metamorphic=True)


def test_random_branches_merge_to_the_same(tmp_path):
    convolutions = [0, 0]
    for seed in range(16):
        model = branch_fuzz.Branches(seed).model()
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        options = FoldOptions(merge=True, verify=VerifyOptions(("structure", "weights")))
        result = fold(tmp_path / "m.onnx", tmp_path / "out.onnx", options, force=True)
        assert result.verdict in ("equivalent", "unchanged"), seed
        folded = onnx.load(tmp_path / "out.onnx")
        assert_equivalent(model, folded, 4096.0)
        for place, one in enumerate((model, folded)):
            convolutions[place] += sum(node.op_type == "Conv" for node in one.graph.node)
    assert convolutions[1] < 0.9 * convolutions[0]


def test_random_contradictions_end_with_a_line_or_a_right_fold(tmp_path):
    found = collections.Counter()
    for seed in range(150):
        outcome, _ = structural_fuzz.check(random.Random(seed).randrange, tmp_path)
        found[outcome] += 1
    assert found["exit code 4"] > 30
    assert found["equal"] > 12
    assert found["kept"] > 12


def test_what_passes_computes_the_same(tmp_path):
    found = collections.Counter()
    for seed in range(120):
        found.update(verifier_fuzz.check(random.Random(seed).randrange, tmp_path))
    assert found["folded: pass"] > 110
    assert not found["folded: fail"]
    assert found["changed: fail"] > 50
    assert found["changed: pass, the same"] > 5


def test_a_wrong_fold_is_found(tmp_path, monkeypatch):
    from dataclasses import replace

    from bnfold.rules import conv

    real = conv.fold_linear

    def wrong(*arguments):
        new, offset = real(*arguments)
        return replace(new, gain=new.gain * 1.01), offset

    monkeypatch.setattr(conv, "fold_linear", wrong)
    found = 0
    for seed in range(60):
        try:
            fold_fuzz.check(random.Random(seed).randrange, tmp_path, metamorphic=False)
        except AssertionError:
            found += 1
    assert found > 1


def test_damaged_files_end_with_a_line(tmp_path, samples):
    rng, found = random.Random(0), collections.Counter()
    models = [path.read_bytes() for path in sorted(samples.glob("*.onnx")) if path.stat().st_size < byte_fuzz.SMALL]
    for data in models[:4]:
        for length in range(0, len(data), 7):
            byte_fuzz.attempt(data[:length], tmp_path / "model.onnx", found)
    for _ in range(400):
        byte_fuzz.attempt(byte_fuzz.damaged(rng.choice(models), rng), tmp_path / "model.onnx", found)
    assert not {"TRACEBACK", "SLOW", "NOT ONE LINE"} & found.keys(), found
    assert found["exit code 4"] > 100
    assert found["read"] > 10
