"""What the checks say: one fact each, in words that text, JSON and reports share."""

import json
import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.results.verification import CheckResult, LayerResult, Verification, nothing_ran
from bnfold.verification.checks.layers import check_layers
from bnfold.verification.checks.weights import judge_tensors
from bnfold.verification.measurement.subgraph_errors import SubgraphErrors
from bnfold.wording import duration, figure, names_change
from tests.support import SAMPLES, call

NORMAL = SimpleNamespace(kinds=["normal"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A model, its fold, and a fold whose last bias is wrong."""
    folder = tmp_path_factory.mktemp("pair")
    assert call("fold", SAMPLES / "digits.onnx", "-o", folder / "folded.onnx", "--no-verify").exit_code == 0
    model = onnx.load(folder / "folded.onnx")
    bias = next(name for node in model.graph.node if node.name == "/7/Gemm" for name in node.input[2:])
    for tensor in model.graph.initializer:
        if tensor.name == bias:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1), bias))
    onnx.save(model, folder / "wrong.onnx")
    return SAMPLES / "digits.onnx", folder / "folded.onnx", folder / "wrong.onnx"


def test_a_difference_is_told_by_its_worst_layer_and_what_to_do(pair):
    result = call("verify", pair[0], pair[2], "--checks", "structure,weights,layers,outputs")
    assert result.exit_code == 1
    expected = [
        r"error: models differ",
        r"  pass  structure  inputs and outputs match; \d of 8 nodes unchanged.*",
        r"  FAIL  weights    1 of 3 layers; worst: /7/Gemm bias, [\d.]+e\d+ ulp, 32 channels",
        r"  FAIL  layers     1 of \d layers; worst: /7/Gemm, error ratio [\d.]+e\d+ \(limit 3\).*",
        r"  FAIL  outputs    'logits', error ratio [\d.]+e\d+ \(limit [38]\), max abs [\d.]+",
        r"note: it says that bnfold folded it, but folding again gives other bytes",
        r"help: --verbose lists every tensor; --report html=report\.html draws them",
    ]
    lines = result.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_json_has_the_same_sentences(pair, tmp_path):
    result = call("verify", pair[0], pair[2], "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    for check in found["checks"]:
        assert f"{check['check']}  " in result.stdout and check["detail"] in result.stdout
    assert [layer["tensor"] for layer in found["layers"] if layer["verdict"] == "fail"] == ["bias"]


def test_inputs_and_versions_are_for_verbose(pair):
    short, full = (call("verify", *pair[:2], *words).stdout for words in ((), ("--verbose",)))
    assert "seed" not in short and "onnxruntime" not in short
    assert "seed 0; device: cpu" in full and "versions: bnfold" in full and "ERROR RATIO" in full


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ("structure", "structure passes; weights, layers, outputs not run"),
        ("weights", "weights passes; structure, layers, outputs not run"),
        ("layers", "layers passes; structure, weights, outputs not run"),
        ("structure,layers", "structure, layers pass; weights, outputs not run"),
        ("structure,weights", None),
        ("outputs", None),
    ],
)
def test_checks_that_prove_nothing_about_numbers_are_no_verdict(checks, said, pair, tmp_path):
    result = call("verify", *pair[:2], "--checks", checks, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (result.exit_code, found["verdict"]) == ((0, "equivalent") if said is None else (3, "inconclusive"))
    assert found["left_open"] == said
    assert result.stdout.startswith("equivalent\n" if said is None else f"inconclusive: {said}\n")


def test_a_check_that_does_not_pass_is_not_said_to():
    checks = [CheckResult("structure", "inconclusive", "x"), CheckResult("layers", "pass", "y")]
    found = Verification(checks, [], [], *nothing_ran(), {})
    assert found.left_open == "layers passes; weights, outputs not run"


def layer(ulps, verdict="pass", **more):
    return LayerResult(
        "Conv 'c'", None, 0.1, ulps, [1, 2] if verdict == "fail" else [], "weights", verdict, "c", **more
    )


@pytest.mark.parametrize(
    ("layers", "missing", "said"),
    [
        ([layer(0.5), layer(0.25)], [], "2 layers, max error 0.5 ulp"),
        ([layer(0.5)], [], "1 layer, max error 0.5 ulp"),
        ([], [], "all weights are the original's"),
        ([layer(0.5), layer(2e10, "fail")], ["Conv 'd'"], "1 of 2 layers; worst: c, 2e10 ulp, 2 channels"),
        ([layer(7.0, "fail", tensor="bias")], [], "1 of 1 layer; worst: c bias, 7 ulp, 2 channels"),
        ([layer(0.5)], ["Relu 'r'", "Add 'a'"], "2 nodes without a counterpart in the original; first: Relu 'r'"),
    ],
)
def test_weights(layers, missing, said):
    assert judge_tensors(layers, missing, 4.0).detail == said


@pytest.mark.parametrize(
    ("errors", "sure", "said"),
    [
        ({"a": SubgraphErrors(0.84), "b": SubgraphErrors(0.5)}, True, "2 layers, error ratio 0.84 (limit 3)"),
        (
            {"a": SubgraphErrors(0.84), "b": SubgraphErrors(2.7e7)},
            True,
            "1 of 2 layers; worst: b, error ratio 2.7e7 (limit 3)",
        ),
        (
            {"a": SubgraphErrors(0.84), "b": SubgraphErrors(9.0)},
            False,
            "1 of 2 layers not judged; first: b, error ratio 9 (limit 3), paired by its name alone",
        ),
        (
            {"a": SubgraphErrors(0.84), "b": SubgraphErrors(0.5, noisy=True)},
            True,
            "1 of 2 layers not judged; first: b, whose expected rounding error could hide a fault",
        ),
        ({"a": SubgraphErrors(0.84)}, True, "1 of 2 layers not judged; first: b: it was not run"),
        (
            {"a": SubgraphErrors(0.84), "b": SubgraphErrors(failed="it has NaN or infinity in other places")},
            True,
            "1 of 2 layers; worst: b: it has NaN or infinity in other places",
        ),
    ],
)
def test_layers(errors, sure, said):
    found = SimpleNamespace(fed=NORMAL, subgraphs=SimpleNamespace(errors=errors, failure=None))
    cut = [SimpleNamespace(name=name, node=name, sure=sure) for name in "ab"]
    assert check_layers(found, cut, None)[0].detail == said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], ["a"], "output 'b' is missing"),
        (["a"], ["a", "b"], "output 'b' is not in the original"),
        (["a"], ["b"], "output 'a' is missing; the model has 'b', which the original has not"),
        (["a", "b"], ["b", "a"], "the outputs are in another order"),
    ],
)
def test_names(old, new, said):
    assert names_change("output", old, new) == said


def test_figures():
    assert [figure(x) for x in (0.8412, 1.1e10, 6e-7, 735.2, float("inf"), 1e-12)] == [
        "0.841", "1.1e10", "6e-07", "735", "inf", "1e-12",
    ]  # fmt: skip


def test_the_time_is_for_terminals_and_json(tmp_path):
    model = SAMPLES / "two_consumers.onnx"
    plain = call("inspect", model, "--json", tmp_path / "found.json").stdout
    assert "Took" not in plain
    assert json.loads((tmp_path / "found.json").read_text())["elapsed_seconds"] > 0
    assert re.fullmatch(r"Took [\d.]+ s", call("inspect", model, "--verbose").stdout.splitlines()[-1])


@pytest.mark.parametrize(("seconds", "said"), [(0.8412, "0.84 s"), (12.3, "12 s"), (185.2, "3 min 5 s")])
def test_durations(seconds, said):
    assert duration(seconds) == said
