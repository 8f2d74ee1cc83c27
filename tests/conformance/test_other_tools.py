"""``verify`` judges folds of other tools: right ones pass, and where a tool writes a wrong model it is said so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.architectures import FAMILIES
from bnfold.options import CHECKS, VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from tests.conformance.networks import NETWORKS as REWRITTEN_OPERATORS
from tests.wrong_folds.networks import NETWORKS


def by_onnxruntime(level: str) -> Callable[[Path, Path], None]:
    def fold(source: Path, target: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return fold


def by_onnxsim(source: Path, target: Path) -> None:
    onnxsim = pytest.importorskip("onnxsim", reason="onnxsim is not installed")
    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def by_onnxslim(source: Path, target: Path) -> None:
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    onnx.save(onnxslim.slim(onnx.load(source)), target)


TOOLS = {
    "onnxruntime basic": by_onnxruntime("ORT_ENABLE_BASIC"),
    "onnxruntime extended": by_onnxruntime("ORT_ENABLE_EXTENDED"),
    "onnxruntime all": by_onnxruntime("ORT_ENABLE_ALL"),
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
}

REWRITTEN = {
    ("onnxruntime basic", "Keras NHWC"), ("onnxruntime extended", "Keras NHWC"),
    ("onnxruntime basic", "classifier float16"), ("onnxruntime extended", "classifier float16"),
}  # fmt: skip
"""Models that a tool rewrites beyond what can be proved (transposes pushed about, Softmax written out): inconclusive.

So are many that onnxruntime saves in its blocked layout, with channels that don't fill a block.
"""


def models(seed: int) -> dict[str, Callable[[], onnx.ModelProto]]:
    found = {name: family for name, family in FAMILIES.items() if seed == 0}
    for name, build in NETWORKS.items():
        for dtype in ("float32", "float16"):
            found[f"{name} {dtype}"] = lambda build=build, dtype=dtype: build(seed, dtype)
    return found


def check(tool: str, seed: int, checks: tuple[str, ...], folder: Path) -> None:
    proved = 0
    for name, build in models(seed).items():
        source, target = folder / "original.onnx", folder / "folded.onnx"
        source.write_bytes(build().SerializeToString())
        TOOLS[tool](source, target)
        found = verify_files(source, target, VerifyOptions(checks))[0]
        wrong = [f"{check.check}: {check.detail}" for check in found.checks if check.verdict != "pass"]
        assert found.verdict != "different", (name, wrong)
        far = (tool, name) in REWRITTEN or tool == "onnxruntime all"
        assert found.verdict == "equivalent" or far, (name, wrong)
        proved += found.verdict == "equivalent"
    assert proved >= len(models(seed)) // 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", TOOLS)
def test_right_folds_of_other_tools_are_proved(tool, tmp_path):
    check(tool, 0, ("structure", "weights"), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tool", TOOLS)
def test_right_folds_of_other_tools_pass_all_gates(tool, seed, tmp_path):
    check(tool, seed, CHECKS, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REWRITTEN_OPERATORS)
@pytest.mark.parametrize("tool", TOOLS)
def test_what_simplifiers_rewrite_is_followed(tool, name, tmp_path):
    """Attention, gates, views, resizing: what another tool makes of them is proved, at every level."""
    source, target = tmp_path / "original.onnx", tmp_path / "folded.onnx"
    source.write_bytes(REWRITTEN_OPERATORS[name]().SerializeToString())
    TOOLS[tool](source, target)
    found = verify_files(source, target, VerifyOptions(("structure", "weights")))[0]
    assert found.verdict == "equivalent", [check.detail for check in found.checks if check.verdict != "pass"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REWRITTEN_OPERATORS)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_wrong_weight_in_what_simplifiers_rewrite_does_not_pass(tool, name, tmp_path):
    """Half of the last large weight of the other tool's model is 1 % off."""
    source, target = tmp_path / "original.onnx", tmp_path / "folded.onnx"
    source.write_bytes(REWRITTEN_OPERATORS[name]().SerializeToString())
    TOOLS[tool](source, target)
    model = onnx.load(target)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    used = [held[made.input[1]] for made in model.graph.node if len(made.input) > 1 and made.input[1] in held]
    wrong = next(tensor for tensor in reversed(used) if tensor.data_type == 1 and len(tensor.dims) in (2, 4))
    data = onnx.numpy_helper.to_array(wrong).copy()
    data.reshape(-1)[: data.size // 2] *= np.float32(1.01)
    wrong.CopyFrom(onnx.numpy_helper.from_array(data, wrong.name))
    onnx.save(model, target)
    found = verify_files(source, target, VerifyOptions(("structure", "weights")))[0]
    assert found.verdict != "equivalent"
