"""Measure what catches a wrong fold: ``python -m benchmarks.wrong_folds`` writes a table of ``docs/verification.md``.

Each fault of ``tests/wrong_folds`` is put into a correct fold of a small residual network, once ending in logits and
once in a Softmax. Beside bnfold's checks stands what most tools do: ``allclose`` on random inputs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from bnfold.options import CHECKS, VerifyOptions
from bnfold.results.verification import Verification
from bnfold.verification.onnx.verify import verify_files
from tests.wrong_folds.corpus import FAULTS, network
from tests.wrong_folds.networks import NETWORKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/verification.md"
MARKS = "<!-- faults: written by benchmarks/wrong_folds.py -->", "<!-- /faults -->"
SEEDS = 20

TOLD = {
    "epsilon_too_large": "epsilon 1e-5 → 1e-3 in one BatchNorm",
    "epsilon_dropped": "epsilon dropped everywhere",
    "gain_one_percent": "one channel's gamma × 1.01",
    "gain_hundredth_percent": "one channel's gamma × 1.0001",
    "mean_and_bias_swapped": "mean and bias swapped",
    "variance_not_rooted": "variance without its square root",
    "rounded_to_half": "weights rounded through float16",
    "dead_bias_scaled": "a dead channel's bias × 1.5",
    "clip_max_lost": "a Clip's maximum lost",
    "padding_border": "a BatchNorm folded into a padded Conv",
    "neighbour_gain": "the gain of the neighbouring channel",
    "bias_stale": "the old bias left",
    "unfolded_last_bits": "last bits of a layer that was not folded",
    "extra_output": "an output more",
}


def run(model: onnx.ModelProto, seed: int) -> list[np.ndarray] | None:
    """The outputs on one random input; None if the model does not run."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(seed)
        shapes = {item.name: [n if isinstance(n, int) else 2 for n in item.shape] for item in session.get_inputs()}
        return session.run(None, {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()})
    except Exception:  # whatever onnxruntime raises, the model does not run
        return None


def by_allclose(original: onnx.ModelProto, wrong: onnx.ModelProto) -> int:
    """How many of the seeds show the fault to ``allclose(rtol=1e-3, atol=1e-5)`` of the outputs that both have."""
    seen = 0
    for seed in range(SEEDS):
        a, b = run(original, seed), run(wrong, seed)
        seen += a is None or b is None or not all(np.allclose(x, y, 1e-3, 1e-5) for x, y in zip(a, b, strict=False))
    return seen


def verified(original: onnx.ModelProto, wrong: onnx.ModelProto) -> Verification:
    """Bnfold's word on a fold that says it is bnfold's."""
    copy = onnx.ModelProto.FromString(wrong.SerializeToString())
    copy.metadata_props.add(key="bnfold.version", value="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "original.onnx", Path(folder) / "folded.onnx"
        for path, model in zip(paths, (original, copy), strict=True):
            path.write_bytes(model.SerializeToString())
        return verify_files(*paths, VerifyOptions(CHECKS))[0]


def cell(found: Verification) -> str:
    """The checks that failed, with their figures."""
    layers = max((x.error_ratio for x in found.layers if x.error_ratio and x.verdict == "fail"), default=None)
    outputs = max((x.error_ratio for x in found.outputs if x.verdict == "fail"), default=None)
    ulps = max((x.max_ulp for x in found.layers if x.max_ulp and x.verdict == "fail"), default=None)
    figures = {"weights": (ulps, " ulp"), "layers": (layers, ""), "outputs": (outputs, "")}
    words = []
    for check in (g.check for g in found.checks if g.verdict == "fail"):
        value, unit = figures.get(check, (None, ""))
        words.append(check if value is None or not np.isfinite(value) else f"{check} ({value:.2g}{unit})")
    return ", ".join(words) or "**nothing**"


def table() -> str:
    """The rows, one per fault."""
    rows = [
        "| fault | `allclose`, of 20 seeds: logits / Softmax | bnfold: logits | bnfold: Softmax |",
        "|---|---|---|---|",
    ]
    for name, shown_text in TOLD.items():
        seen, cells = [], []
        for net in ("residual", "classifier"):
            original, correct = network(net, "float32")
            wrong = FAULTS[name](original, correct)
            others = iter(NETWORKS if net == "residual" else ())
            while wrong is None and (other := next(others, None)):  # no place for it there: the first that has one
                original, correct = network(other, "float32")
                wrong = FAULTS[name](original, correct)
            seen.append("–" if wrong is None else str(by_allclose(original, wrong)))
            cells.append("–" if wrong is None else cell(verified(original, wrong)))
        rows.append(f"| {shown_text} | {' / '.join(seen)} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    """Replace what stands between the marks."""
    text = PAGE.read_text()
    start, end = (text.index(mark) for mark in MARKS)
    PAGE.write_text(f"{text[:start]}{MARKS[0]}\n{table()}\n{text[end:]}")


if __name__ == "__main__":
    main()
