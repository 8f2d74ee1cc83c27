"""bnfold beside the tools that people use today: BatchNorms left, wrong results. ``python -m benchmarks.peers``.

Needs the peers (``pip install onnxsim onnxslim onnxoptimizer onnxscript``). Each tool works on each network in a
process of its own, so that a crash is a result. Writes the table of ``docs/comparison.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from benchmarks.architectures import FAMILIES

TOOLS = ("bnfold", "bnfold --threshold", "onnxruntime", "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/comparison.md"


def left(model: onnx.ModelProto) -> int:
    """BatchNorms that are still there: as one operator, or as a constant factor per channel that nobody took in."""
    held = {t.name: t for t in model.graph.initializer}
    held |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    count = 0
    for n in model.graph.node:
        if n.op_type == "BatchNormalization":
            count += 1
        elif n.op_type in ("Mul", "Div"):
            count += any(name in held and max(held[name].dims, default=1) > 1 for name in n.input)
    return count


def outputs(path: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a model computes on onnxruntime with all optimisation off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def one(tool: str, name: str, folder: Path) -> dict[str, object]:
    """One tool on one network: what is left of how many, and whether it computes the same."""
    source, target = folder / f"{name}.onnx", folder / f"{name}.{tool}.onnx"
    code = f"from benchmarks.tools import optimise; optimise({tool!r}, {str(source)!r}, {str(target)!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, check=False)
    if done.returncode or not target.exists():
        return {"left": None, "wrong": True, "why": done.stderr.decode()[-300:]}
    model = onnx.load(source)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype("f4")}
    try:
        expected, actual = outputs(str(source), feeds)[0], outputs(str(target), feeds)[0]
    except Exception as error:  # a model that does not load is a wrong result
        return {"left": None, "wrong": True, "why": str(error)[:300]}
    error = float(np.abs(expected - actual).max() / np.abs(expected).max())
    return {"left": left(onnx.load(target)), "wrong": not error < 1e-4, "why": f"relative error {error:.2g}"}


def main() -> None:
    """Run all and write the page."""
    import tempfile

    rows, wrong = [], []
    totals = dict.fromkeys(TOOLS, 0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, build in FAMILIES.items():
            model = build()
            onnx.save(model, folder / f"{name}.onnx")
            cells = []
            for tool in TOOLS:
                result = one(tool, name, folder)
                print(json.dumps({"network": name, "tool": tool, **result}))
                if result["wrong"]:
                    wrong.append(f"- {tool} on {name}: {str(result['why']).strip().splitlines()[-1]}")
                totals[tool] += left(model) if result["left"] is None else int(str(result["left"]))
                cells.append(f"{result['left']}{' **wrong**' if result['wrong'] else ''}")
            rows.append(f"| {name} | {left(model)} | {' | '.join(cells)} |")
    packages = ", ".join(
        f"{p} {version(p)}" for p in ("onnxruntime", "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")
    )
    rows.append(f"| **sum** | | {' | '.join(str(totals[tool]) for tool in TOOLS)} |")
    text = [
        "# Comparison\n",
        "BatchNorms left (one operator, or a factor per channel that stands alone; onnxoptimizer writes one out as",
        "several),",
        f"by `benchmarks/peers.py`, with {packages}.",
        "The networks are small ones in the shape of each family, built by `benchmarks/architectures.py`.",
        "*Wrong*: does not run, or differs by more than 1e-4 of the largest output from the original on onnxruntime",
        "with all optimisation off.\n",
        f"| network | in it | {' | '.join(TOOLS)} |",
        "|---|---|" + "---|" * len(TOOLS),
        *rows,
        "\n## Wrong results\n",
        *(wrong or ["None in this run."]),
    ]
    PAGE.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
