"""Sums that start at a large bias: the expected rounding error has what they lose in it, and no fault of a fold."""

import re
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.numerics.rounding import accumulated_error
from bnfold.options import K_NOISE, Tolerances, VerifyOptions
from bnfold.verification.checks.outputs import check_outputs
from bnfold.verification.equivalence.subgraph import End, Subgraph
from bnfold.verification.measurement.measured import Measured, Reference, SubgraphRuns
from bnfold.verification.measurement.subgraph_errors import SubgraphOutputs, subgraph_errors
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import SampleSet
from bnfold.verification.runtime.perturbation import accumulated_noise, perturbed_by_an_ulp
from bnfold.verification.runtime.runner import Run
from sample_models.build import bn_node, make, node, tensor

WIDTH, POSITIONS, DEPTH = 64, 512, 3


def running_sums(x, w, start):
    """Return ``start + w x`` in float32, added up one product after the other, as oneDNN does on many CPUs."""
    total = np.broadcast_to(start[:, None], (len(w), x.shape[1])).astype(np.float32)
    for k in range(w.shape[1]):
        total = np.float32(total + np.float32(w[:, k, None] * x[k]))
    return total


@dataclass
class Network:
    """Layers of a product and a BatchNorm's scale and offset, with a Relu; offsets of ``r`` times the product."""

    r: float
    weights: list = field(default_factory=list)
    scales: list = field(default_factory=list)
    offsets: list = field(default_factory=list)

    def __post_init__(self):
        rng = np.random.default_rng(7)
        for _ in range(DEPTH):
            self.weights.append(np.float32(rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)))
            self.scales.append(np.float32(rng.uniform(0.5, 1.5, WIDTH)))
            self.offsets.append(np.float32(self.r * rng.choice([-1, 1], WIDTH) * rng.uniform(0.5, 1.5, WIDTH)))

    def original(self, x, dtype):
        for w, scale, offset in zip(self.weights, self.scales, self.offsets, strict=True):
            made = w.astype(dtype) @ x if dtype == np.float64 else running_sums(x, w, np.zeros(WIDTH, np.float32))
            x = np.maximum(made * scale.astype(dtype)[:, None] + offset.astype(dtype)[:, None], 0)
        return x

    def folded(self, x, dtype, noise=None):
        for w, scale, offset in zip(self.weights, self.scales, self.offsets, strict=True):
            w = np.float32(w.astype(np.float64) * scale.astype(np.float64)[:, None])
            made = w.astype(dtype) @ x + offset[:, None] if dtype == np.float64 else running_sums(x, w, offset)
            if noise is not None:
                made = made + accumulated_noise(noise, made.T.shape, offset, w.size, np.float32).T
            x = np.maximum(made, 0)
        return x


@dataclass
class Further:
    """More runs of such a network."""

    network: Network
    x: np.ndarray
    asked: int = 0

    def again(self, seeds, share):
        self.asked += 1
        made = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            moved = replace(self.network, weights=[], scales=[], offsets=[])
            moved.weights = [perturbed_by_an_ulp(w, rng, share) for w in self.network.weights]
            moved.scales, moved.offsets = self.network.scales, self.network.offsets
            made.append([named(moved.original(self.x, np.float32))])
        return made

    def decided(self, original, folded):
        return [None] * len(original.outputs)

    def accumulated(self):
        return named(self.network.folded(self.x.astype(np.float64), np.float64, np.random.default_rng(0)))


def named(y):
    return [{"y": y[None]}]


def measured(r, fault=None):
    """Return what was measured of a network and its fold, whose last offset is ``fault`` times as large."""
    network = Network(r)
    x = np.random.default_rng(1).standard_normal((WIDTH, POSITIONS)).astype(np.float32)
    wide = x.astype(np.float64)
    reference = Reference(named(network.original(wide, np.float64)), named(network.folded(wide, np.float64)))
    further = Further(network, x)
    original = Run([named(network.original(x, np.float32))], ["y"], [], "")
    wrong = Network(r)
    if fault is not None:
        wrong.offsets[-1] = wrong.offsets[-1] * np.float32(fault)
    folded = Run([named(wrong.folded(x, np.float32))], ["y"], [], "")
    fed = SampleSet([{"x": x}], ["normal"], {})
    none = SubgraphRuns()
    return Measured(fed, [RunMode("disable")], original, folded, reference, none, list, further), further


