"""What both ONNX models decide in a run, and the float64 runs that decide alike.

See :mod:`bnfold.verification.measurement.decisions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load
from bnfold.io.save import staged
from bnfold.options import RunOptions
from bnfold.verification.measurement.decisions import COMPARISONS, Decided, Deciding
from bnfold.verification.measurement.measured import Outputs
from bnfold.verification.onnx.decided_worker import DecidedJob, DecidedResult, kind_of
from bnfold.verification.onnx.worker import ReferenceJob
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import Sample
from bnfold.verification.runtime.runner import Run
from bnfold.verification.runtime.worker import load_arrays, save_arrays

WORKER = "bnfold.verification.onnx.decided_worker"

MOST = 64
"""Decisions that are looked at; a model with more is judged without."""


@dataclass(frozen=True)
class Decision:
    """A decision: the value that holds it, and the values that decide, None for those that are constant."""

    name: str
    inputs: list[str | None]


def decisions_of(model: LoadedModel) -> tuple[list[Decision], bool]:
    """Return the decisions that the main graph makes by floats which are computed, in order; and if these are all."""
    graphs = OnnxGraphs(model.proto, model.external)
    graph, complete = graphs.scopes[0], not graphs.bodies
    found = []
    for node in graph.nodes:
        known = kind_of(node.handle) if isinstance(node.handle, NodeProto) else None
        values = [value for value in node.inputs if value is not None]
        if known is not None:
            values = values[: 2 if known[0] in COMPARISONS else 1]
        computed = [value for value in values if not graph.constants.is_constant(value)]
        if not any(value.dtype is None or value.dtype.kind == "f" for value in computed):
            continue
        if known is not None:
            found.append(Decision(known[1], [value.name if value in computed else None for value in values]))
        elif node.op not in ("Shape", "Size"):
            complete &= all(value.dtype is not None and value.dtype.kind == "f" for value in node.live_outputs)
    return found, complete


def decided_runs(
    original: LoadedModel,
    folded: Path,
    job: ReferenceJob,
    samples: list[Sample],
    options: RunOptions,
    modes: Sequence[RunMode],
    known: tuple[Run, Run],
) -> list[Decided | None]:
    """Return for each mode the float64 runs that decide as both models did; None where that can't be said.

    ``known`` are the runs of both models. Raises RunFailed.
    """
    decisions, complete = decisions_of(original)
    if not decisions or len(decisions) > MOST:
        return [None] * len(modes)
    other = load(folded)
    theirs = decisions_of(other)[0]  # in the same order; a pair that is none decides what nothing leads to
    if len(theirs) != len(decisions):
        return [None] * len(modes)
    run = _Runs(job, samples, options, decisions, complete)
    names = [name for decision in decisions for name in (decision.name, *decision.inputs) if name is not None]
    first = run.exposed(original, names, modes)
    second = run.exposed(other, [decision.name for decision in theirs], modes)
    made = [[{d.name: s[t.name] for d, t in zip(decisions, theirs, strict=True)} for s in mode] for mode in second]
    return [
        run.decided(first[number], made[number])
        if _same(first[number], known[0].outputs[number]) and _same(second[number], known[1].outputs[number])
        else None
        for number in range(len(modes))
    ]


def _same(exposed: Outputs, known: Outputs) -> bool:
    """Return True if a run gave the very bits once more, with more outputs."""
    pairs = [(one[name], value) for one, outputs in zip(exposed, known, strict=True) for name, value in outputs.items()]
    return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


@dataclass(frozen=True)
class _Wide:
    """A float64 run by sample: outputs, the values that decide by decision and input, and the gaps by decision."""

    outputs: Outputs
    seen: list[dict[str, list[NDArray[Any]]]]
    gaps: dict[str, float]


@dataclass(frozen=True)
class _Runs:
    job: ReferenceJob
    samples: list[Sample]
    options: RunOptions
    decisions: list[Decision]
    complete: bool

    def exposed(self, model: LoadedModel, names: Sequence[str], modes: Sequence[RunMode]) -> list[Outputs]:
        """Run a model with these values among its outputs. Raises RunFailed."""
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        known = {info.name for info in (*proto.graph.output, *proto.graph.input)}
        proto.graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in known)
        with temporary() as folder, staged(replace(model, proto=proto), folder / "m.onnx") as files:
            run = runtime.run(files.model, self.samples, list(modes), self.options.device, self.options.limits)
        return run.outputs

    def decided(self, original: Outputs, folded: Outputs) -> Decided:
        """Return the float64 runs that decide as both did. Raises RunFailed."""
        reference = self._wide(folded, fold=False)
        same = all(
            np.array_equal(a[d.name], b[d.name]) for a, b in zip(original, folded, strict=True) for d in self.decisions
        )
        if same and not any(reference.gaps.values()):  # nothing else needs to be run
            outputs = reference.outputs
            return Decided(outputs, outputs, outputs, [{} for _ in outputs], reference.gaps, self.complete, {})
        own = reference if same else self._wide(original, fold=False)
        best = self._wide(folded, fold=True)
        noisy = self._wide(folded, fold=True, noise_seed=self.options.inputs.seed)
        deciding = {
            decision.name: [
                [
                    Deciding(np.asarray(wide if name is None else original[k].get(name, wide)), wide, a, b)
                    for name, wide, a, b in zip(
                        decision.inputs,
                        own.seen[k][decision.name],
                        reference.seen[k][decision.name],
                        best.seen[k][decision.name],
                        strict=True,
                    )
                ]
                for k in range(len(self.samples))
            ]
            for decision in self.decisions
        }
        lost = [
            {
                name: array - clean[name]
                for name, array in sample.items()
                if array.shape == clean[name].shape and array.dtype.kind == "f"
            }
            for sample, clean in zip(noisy.outputs, best.outputs, strict=True)
        ]
        gaps = {name: max(found, own.gaps[name]) for name, found in reference.gaps.items()}
        return Decided(reference.outputs, own.outputs, best.outputs, lost, gaps, self.complete, deciding)

    def _wide(self, made: Outputs, *, fold: bool, noise_seed: int | None = None) -> _Wide:
        names = [decision.name for decision in self.decisions]
        job = DecidedJob(replace(self.job, noise_seed=noise_seed, subgraphs=[]), fold, names)
        with runtime.job_folder(self.samples) as folder:
            for k, sample in enumerate(made):
                save_arrays(folder / f"made-{k}.npz", [sample[name] for name in names])
            result = runtime.spawn(WORKER, folder, job, DecidedResult, self.options.limits, task="what models decide")
            flat = [(name, place) for name in names for place in range(result.inputs[name])]
            outputs: Outputs = []
            seen: list[dict[str, list[NDArray[Any]]]] = []
            for k in range(len(self.samples)):
                outputs.append(load_arrays(folder / f"reference-{k}.npz", result.outputs))
                arrays = load_arrays(folder / f"seen-{k}.npz", [f"{place} {name}" for name, place in flat])
                seen.append({name: [arrays[f"{p} {name}"] for p in range(result.inputs[name])] for name in names})
            return _Wide(outputs, seen, result.gaps)
