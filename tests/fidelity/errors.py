"""Compare the errors of folds of one model against float64.

    python tests/fidelity/errors.py MODEL.onnx FOLDED.onnx MODEL.npz

`MODEL.npz` is what `export.py` writes: inputs, and what the network computes of them in float64. The peers are
onnxruntime's offline save at level basic, onnxsim and onnxslim, where they can do the model. Each model runs on
onnxruntime without optimisation. Prints a line of JSON: by output and by tool the rms error, relative to the output.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def session(path, level, saved=None):
    """Return a session of onnxruntime, which saves the optimised model where `saved` says."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    if saved:
        options.optimized_model_filepath = str(saved)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def by_onnxruntime(source, target):
    """Fold with onnxruntime."""
    session(source, "ORT_ENABLE_BASIC", target)


def by_onnxsim(source, target):
    """Fold with onnxsim."""
    import onnx
    import onnxsim

    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def by_onnxslim(source, target):
    """Fold with onnxslim."""
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


PEERS = {"onnxruntime": by_onnxruntime, "onnxsim": by_onnxsim, "onnxslim": by_onnxslim}


def peer_folds(source, folder):
    """Return the files that the peers write; each works in a process of its own, which may crash."""
    folds = {}
    for peer in PEERS:
        target = pathlib.Path(folder) / f"{peer}.onnx"
        code = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r}); import errors; "
        code += f"errors.PEERS[{peer!r}]({str(source)!r}, {str(target)!r})"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, timeout=600)
        if done.returncode == 0 and target.exists():
            folds[peer] = target
    return folds


def errors(path, reference):
    """Return the rms error of each output over all inputs, relative to the rms of the output."""
    running = session(path, "ORT_DISABLE_ALL")
    name = running.get_inputs()[0].name
    runs = [running.run(None, {name: x}) for x in reference["x"]]
    found = []
    for index in range(len(runs[0])):
        true = reference[f"y{index}"]
        off = np.stack([run[index] for run in runs]) - true
        found.append(float(np.sqrt(np.mean(off**2) / np.mean(true**2))))
    return found


def compare(source, folded, reference):
    """Return the errors of the original, of the fold, and of the peers' folds, those that run."""
    with tempfile.TemporaryDirectory() as folder, np.load(reference) as arrays:
        found = {"original": errors(source, arrays), "bnfold": errors(folded, arrays)}
        for peer, path in peer_folds(source, folder).items():
            with contextlib.suppress(Exception):  # onnxruntime says of a model that it is wrong in many ways
                found[peer] = errors(path, arrays)
        return found


def worst_ratio(found):
    """Return the largest ratio, over the outputs, of the fold's error and the larger of the original's and the best
    peer's."""
    ratios = []
    for index, own in enumerate(found["bnfold"]):
        peers = [found[tool][index] for tool in PEERS if tool in found]
        ratios.append(own / max(found["original"][index], *([min(peers)] if peers else [])))
    return max(ratios)


if __name__ == "__main__":
    result = compare(*sys.argv[1:])
    print(json.dumps({"file": sys.argv[1], "ratio": worst_ratio(result), **result}))
