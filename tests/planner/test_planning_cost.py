"""What planning costs in graphs where one tensor has many consumers: counted in calls of rules, not in seconds."""

import pytest

from benchmarks.architectures import Net, fan
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.planner.planner import plan
from bnfold.planner.propagation import Propagation
from tests.builders import layer_chain
from tests.folding import assert_equivalent, fold_proto


def convs_of_the_input(count):
    """Return a model with ``count`` BatchNorms of its input, each in front of a convolution: all fold."""
    n = Net()
    return n.model(n.add("Sum", *[n.conv(n.bn("x", 3), 3, 4, pad=False) for _ in range(count)]))


def row(count):
    """Return a model with ``count`` BatchNorms in a row."""
    n = Net()
    x = n.conv("x", 3, 8)
    for _ in range(count):
        x = n.bn(x, 8)
    return n.model(x)


def dense_blocks(count):
    """Return two blocks of layers that each read all those before them (DenseNet), with a transition between them."""
    n = Net()
    x = n.add("Relu", n.bn(n.conv("x", 3, 8), 8))
    for _ in range(2):
        made = [x]
        for layer in range(count):
            whole = made[0] if len(made) == 1 else n.add("Concat", *made, axis=1)
            h = n.conv(n.add("Relu", n.bn(whole, 8 + 4 * layer)), 8 + 4 * layer, 4, 1)
            made.append(n.conv(n.add("Relu", n.bn(h, 4)), 4, 4))
        channels = 8 + 4 * count
        x = n.conv(n.add("Relu", n.bn(n.add("Concat", *made, axis=1), channels)), channels, 8, 1)
    return n.model(x)


NETWORKS = {
    "one Sum": lambda count: fan(count),
    "one Concat": lambda count: fan(count, "Concat"),
    "Adds in a row": lambda count: fan(count, "Add"),
    "a padded Conv after each": lambda count: fan(count, "Conv"),
    "a Conv after each": convs_of_the_input,
    "in a row": row,
    "a chain of layers": layer_chain,
}


@pytest.fixture
def work(monkeypatch):
    """Count what propagation does: calls of rules, and tensors that get a transform."""
    counted = {"asked": 0, "transforms": 0}
    ask, start = Propagation._ask, Propagation.run

    def asked(self, node):
        counted["asked"] += 1
        return ask(self, node)

    def ran(self, demands):
        found = start(self, demands)
        counted["transforms"] += len(getattr(found, "assigned", ()))
        return found

    monkeypatch.setattr(Propagation, "_ask", asked)
    monkeypatch.setattr(Propagation, "run", ran)
    return counted


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_work_of_planning_is_linear(kind, work):
    spent = []
    for count in (60, 120):
        work.update(asked=0, transforms=0)
        assert plan(OnnxGraphs(NETWORKS[kind](count)).scopes[0], scales=True, threshold=False).folds
        spent.append(dict(work))
    assert all(spent[0].values()), "nothing was counted"
    for what, before in spent[0].items():
        assert spent[1][what] < 2.6 * before + 100, spent


def test_kept_batch_norms_of_dense_blocks_ask_few_operators(work):
    """What refuses an offset is asked first, not after the end of the block."""
    count = 20
    assert len(plan(OnnxGraphs(dense_blocks(count)).scopes[0], scales=True, threshold=False).folds) == 2 * count + 2
    assert 0 < work["asked"] < 40 * count


def test_a_scale_that_fails_ends_the_search_for_a_place_for_the_offset(work):
    """Sums may leave an offset to any operand: all ways are tried only where the scales agree (GhostNet's blocks)."""
    n = Net()
    x = n.add("Sigmoid", n.bn(n.conv("x", 3, 8), 8))
    for _ in range(8):
        total = n.bn(x, 8)
        for _ in range(4):
            total = n.add("Add", total, n.bn(n.conv(x, 8, 8), 8))
        x = n.add("Add", n.add("Mul", total, n.add("Sigmoid", total)), x)
    assert len(plan(OnnxGraphs(n.model(x)).scopes[0], scales=True, threshold=False).folds) == 33
    assert 0 < work["asked"] < 450


@pytest.mark.parametrize("kind", NETWORKS)
def test_all_foldable_batch_norms_are_found(kind):
    model = NETWORKS[kind](40)
    folded, (found,) = fold_proto(model)
    everything = {"a Conv after each", "in a row", "a chain of layers"}
    assert len(found.folds) == (40 if kind in everything else 1)
    assert_equivalent(model, folded, 4096.0)


def test_the_reasons_of_kept_batch_norms_in_a_fan():
    """The sum is a graph output, or would need two scales."""
    (found,) = fold_proto(fan(100, "Add"))[1]
    observed = {getattr(outcome, "reason", "folds") for _, outcome in found.outcomes}
    assert observed <= {"folds", "consumers", "graph-output"}
