"""Latency of several models on onnxruntime, in interleaved runs. A helper of ``performance.py``.

``python -m benchmarks.latency '{"name": "file", …}' '[1, 3, 8, 8]'`` prints the median milliseconds per model and
optimisation level as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

ROUNDS = 15
LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def main() -> None:
    """Measure."""
    files, shape = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    found: dict[str, dict[str, float]] = {name: {} for name in files}
    for level, value in LEVELS.items():
        sessions = {}
        for name, path in files.items():
            options = ort.SessionOptions()
            options.graph_optimization_level = value
            options.log_severity_level = 4
            try:
                session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                session.run(None, {"x": x})
            except Exception:  # a model that does not run has no latency
                continue
            sessions[name] = session
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                start = time.perf_counter()
                session.run(None, {"x": x})
                times[name].append(1000 * (time.perf_counter() - start))
        for name, values in times.items():
            found[name][level] = statistics.median(values)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
