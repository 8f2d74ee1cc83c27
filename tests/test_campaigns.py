"""A few seconds of each campaign, on every run; hypothesis shrinks what it finds among the random networks."""

import collections
import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from conftest import ROOT

from bnfold.api import FoldOptions, fold
from tests.campaigns import contradictions, equivalents, graphs, hostile, verdicts
from tests.campaigns.changes import functions
from tests.campaigns.networks import network


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_networks_compute_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("network")
    graphs.check(lambda limit: data.draw(st.integers(0, limit - 1)), folder, metamorphic=False)


@pytest.mark.parametrize("seed", range(40))
def test_variants_of_a_network_fold_alike(tmp_path, seed):
    graphs.check(random.Random(seed).randrange, tmp_path, metamorphic=True)


def test_random_contradictions_end_with_a_line_or_a_right_fold(tmp_path):
    found = collections.Counter()
    for seed in range(250):
        outcome, _ = contradictions.check(random.Random(seed).randrange, tmp_path)
        found[outcome] += 1
    assert found["exit code 4"] > 50
    assert found["equal"] > 20
    assert found["kept"] > 20


def test_what_passes_computes_the_same(tmp_path):
    found = collections.Counter()
    for seed in range(120):
        found.update(verdicts.check(random.Random(seed).randrange, tmp_path))
    assert found["folded: pass"] > 110
    assert not found["folded: fail"]
    assert found["changed: fail"] > 50
    assert found["changed: pass, the same"] > 5


def test_a_wrong_fold_is_found(tmp_path, monkeypatch):
    from dataclasses import replace

    from bnfold.rules import conv as linear

    real = linear.fold_linear

    def wrong(*arguments):
        new, offset = real(*arguments)
        return replace(new, gain=new.gain * 1.01), offset

    monkeypatch.setattr(linear, "fold_linear", wrong)
    found = 0
    for seed in range(60):
        try:
            graphs.check(random.Random(seed).randrange, tmp_path, metamorphic=False)
        except AssertionError:
            found += 1
    assert found > 1


def test_damaged_files_end_with_a_line(tmp_path, samples):
    rng, found = random.Random(0), collections.Counter()
    models = [path.read_bytes() for path in sorted(samples.glob("*.onnx")) if path.stat().st_size < hostile.SMALL]
    for data in models[:4]:
        for length in range(0, len(data), 7):
            hostile.attempt(data[:length], tmp_path / "model.onnx", found)
    for _ in range(400):
        hostile.attempt(hostile.damaged(rng.choice(models), rng), tmp_path / "model.onnx", found)
    assert not {"TRACEBACK", "SLOW", "NOT ONE LINE"} & found.keys(), found
    assert found["exit code 4"] > 100
    assert found["read"] > 10


def test_what_is_said_to_change_nothing_still_stands_there():
    """A line that has changed since needs to be looked at again; one that stands there twice says too little."""
    for (place, before, after), reason in equivalents.equivalents().items():
        file, function = place.split()
        lines = (ROOT / file).read_text().splitlines()
        inside = [lines[number - 1].strip() for number in functions(ROOT / file)[function]]
        assert inside.count(before) == 1, (place, before)
        assert before != after
        assert reason.endswith(".")


RECORDED = Path(__file__).parent / "golden" / "networks.json"


def told(seed):
    """What becomes of a random network: each operator's fate, and the shape of what is left."""
    draw = random.Random(seed).randrange
    model = network(draw)
    result = fold(model, options=FoldOptions(verify=None, threshold=seed % 3 == 0, merge=seed % 4 == 0))
    rows = result.inspection.rows
    fates = [f"{row.name}: {row.reason['code'] if row.reason else ', '.join([*row.into, *row.via])}" for row in rows]
    graph = result.model.graph
    left = [[node.op_type, *node.output] for node in graph.node]
    held = sorted((tensor.name, list(tensor.dims)) for tensor in graph.initializer)
    return [*fates, hashlib.sha256(json.dumps([left, held]).encode()).hexdigest()[:12]]


def test_the_networks_fold_as_they_did():
    """A rule that stops folding computes nothing wrong: only a record shows it (BNFOLD_UPDATE_GOLDEN=1 makes it)."""
    found = {str(seed): told(seed) for seed in range(400)}
    if os.environ.get("BNFOLD_UPDATE_GOLDEN"):
        RECORDED.write_text(json.dumps(found, indent=0) + "\n")
    assert found == json.loads(RECORDED.read_text())