@pytest.mark.parametrize("products", [9, 64, 1024])
def test_what_running_sums_lose_is_modelled(products):
    rng = np.random.default_rng(products)
    w = np.float32(rng.standard_normal((32, products)) / np.sqrt(products))
    x = np.float32(rng.standard_normal((products, 256)))
    starts = np.float32(rng.choice([-1, 1], 32) * rng.uniform(9, 14, 32))
    error = running_sums(x, w, starts) - (w.astype(np.float64) @ x + starts[:, None])
    found = np.sqrt(np.square(error).mean(axis=1)) / accumulated_error(starts, products, np.float32)
    assert 0.7 < found.min() < found.max() < 1.4


@pytest.mark.parametrize("r", [0, 1, 3, 10, 30])
def test_a_right_fold_passes_whatever_its_biases(r):
    found, _ = measured(r)
    check, results = check_outputs(found, Tolerances())
    assert check.verdict == "pass", check.detail
    assert results[0].error_ratio < K_NOISE


def test_the_first_runs_alone_would_refuse_it():
    found, further = measured(10)
    check_outputs(found, Tolerances())
    assert further.asked == 1
    further.accumulated = lambda: None
    assert check_outputs(found, Tolerances())[0].verdict == "fail"


@pytest.mark.parametrize("fault", [1 + 1e-4, 1 - 1e-4, 1 + 3e-5])
@pytest.mark.parametrize("r", [1, 3, 10])
def test_a_wrong_bias_behind_large_accumulators_is_caught(r, fault):
    check, _ = check_outputs(measured(r, fault)[0], Tolerances())
    assert check.verdict == "fail"


@pytest.mark.parametrize(("fault", "ok"), [(1.0, True), (1 + 1e-4, False), (1 + 1e-5, False)])
def test_a_layer_is_judged_alike(fault, ok):
    network = Network(10)
    w, offset = network.weights[0], network.offsets[0]
    x = np.random.default_rng(1).standard_normal((WIDTH, POSITIONS)).astype(np.float32)
    wide = w.astype(np.float64) @ x + offset[:, None]
    original = running_sums(x, w, np.zeros(WIDTH, np.float32)) + offset[:, None]
    folded = running_sums(x, w, offset * np.float32(fault))
    losses = accumulated_error(offset, WIDTH, np.float32).tolist()
    ends = [End("x", "x", 1, 1)], [End("y", "y", 1, 1)]
    made = SubgraphOutputs({"y": original[None]}, {"y": folded[None]}, {"y": wide[None]}, {"y": wide[None]})

    def ratio(accumulated):
        return subgraph_errors(Subgraph("c", "c", *ends, 1, [], [], accumulated, sure=True), made, [1.0], 0.0, 3.0)

    assert (ratio(losses).error_ratio <= K_NOISE) == ok
    assert ratio([]).error_ratio > K_NOISE


def large_biases(folder):
    """A model whose folded biases are ten times as large as what is added to them, and its fold."""
    rng = np.random.default_rng(5)
    nodes, held, x = [], {}, "x"
    for k in range(3):
        inner = WIDTH if k else 8
        held[f"w{k}"] = np.float32(rng.standard_normal((WIDTH, inner, 3, 3)) / np.sqrt(9 * inner))
        held |= {f"b{k}_scale": np.float32(rng.uniform(0.5, 1.5, WIDTH)), f"b{k}_var": np.ones(WIDTH, np.float32)}
        held |= {f"b{k}_mean": np.zeros(WIDTH, np.float32), f"b{k}_bias": np.float32(10 * rng.choice([-1, 1], WIDTH))}
        nodes += [node("Conv", [x, f"w{k}"], [f"c{k}"]), bn_node(f"c{k}", f"n{k}", f"b{k}")]
        nodes.append(node("Relu" if k < 2 else "Identity", [f"n{k}"], [f"r{k}"]))
        x = f"r{k}"
    model = make(nodes, [tensor("x", [1, 8, 24, 24])], [tensor(x, None)], held)
    paths = folder / "original.onnx", folder / "folded.onnx"
    paths[0].write_bytes(model.SerializeToString())
    fold(*paths, FoldOptions(verify=None))
    return paths


@pytest.mark.parametrize("checks", [("structure", "weights"), ("outputs",), ("layers",)])
def test_a_fault_of_a_large_bias_is_seen_by_each_check(checks, tmp_path):
    paths = large_biases(tmp_path)
    assert all(check.verdict == "pass" for check in verify(*paths, VerifyOptions(checks)).verification.checks)
    model = onnx.load(paths[1])
    held = next(entry for entry in model.graph.initializer if len(entry.dims) == 1 and re.search("bnfold", entry.name))
    data = numpy_helper.to_array(held).copy()
    data[np.argmax(data)] *= np.float32(1 + 1e-4)
    held.CopyFrom(numpy_helper.from_array(data, held.name))
    paths[1].write_bytes(model.SerializeToString())
    assert "fail" in [check.verdict for check in verify(*paths, VerifyOptions(checks)).verification.checks]
