"""The float64 run in a process of its own, started by :func:`bnfold.verification.runtime.runner.spawn`.

It runs the original in float64, and the best fold of it that there is, each weight rounded once: the folded model
itself where that is proved (``exact``), else bnfold's own.
On the way through the original it hands each piece that was folded its input, runs the piece and its folded counterpart
on onnxruntime, and keeps nothing but the figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from bnfold.errors import BnfoldError, one_line
from bnfold.frontends.onnx.editor import SUFFIX
from bnfold.frontends.onnx.fold import OnnxFoldable
from bnfold.io.load import LoadedModel, load
from bnfold.numerics.rounding import ulp
from bnfold.options import PlanOptions
from bnfold.planner.prepare import prepare, rewrite
from bnfold.progress import listening, to_file
from bnfold.verification.equivalence.subgraphs import Subgraph, extract
from bnfold.verification.error_model import ErrorAccumulator
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from bnfold.verification.runtime.worker import PROGRESS, DeviceMissing, Session, load_arrays


def main(job_path: str) -> None:
    """Do what the job file says and leave ``result.json`` beside it."""
    job = json.loads(Path(job_path).read_text())
    try:
        result = run(job, Path(job_path).parent)
    except DeviceMissing as error:
        result = {"error": str(error), "device": True}
    except (NotInFloat64, BnfoldError, MemoryError) as error:
        result = {"error": str(error) or "it does not fit into memory"}
    (Path(job_path).parent / "result.json").write_text(json.dumps(result))


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Outputs go to ``true-<sample>.npz`` and ``ideal-<sample>.npz``; the figures of the pieces are the result."""
    with listening(to_file(folder / PROGRESS)):
        return _run(job, folder)


def _run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    original = load(job["original"])
    model = Float64Model(original)
    judged: dict[str, Any] = {}
    for sample in range(job["samples"]):
        feed = load_arrays(folder / f"input-{sample}.npz", job["inputs"])
        checker = SubgraphChecker(job, original, folder) if sample == 0 and job["pieces"] else None
        outputs = model.run(feed, checker)
        np.savez(folder / f"true-{sample}.npz", **_numbered(outputs))
        judged = checker.judged if checker is not None else judged
    correctly_rounded = None
    if job["ideal"]:
        correctly_rounded = load(job["folded"]) if job["exact"] else _correctly_rounded_fold(original)
    if correctly_rounded is not None:
        if not job["exact"]:
            _loosen(correctly_rounded, job["slack"])
        best = Float64Model(correctly_rounded)
        if set(best.outputs) != set(model.outputs):
            correctly_rounded = None
    if correctly_rounded is not None:
        for sample in range(job["samples"]):
            feed = load_arrays(folder / f"input-{sample}.npz", job["inputs"])
            made = best.run(feed)
            np.savez(folder / f"ideal-{sample}.npz", **_numbered({name: made[name] for name in model.outputs}))
    return {"outputs": model.outputs, "ideal": correctly_rounded is not None, "pieces": judged}


