"""The float64 run of ONNX models in a process of its own, started by :func:`bnfold.verification.runtime.runner.spawn`.

It runs the original in float64, and its correctly rounded fold: the folded model itself where that is proved
(``exact``), else bnfold's own fold. On the way through the original it gives each folded subgraph its input, runs the
original and the folded subgraph on onnxruntime, and keeps nothing but the errors.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from bnfold.errors import BnfoldError, one_line
from bnfold.frontends.onnx.editor import SUFFIX
from bnfold.frontends.onnx.extract import extract
from bnfold.io.load import LoadedModel, load
from bnfold.numerics.rounding import ulp
from bnfold.progress import listening, to_file
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.equivalence.subgraphs import WITH_BIAS
from bnfold.verification.measurement.subgraph_errors import SubgraphErrors, SubgraphOutputs, subgraph_errors
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.jobs import DeviceUnavailable, serve
from bnfold.verification.runtime.perturbation import accumulated_noise
from bnfold.verification.runtime.worker import PROGRESS, Session, load_arrays, save_arrays

CURRENT_SUBGRAPH = "subgraph"
"""The file, beside the job, that names the subgraph which is being run."""


@dataclass(frozen=True)
class ReferenceJob:
    """Run ``original`` in float64 on each sample, and ``subgraphs`` on the first, on ``device`` in ``mode``.

    ``correctly_rounded`` asks for the correctly rounded fold too. ``slack``, ``exact``: see
    :class:`bnfold.verification.measurement.measured.ReferenceSpec`. ``k`` is the limit of the error ratio.

    With a ``noise_seed`` the correctly rounded fold alone is run, with noise as large as what sums lose that start at a
    bias.
    """

    original: str
    folded: str
    inputs: list[str]
    samples: int
    correctly_rounded: bool
    subgraphs: list[Subgraph]
    device: str
    mode: RunMode
    slack: float
    exact: bool
    k: float
    noise_seed: int | None


@dataclass(frozen=True)
class ReferenceResult:
    """The names of the outputs, whether there is a ``correctly_rounded`` fold, the errors of each subgraph by name."""

    outputs: list[str]
    correctly_rounded: bool
    subgraphs: dict[str, SubgraphErrors]


def run(job: ReferenceJob, folder: Path) -> ReferenceResult:
    """Outputs go to ``reference-<sample>.npz`` and ``correctly_rounded-<sample>.npz``. Raises NotInFloat64."""
    with listening(to_file(folder / PROGRESS)):
        original = load(job.original)
        model = Float64Model(original)

        def feed(sample: int) -> dict[str, Any]:
            return load_arrays(folder / f"input-{sample}.npz", job.inputs)

        checker = SubgraphChecker(job, original, folder) if job.subgraphs and job.noise_seed is None else None
        if job.noise_seed is None:
            for sample, made in enumerate(model.run_all(job.samples, feed, observe=checker)):
                save_arrays(folder / f"reference-{sample}.npz", made.values())
        if checker is not None:
            checker.finish()
        best = correctly_rounded_model(job, original) if job.correctly_rounded else None
        if best is not None and set(best.outputs) == set(model.outputs):
            seed = job.noise_seed
            noise = None if seed is None else lambda sample: AccumulatedNoise(seed + sample, feed(sample))
            for sample, made in enumerate(best.run_all(job.samples, feed, noise)):
                save_arrays(folder / f"correctly_rounded-{sample}.npz", [made[name] for name in model.outputs])
        else:
            best = None
    return ReferenceResult(model.outputs, best is not None, {} if checker is None else checker.judged)


class AccumulatedNoise:
    """An amendment of a float64 run: adds what sums lose that start at a bias."""

    def __init__(self, seed: int, feed: Mapping[str, NDArray[Any]]) -> None:
        self._rng = np.random.default_rng(seed)
        self._dtype = np.float64 if any(value.dtype == np.float64 for value in feed.values()) else np.float32

    def __call__(self, node: NodeProto, inputs: list[Any], made: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what an operator makes, with the noise."""
        if node.op_type not in WITH_BIAS or len(inputs) < 3 or inputs[2] is None or not inputs[2].any():
            return made
        noise = accumulated_noise(self._rng, made[0].shape, inputs[2], inputs[1].size, self._dtype)
        return made if noise is None else (made[0] + noise,)


def correctly_rounded_model(job: ReferenceJob, original: LoadedModel) -> Float64Model | None:
    """Return the correctly rounded fold, ready to run in float64; None if nothing is folded."""
    if job.exact:
        return Float64Model(load(job.folded))
    fold = _correctly_rounded_fold(original)
    if fold is None:
        return None
    _loosen(fold, job.slack)
    return Float64Model(fold)


def _correctly_rounded_fold(original: LoadedModel) -> LoadedModel | None:
    """Return the original as bnfold folds it; None if nothing is folded."""
    from bnfold.frontends.onnx.fold import OnnxFoldable  # most runs do without a fold of their own
    from bnfold.options import PlanOptions
    from bnfold.planner.prepare import prepare, rewrite

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


