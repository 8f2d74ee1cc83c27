"""One run of one model on onnxruntime, in a process of its own: ``python -m bnfold.verification.worker JOB.json``.

onnxruntime can crash and a hostile model may make it: the tool itself must survive that. This is the only
file that imports onnxruntime.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def main(job_path: str) -> None:
    """Do what the job file says and leave ``result.json`` and the outputs beside it."""
    job = json.loads(Path(job_path).read_text())
    folder = Path(job_path).parent
    try:
        result = run(job, folder)
    except Exception as error:  # whatever onnxruntime raises is the answer
        result = {"error": f"{type(error).__name__}: {error}"}
    (folder / "result.json").write_text(json.dumps(result))


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Load the model once, run every sample, store the outputs of each as ``output-<sample>.npz``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[job["level"]])
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    wanted = [item.name for item in session.get_inputs()]
    names = [item.name for item in session.get_outputs()]
    for sample in range(job["samples"]):
        with np.load(folder / f"input-{sample}.npz") as stored:
            feed = {name: stored[key] for key, name in enumerate_keys(job["inputs"]) if name in wanted}
        outputs = session.run(names, feed)
        for name, value in zip(names, outputs, strict=True):
            if np.asarray(value).dtype.kind not in "fiub":
                return {"error": f"output {name!r} is not a tensor of numbers that numpy knows"}
        arrays: dict[str, Any] = {f"o{index}": np.asarray(value) for index, value in enumerate(outputs)}
        np.savez(folder / f"output-{sample}.npz", **arrays)
    return {
        "outputs": names,
        "providers": session.get_providers(),
        "onnxruntime": onnxruntime.__version__,
    }


def enumerate_keys(names: list[str]) -> list[tuple[str, str]]:
    """The key under which each input is stored (names of tensors can't be names of zip members)."""
    return [(f"i{index}", name) for index, name in enumerate(names)]


if __name__ == "__main__":
    main(sys.argv[1])
