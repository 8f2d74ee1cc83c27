"""What random networks fold to, network by network, as it was recorded."""

import hashlib
import json
import os

import pytest

from bnfold.api import FoldOptions, fold
from tests.fuzz import kinds
from tests.support import GOLDEN

RECORDED = GOLDEN / "networks.json"


def outcomes(key):
    """Return what becomes of a network: the outcome of each operator, and a digest of the folded graph's structure."""
    rng = kinds.generator(key)
    model = kinds.network_of(key, rng)
    options = FoldOptions(verify=None, threshold=rng.randrange(3) == 0, merge=rng.randrange(4) == 0)
    result = fold(model, options=options)
    rows = result.inspection.rows
    found = [f"{row.name}: {row.reason['code'] if row.reason else ', '.join([*row.into, *row.via])}" for row in rows]
    graph = result.model.graph
    nodes = [[node.op_type, *node.output] for node in graph.node]
    held = sorted((tensor.name, list(tensor.dims)) for tensor in graph.initializer)
    return " | ".join([*found, hashlib.sha256(json.dumps([nodes, held]).encode()).hexdigest()[:12]])


def recorded_as(key):
    return " ".join(map(str, key))


def test_the_networks_fold_as_they_did():
    """A rule that stops folding computes nothing wrong: only a record shows it (BNFOLD_UPDATE_GOLDEN=1 makes it)."""
    found = {recorded_as(key): outcomes(key) for key in kinds.keys_of()}
    if os.environ.get("BNFOLD_UPDATE_GOLDEN"):
        RECORDED.write_text(json.dumps(found, indent=0) + "\n")
    assert found == json.loads(RECORDED.read_text())


def drawn(names):
    return {key: kinds.network_of(key, kinds.generator(key)).SerializeToString() for key in kinds.keys_of(names)}


def test_a_new_kind_changes_no_other_record(monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "erf", lambda n, x, shape: n.add("Erf", [x], shape))
    monkeypatch.setitem(kinds.RANKS, "erf", kinds.ANY_RANK)
    few, more = drawn(["conv", "gemm", "split"]), drawn(["conv", "erf", "gemm", "split"])
    assert len(more) == len(few) + 4 * kinds.SEEDS
    assert {key: more[key] for key in few} == few


@pytest.mark.parametrize("grown", ["conv", "activation"])
def test_a_kind_that_grows_changes_no_other_record(grown, monkeypatch):
    before, grow = drawn(kinds.KINDS), kinds.KINDS[grown]

    def draws_once_more(n, x, shape):
        n.draw(2)
        grow(n, x, shape)

    monkeypatch.setitem(kinds.KINDS, grown, draws_once_more)
    changed = {key for key, model in drawn(kinds.KINDS).items() if model != before[key]}
    assert changed
    assert all(grown in key for key in changed)
