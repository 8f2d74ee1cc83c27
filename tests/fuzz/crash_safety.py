"""``kill -9`` at random moments of a fold: ``python -m tests.fuzz.crash_safety COUNT [SEED]``.

After each: the target is absent, the old one or complete; the input has not changed; a complete model has all its data.
After the next fold nothing of the killed one is left.
"""

from __future__ import annotations

import collections
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]


def build(path: Path, layers: int = 24, width: int = 192) -> None:
    """A chain of convolutions with BatchNorms, 30 MB, its weights beside it."""
    rng = np.random.default_rng(0)
    nodes, held, last = [], [], "x"
    for k in range(layers):
        held.append(numpy_helper.from_array(rng.standard_normal((width, width, 3, 3)).astype("f4") / 40, f"w{k}"))
        held += [numpy_helper.from_array(rng.uniform(0.5, 1.5, width).astype("f4"), f"{p}{k}") for p in "sbmv"]
        nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], pads=[1] * 4))
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", *(f"{p}{k}" for p in "sbmv")], [f"n{k}"]))
        last = f"n{k}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width, 4, 4]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=1024)


def fold(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a fold of the model in ``folder`` to ``out.onnx``."""
    words = [sys.executable, "-m", "bnfold", "fold", "model.onnx", "-o", "out.onnx", "--no-verify", "--quiet", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=folder, env=env, stderr=subprocess.DEVNULL, start_new_session=True)


def digests(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {str(p.relative_to(folder)): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def complete(path: Path, reference: bytes) -> bool:
    """True if the model is the right one, and all its data is there."""
    if path.read_bytes() != reference:
        return False
    names = {entry.value for t in onnx.load(path, load_external_data=False).graph.initializer
             for entry in t.external_data if entry.key == "location"}  # fmt: skip
    return all((path.parent / name).is_file() for name in names)


def once(folder: Path, before: dict[str, str], right: dict[str, str], delay: float) -> str:
    """One kill, and what was found: ``absent``, ``complete``, or what is wrong."""
    process = fold(folder)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    now = digests(folder)
    if any(now.get(name) != digest for name, digest in before.items()):
        return "INPUT CHANGED"
    state = "absent" if "out.onnx" not in now else "complete"
    if state == "complete" and any(now.get(name) != digest for name, digest in right.items()):
        return "INCOMPLETE"
    time.sleep(1.1)  # folders younger than a second are left alone
    last = fold(folder, "--force")
    assert last.wait() == 0
    left = set(digests(folder)) - set(before) - set(right)
    left |= {entry.name for entry in folder.iterdir() if entry.name.startswith(".bnfold-")}
    # a complete first result keeps its data, the second gets its own: both are whole
    left -= {name for name in left if state == "complete" and name.startswith("out.onnx.data")}
    if left:
        return f"LEFT BEHIND: {sorted(left)}"
    for name in [entry.name for entry in folder.iterdir() if entry.name.startswith("out.onnx")]:
        (folder / name).unlink()
    return state


def main() -> None:
    """Run what the command line asks for."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng, found, start = random.Random(seed), collections.Counter(), time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build(folder / "model.onnx")
        before = digests(folder)
        began = time.time()
        assert fold(folder).wait() == 0
        longest = 1.2 * (time.time() - began)
        right = {name: digest for name, digest in digests(folder).items() if name not in before}
        for name in right:
            (folder / name).unlink()
        for index in range(count):
            state = once(folder, before, right, rng.uniform(0.3 * longest if index % 2 else 0, longest))
            found[state.split(":")[0]] += 1
            if state not in ("absent", "complete"):
                print(f"kill {index}: {state}", flush=True)
    print(dict(found), f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
