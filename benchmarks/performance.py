"""Time and memory of bnfold beside the tools that people use today: ``python -m benchmarks.performance [MODEL …]``.

Each tool folds each model in a process of its own, interleaved, several rounds; wall time and CPU time are medians,
memory is the peak. Then the folded models run on onnxruntime, interleaved too. Prints JSON lines and writes the tables
of ``docs/performance.md``. Needs the peers (``pip install onnxsim onnxslim onnxoptimizer onnxscript``).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
START, END = "<!-- measured by benchmarks/performance.py -->", "<!-- end -->"

BASELINES = ("cp", "cp and fsync", "import onnx")
TOOLS = ("bnfold", "onnxruntime", "onnxslim", "onnxscript", "onnxoptimizer", "onnxsim")
MODELS = ("resnet50", "mobilenet", "densenet", "external-2-5gb")
ROUNDS = {"external-2-5gb": 3}
TIME_LIMIT = 300
LEVELS = ("disable", "basic", "extended", "all")


def command(tool: str, source: Path, target: Path) -> list[str]:
    """What to run: for bnfold the program as users run it, for the others the least Python that it takes."""
    if tool == "bnfold":
        return [str(Path(sys.executable).with_name("bnfold")), "fold", "--no-verify", str(source), "-o", str(target)]
    if tool.startswith("cp"):
        copy = f"cp {source.parent}/* {target.parent}/"
        return ["sh", "-c", copy if tool == "cp" else f"{copy} && sync {target.parent}/*"]
    if tool == "import onnx":
        return [sys.executable, "-c", "import onnx"]
    code = "import sys; from benchmarks.tools import optimise; optimise(*sys.argv[1:])"
    return [sys.executable, "-W", "ignore", "-c", code, tool, str(source), str(target)]


def about(name: str) -> str:
    """What ``models.py`` says of a model. (This process stays small: what it weighs would count for its children.)"""
    code = f"from benchmarks.models import BUILDERS; print(BUILDERS[{name!r}].__doc__)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def run(words: list[str]) -> dict[str, float | None]:
    """Wall seconds, CPU seconds and peak MiB of a process and its children; None where it failed or took too long."""
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - start
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            break
        if wall > TIME_LIMIT:
            process.kill()
        time.sleep(0.002)
    if process.returncode:
        return {"wall": None, "cpu": None, "peak": None}
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}


def measure(name: str, folder: Path) -> dict[str, dict[str, float | None]]:
    """All tools on one model; the folded models stay in ``folder``, one folder for each tool."""
    source = folder / "source" / "model.onnx"
    source.parent.mkdir()
    subprocess.run([sys.executable, "-m", "benchmarks.models", name, str(source)], cwd=ROOT, check=True)
    found: dict[str, list[dict[str, float | None]]] = {tool: [] for tool in (*BASELINES, *TOOLS)}
    for _ in range(ROUNDS.get(name, 7)):
        for tool, results in found.items():
            if results and results[-1]["wall"] is None:
                continue  # what fails once fails again
            place = folder / tool.replace(" ", "-")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            results.append(run(command(tool, source, place / "model.onnx")))
            if tool in BASELINES:
                shutil.rmtree(place)
    return {tool: {key: _median([r[key] for r in results]) for key in results[0]} for tool, results in found.items()}


def _median(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return statistics.median(numbers) if len(numbers) == len(values) else None


def latencies(folder: Path, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each folded model at each optimisation level, and those of the original."""
    files = {tool: folder / tool / "model.onnx" for tool in ("source", *TOOLS)}
    words = ["-m", "benchmarks.latency", json.dumps({t: str(p) for t, p in files.items() if p.exists()})]
    done = subprocess.run(
        [sys.executable, *words, json.dumps(shape)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    result: dict[str, dict[str, float]] = json.loads(done.stdout)
    return result


def table(found: dict[str, dict[str, float | None]]) -> list[str]:
    """One model's rows: figures, and in brackets how many times bnfold's they are."""
    own = found["bnfold"]
    rows = ["| | wall time | CPU time | peak memory |", "|---|---|---|---|"]
    for tool, figures in found.items():
        cells = []
        for key, unit in (("wall", "s"), ("cpu", "s"), ("peak", "MiB")):
            value, base = figures[key], own[key]
            if value is None or base is None:
                cells.append("fails")
                continue
            text = f"{value:.2f} {unit}" if unit == "s" else f"{value:.0f} {unit}"
            cells.append(text if tool == "bnfold" else f"{text} ({value / base:.2f})")
        rows.append(f"| {'**bnfold**' if tool == 'bnfold' else tool} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Run all and write the page."""
    names = sys.argv[1:] or list(MODELS)
    packages = ("onnx", "onnxruntime", "onnxslim", "onnxscript", "onnxoptimizer", "onnxsim")
    text = [
        START,
        "",
        f"Measured in {datetime.date.today():%B %Y} on {platform.machine()} with {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, bnfold {version('bnfold')}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
        + ". In brackets: how many times bnfold's figure.",
        "",
    ]
    for name in names:
        with tempfile.TemporaryDirectory(prefix="bnfold-bench-") as temporary:
            folder = Path(temporary)
            found = measure(name, folder)
            print(json.dumps({"model": name, **found}), flush=True)
            text += [f"### {name}", "", about(name).strip(), "", *table(found), ""]
            if name not in ROUNDS:
                speed = latencies(folder, (1, 3, 224, 224))
                print(json.dumps({"model": name, "latency": speed}), flush=True)
                text += ["Milliseconds per run on onnxruntime, by its own optimisation level:", ""]
                text += [f"| | {' | '.join(LEVELS)} |", "|---|" + "---|" * len(LEVELS)]
                for tool, times in speed.items():
                    cells = (f"{times[level]:.2f}" if level in times else "fails" for level in LEVELS)
                    text.append(f"| {'original' if tool == 'source' else tool} | {' | '.join(cells)} |")
                text.append("")
    page = PAGE.read_text()
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(before + "\n".join(text) + END + after)


if __name__ == "__main__":
    main()