class SubgraphChecker:
    """An observer of the original's float64 run that runs each subgraph as soon as its inputs are there."""

    def __init__(self, job: ReferenceJob, original: LoadedModel, folder: Path) -> None:
        self._job, self._original, self._folded = job, original, load(job.folded)
        self._progress = folder / CURRENT_SUBGRAPH
        self._consumers: dict[str, int] = {}
        self._by_input: dict[str, list[Subgraph]] = {}
        for subgraph in job.subgraphs:
            for end in subgraph.inputs:
                self._consumers[end.original] = self._consumers.get(end.original, 0) + 1
            for name in {end.original for end in subgraph.inputs}:
                self._by_input.setdefault(name, []).append(subgraph)
        self._seen: dict[str, NDArray[Any]] = {}
        graph = original.proto.graph
        self._shape_names = {name for node in graph.node if node.op_type == "Shape" for name in node.output}
        self._shapes: dict[str, NDArray[Any]] = {}
        self._late: list[tuple[Subgraph, dict[str, NDArray[Any]]]] = []
        self.judged: dict[str, SubgraphErrors] = {}

    def __call__(self, name: str, value: NDArray[Any]) -> None:
        """Take a value of the original that has been computed."""
        if name in self._shape_names:
            self._shapes[name] = np.asarray(value)
        if name not in self._consumers:
            return
        self._seen[name] = np.asarray(value)
        for subgraph in self._by_input.get(name, ()):
            if all(end.original in self._seen for end in subgraph.inputs):
                self._progress.write_text(subgraph.name)
                self.judged[subgraph.name] = self._judge(subgraph, self._seen)
                for end in subgraph.inputs:
                    self._consumers[end.original] -= 1
                    if not self._consumers[end.original]:
                        self._seen.pop(end.original, None)

    def finish(self) -> None:
        """Judge the subgraphs that need the shape of a value which the run made after their inputs."""
        late, self._late = self._late, []
        for subgraph, seen in late:
            self._progress.write_text(subgraph.name)
            self.judged[subgraph.name] = self._judge(subgraph, seen)

    def _judge(self, subgraph: Subgraph, seen: Mapping[str, NDArray[Any]]) -> SubgraphErrors:
        inputs = {e.original: e.original_type for e in subgraph.inputs}
        before = self._part(self._original, inputs, _unique(subgraph, "original"))
        inputs = {e.folded: e.folded_type for e in subgraph.inputs}
        after = self._part(self._folded, inputs, _unique(subgraph, "folded"))
        if before is None or after is None:
            self._late.append((subgraph, {e.original: seen[e.original] for e in subgraph.inputs}))
            return SubgraphErrors(skipped="it can't be cut out")
        values = {e.original: _stored(seen[e.original], e.original_type) for e in subgraph.inputs}
        theirs = {e.folded: _stored(values[e.original], e.folded_type) for e in subgraph.inputs}
        expected = self._run(before, values)
        if isinstance(expected, str):
            return SubgraphErrors(skipped=f"the original subgraph does not run: {expected}")
        actual = self._run(after, theirs)
        if isinstance(actual, str):
            return SubgraphErrors(failed=f"the folded subgraph does not run: {actual}")
        try:
            reference = Float64Model(LoadedModel.of(before)).run(values)
            best: dict[str, NDArray[Any]] | None
            if self._job.exact:
                made = Float64Model(LoadedModel.of(after)).run(theirs)
                best = {e.original: made[e.folded] for e in subgraph.outputs}
            else:
                fold = _correctly_rounded_fold(LoadedModel.of(before))
                best = None if fold is None else Float64Model(fold).run(values)
        except NotInFloat64 as error:
            return SubgraphErrors(skipped=str(error))
        powers = [np.square(value.astype(np.float64)).mean() for value in values.values() if value.dtype.kind == "f"]
        outputs = SubgraphOutputs(expected, actual, reference, best)
        return subgraph_errors(subgraph, outputs, powers, self._job.slack, self._job.k)

    def _part(self, model: LoadedModel, inputs: dict[str, int], wanted: list[str]) -> ModelProto | None:
        """Return a subgraph as a model; shapes of what lies before it are constants only where it can't be cut else."""
        part = extract(model, inputs, wanted)
        return extract(model, inputs, wanted, self._shapes) if part is None else part

    def _run(self, model: ModelProto, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | str:
        """Return a subgraph's outputs on onnxruntime, or why it does not run."""
        try:
            session = Session(model.SerializeToString(), "disable", self._job.device, self._job.mode.options)
            return dict(zip(session.outputs, session.run(feed), strict=True))
        except DeviceUnavailable:
            raise
        except Exception as error:  # whatever onnxruntime raises is the answer
            return one_line(error)


def _unique(subgraph: Subgraph, side: str) -> list[str]:
    return list(dict.fromkeys(getattr(end, side) for end in subgraph.outputs))


def _stored(value: NDArray[Any], element_type: int) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return value.astype(helper.tensor_dtype_to_np_dtype(element_type))


if __name__ == "__main__":
    serve(sys.argv[1], ReferenceJob, run, NotInFloat64, BnfoldError)
