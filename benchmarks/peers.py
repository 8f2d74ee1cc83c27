"""bnfold beside the tools that people use today: BatchNorms left, wrong results. ``python -m benchmarks.peers``.

Needs the peers (``pip install onnxsim onnxslim onnxoptimizer onnxscript``). Each tool works on each network in a
process of its own, so that a crash is a result. Writes the tables of ``docs/comparison.md``.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from benchmarks.architectures import FAMILIES
from benchmarks.traps import TRAPS

TOOLS = ("bnfold", "bnfold --threshold", "onnxruntime", "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/comparison.md"
MARKS = "<!-- peers: written by benchmarks/peers.py -->", "<!-- /peers -->"
WRONG = 1e-4
"""Largest difference of an output, relative to its largest entry, that is not called wrong."""


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
        return {"left": None, "wrong": True, "error": None, "why": done.stderr.decode()[-300:]}
    model = onnx.load(source)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype("f4")}
    try:
        expected, actual = outputs(str(source), feeds)[0], outputs(str(target), feeds)[0]
    except Exception as error:  # a model that does not load is a wrong result
        return {"left": None, "wrong": True, "error": None, "why": str(error)[:300]}
    error = float(np.abs(expected - actual).max() / np.abs(expected).max())
    count = left(onnx.load(target))
    return {"left": count, "wrong": not error < WRONG, "error": error, "why": f"relative error {error:.2g}"}


def remaining(folder: Path) -> list[str]:
    """Return the table of BatchNorms left, and a line for each wrong result."""
    rows, wrong = [], []
    totals = dict.fromkeys(TOOLS, 0)
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
    rows.append(f"| **sum** | | {' | '.join(str(totals[tool]) for tool in TOOLS)} |")
    heads = [f"| network | BatchNorms | {' | '.join(TOOLS)} |", "|---|---|" + "---|" * len(TOOLS)]
    return [*heads, *rows, "", *(wrong or ["None of these results is wrong."])]


def trapped(folder: Path) -> list[str]:
    """Return the table of relative errors on the networks where the common pattern is wrong."""
    tools = [tool for tool in TOOLS if tool != "bnfold --threshold"]
    rows = [f"| network | {' | '.join(tools)} |", "|---|" + "---|" * len(tools)]
    for name, build in TRAPS.items():
        onnx.save(build(), folder / f"{build.__name__}.onnx")
        cells = []
        for tool in tools:
            result = one(tool, build.__name__, folder)
            print(json.dumps({"network": name, "tool": tool, **result}))
            error = result["error"]
            cells.append("fails" if error is None else f"**{error:.2g}**" if result["wrong"] else f"{error:.1g}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Run all, and replace what stands between the marks."""
    import tempfile

    packages = ("onnxruntime", "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")
    with tempfile.TemporaryDirectory() as temporary:
        rows, traps = remaining(Path(temporary)), trapped(Path(temporary))
    lines = [
        f"Measured in {datetime.date.today():%B %Y} with bnfold {version('bnfold')}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + ".",
        "\n## BatchNorms left\n",
        *rows,
        "\n## Wrong results\n",
        *traps,
    ]
    text = PAGE.read_text()
    start, end = (text.index(mark) for mark in MARKS)
    PAGE.write_text(f"{text[:start]}{MARKS[0]}\n" + "\n".join(lines) + f"\n{text[end:]}")


if __name__ == "__main__":
    main()