def _numbered(outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {f"a{index}": value for index, value in enumerate(outputs.values())}


def _correctly_rounded_fold(original: LoadedModel) -> LoadedModel | None:
    """The original as bnfold folds it; None if nothing is folded."""
    try:
        ready = prepare(OnnxFoldable(original), PlanOptions(freeze=True))
        return rewrite(ready).loaded if ready.changed else None
    except BnfoldError:
        return None


def _loosen(model: LoadedModel, ulps: float) -> None:
    """Move the scale of each folded channel at random, as folding in the storage type may."""
    rng = np.random.default_rng(0)
    for tensor in model.proto.graph.initializer if ulps else ():
        if SUFFIX in tensor.name and tensor.dims:
            data = model.external.read(tensor)
            if data.dtype.kind == "f":
                step = 2 * ulps * (ulp(np.ones(()), data.dtype) / 2)
                shape = [len(data), *(1 for _ in data.shape[1:])]
                moved = data.astype(np.float64) * (1 + step * rng.uniform(-1, 1, shape))
                tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


@dataclass(frozen=True)
class Sizes:
    """What :class:`ErrorAccumulator` needs to know of rounding.

    ``terms`` are the sizes of each channel's terms, ``slack`` is in ulps, ``k`` the limit.
    """

    terms: NDArray[Any] | None
    slack: float
    k: float


class SubgraphChecker:
    """Watches the float64 run of the original go by, and judges each piece as soon as its inputs are there."""

    def __init__(self, job: dict[str, Any], original: LoadedModel, folder: Path) -> None:
        self._original, self._folded = original, load(job["folded"])
        self._device, self._options, self._slack = job["device"], job["options"], job["slack"]
        self._k, self._exact = job["k"], job["exact"]
        self._progress = folder / "piece"
        self._waiting = [Subgraph.from_dict(subgraph) for subgraph in job["pieces"]]
        self._readers: dict[str, int] = {}
        for subgraph in self._waiting:
            for end in subgraph.inputs:
                self._readers[end.original] = self._readers.get(end.original, 0) + 1
        self._by_input: dict[str, list[Subgraph]] = {}
        for subgraph in self._waiting:
            for name in {end.original for end in subgraph.inputs}:
                self._by_input.setdefault(name, []).append(subgraph)
        self._seen: dict[str, NDArray[Any]] = {}
        self.judged: dict[str, Any] = {}

    def __call__(self, name: str, value: NDArray[Any]) -> None:
        """A value of the original has been computed."""
        if name not in self._readers:
            return
        self._seen[name] = np.asarray(value)
        for subgraph in self._by_input.get(name, ()):
            if all(end.original in self._seen for end in subgraph.inputs):
                self._progress.write_text(subgraph.name)
                self.judged[subgraph.name] = self._judge(subgraph)
                for end in subgraph.inputs:
                    self._readers[end.original] -= 1
                    if not self._readers[end.original]:
                        self._seen.pop(end.original, None)

    def _judge(self, subgraph: Subgraph) -> dict[str, Any]:
        """The figures of one piece, or why there are none."""
        before = extract(
            self._original, {e.original: e.original_type for e in subgraph.inputs}, _unique(subgraph, "original")
        )
        after = extract(self._folded, {e.folded: e.folded_type for e in subgraph.inputs}, _unique(subgraph, "folded"))
        if before is None or after is None:
            return {"skipped": "it can't be cut out"}
        values = {e.original: _stored(self._seen[e.original], e.original_type) for e in subgraph.inputs}
        theirs = {e.folded: _stored(values[e.original], e.folded_type) for e in subgraph.inputs}
        expected = self._run(before, values)
        if isinstance(expected, str):
            return {"skipped": f"the original piece does not run: {expected}"}
        actual = self._run(after, theirs)
        if isinstance(actual, str):
            return {"failed": f"the folded piece does not run: {actual}"}
        try:
            reference = Float64Model(_in_memory(before)).run(values)
            if self._exact:
                made = Float64Model(_in_memory(after)).run(theirs)
                correctly_rounded: dict[str, NDArray[Any]] | None = {
                    e.original: made[e.folded] for e in subgraph.outputs
                }
            else:
                best = _correctly_rounded_fold(_in_memory(before))
                correctly_rounded = None if best is None else Float64Model(best).run(values)
        except NotInFloat64 as error:
            return {"skipped": str(error)}
        fed = [np.square(value.astype(np.float64)).mean() for value in values.values() if value.dtype.kind == "f"]
        sizes = np.asarray(subgraph.norms) * float(np.sqrt(max(fed, default=0.0)))
        sizes = sizes + np.asarray(subgraph.terms) if len(subgraph.terms) in (1, len(sizes)) else sizes
        return figures(
            subgraph,
            expected,
            actual,
            reference,
            correctly_rounded,
            Sizes(sizes if sizes.size else None, self._slack, self._k),
        )

    def _run(self, model: ModelProto, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | str:
        """A piece's outputs on onnxruntime, or why it does not run."""
        try:
            session = Session(model.SerializeToString(), "disable", self._device, self._options)
            return dict(zip(session.outputs, session.run(feed), strict=True))
        except DeviceMissing:
            raise
        except Exception as error:  # whatever onnxruntime raises is the answer
            return one_line(error)


def figures(
    subgraph: Subgraph,
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    correctly_rounded: Mapping[str, NDArray[Any]] | None,
    sizes: Sizes,
) -> dict[str, Any]:
    """What one piece's outputs show: the worst ratio of its ends, or why the folded piece is wrong altogether."""
    worst: dict[str, Any] = {"ratio": 0.0, "max_abs": 0.0, "noisy": False, "channels": []}
    for end in subgraph.outputs:
        a, b, t = expected[end.original], actual[end.folded], reference[end.original]
        if a.shape != b.shape:
            return {"failed": f"it makes {list(b.shape)} in place of {list(a.shape)}"}
        dtype = a.dtype if a.dtype.itemsize <= b.dtype.itemsize else b.dtype
        a, b = (x.astype(np.float32) if x.dtype.name == "bfloat16" else x for x in (a, b))
        if a.dtype.kind not in "f" or t.shape != a.shape:
            continue
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return {"failed": "it makes NaN or infinity in other places"}
        if not np.isfinite(a).all() or not np.isfinite(t).all():
            continue
        accumulator = ErrorAccumulator(dtype, subgraph.axis, sizes.terms, sizes.slack)
        accumulator.add(
            b.astype(np.float64), a, t, None if correctly_rounded is None else correctly_rounded.get(end.original)
        )
        if accumulator.error_ratio >= worst["ratio"]:
            worst = {"ratio": accumulator.error_ratio, "max_abs": accumulator.max_abs, "noisy": accumulator.too_noisy}
            worst["channels"] = accumulator.channels(sizes.k)
    return worst


def _unique(subgraph: Subgraph, side: str) -> list[str]:
    return list(dict.fromkeys(getattr(end, side) for end in subgraph.outputs))


def _stored(value: NDArray[Any], element_type: int) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return value.astype(helper.tensor_dtype_to_np_dtype(element_type))


def _in_memory(model: ModelProto) -> LoadedModel:
    return LoadedModel.of(model)


if __name__ == "__main__":
    main(sys.argv[1])
