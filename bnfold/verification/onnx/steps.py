"""Runs of a quantized model and of its fold, integer tensor by integer tensor, in a process of their own.

Each part between quantized tensors is run alone, at each optimisation level, on the integers that the float64 run of
the original has there. So an error does not travel, and shows at its layer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from bnfold.errors import BnfoldError
from bnfold.frontends.onnx.extract import extract
from bnfold.frontends.onnx.nested import reads
from bnfold.io.load import LoadedModel, load
from bnfold.numerics.dequantize import spread_scale
from bnfold.verification.measurement.quantized_steps import StepErrors, beyond_rounding, reach
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from bnfold.verification.reference.quantization import flipping
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.jobs import serve
from bnfold.verification.runtime.worker import Session, load_arrays, save_arrays

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class StepsJob:
    """Compare ``folded`` with ``original`` on ``device`` in each of the ``modes``: part by part on the samples
    ``parts``; run the original in float64 with flipped integers on all ``samples``.
    """

    original: str
    folded: str
    inputs: list[str]
    samples: int
    parts: list[int]
    device: str
    modes: list[RunMode]


@dataclass(frozen=True)
class StepsResult:
    """``quantized`` is False where the original holds no quantized activation, or the fold not the same ones.

    Flipped outputs, of these names, go to ``flipped-<mode>-<sample>.npz``.
    """

    quantized: bool
    outputs: list[str]
    tensors: list[StepErrors]
    reason: str | None


def run(job: StepsJob, folder: Path) -> StepsResult:
    """Do the job. Raises NotInFloat64."""
    original, folded = load(job.original), load(job.folded)
    nodes = quantizers(original)
    if not nodes or nodes.keys() != quantizers(folded).keys():
        return StepsResult(False, [], [], None)
    comparison = _Comparison(original, folded, nodes, job)
    found: dict[tuple[str, str], StepErrors] = {}
    for sample in job.parts:
        for errors in comparison.errors(load_arrays(folder / f"input-{sample}.npz", job.inputs)):
            known = found.get((errors.name, errors.level), errors)
            found[errors.name, errors.level] = max(known, errors, key=lambda each: each.folded - each.original)
    for number, mode in enumerate(job.modes):
        flipped = Float64Model(original, [flipping(nodes, reach(mode.level))])
        for sample in range(job.samples):
            outputs = flipped.run(load_arrays(folder / f"input-{sample}.npz", job.inputs))
            save_arrays(folder / f"flipped-{number}-{sample}.npz", outputs.values())
    return StepsResult(True, comparison.outputs, list(found.values()), comparison.reason)


def quantizers(model: LoadedModel) -> dict[str, NodeProto]:
    """Return the QuantizeLinear nodes of the main graph that round an activation, by their outputs."""
    graph = model.proto.graph
    fixed = {tensor.name for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if all(name in fixed for name in reads(node) if name):
            fixed.update(node.output)
        elif node.op_type == "QuantizeLinear":
            found[node.output[0]] = node
    return found


class _Comparison:
    """Both models, cut at the quantized tensors; ``reason`` says why a part could not be judged."""

    def __init__(
        self, original: LoadedModel, folded: LoadedModel, nodes: Mapping[str, NodeProto], job: StepsJob
    ) -> None:
        self._nodes, self._job = nodes, job
        self._model = Float64Model(original)
        self._held = {tensor.name: original.external.read(tensor) for tensor in original.proto.graph.initializer
                      if any(tensor.name in node.input[1:3] for node in nodes.values())}  # fmt: skip
        self._kinds = {info.name: info.type.tensor_type.elem_type for info in original.proto.graph.input}
        self._models = original, folded
        self.outputs = self._model.outputs
        self.reason: str | None = None

    def errors(self, feed: Arrays) -> Iterator[StepErrors]:
        """Yield how far each part that a fold has changed is off, at each level, on one sample."""
        wanted = {*self._nodes, *(name for node in self._nodes.values() for name in node.input), *self._model.outputs}
        seen: Arrays = {}

        def observe(name: str, value: NDArray[Any]) -> None:
            if name in wanted:
                seen[name] = np.asarray(value)

        self._model.run(feed, observe)
        values = {**{name: seen[name] for name in self._nodes if name in seen}, **feed}
        for target in dict.fromkeys([*self._nodes, *self._model.outputs]):
            parts = [self._part(model, values, target) for model in self._models]
            if target not in seen or any(part is None for part in parts):
                self.reason = f"the part that makes {target!r} can't be cut out"
            elif parts[0] != parts[1]:
                before, after = (part for part in parts if part is not None)
                yield from self._compare(target, before, after, values, seen)

    def _part(self, model: LoadedModel, values: Arrays, target: str) -> ModelProto | None:
        """Return what makes ``target`` from the quantized tensors and inputs before it."""
        types = {
            name: self._kinds.get(name) or helper.np_dtype_to_tensor_dtype(value.dtype)
            for name, value in values.items()
            if name != target
        }
        part = extract(model, types, [target])
        if part is not None:
            used = {name for node in part.graph.node for name in reads(node)}
            kept = [info for info in part.graph.input if info.name in used]
            del part.graph.input[:]
            part.graph.input.extend(kept)
        return part

    def _compare(
        self, target: str, before: ModelProto, after: ModelProto, values: Arrays, seen: Arrays
    ) -> Iterator[StepErrors]:
        feed = {info.name: values[info.name] for info in before.graph.input}
        feed |= {info.name: values[info.name] for info in after.graph.input}
        for mode in self._job.modes:
            made = []
            for part in (before, after):
                session = Session(part.SerializeToString(), mode.level, self._job.device, mode.options, frugal=True)
                made.append(session.run(feed)[0])
            if target in self._nodes:
                steps, zero = self._in_steps(self._nodes[target], seen)
                apart = [beyond_rounding(array, steps, zero) for array in made]
            elif made[0].dtype.kind == "f":
                apart = [_size(array - seen[target]) / self._one_step(before, feed, seen[target]) for array in made]
            else:
                apart = [float((array != seen[target]).any()) for array in made]
            yield StepErrors(target, mode.level, apart[1], apart[0])

    def _in_steps(self, node: NodeProto, seen: Arrays) -> tuple[NDArray[Any], NDArray[Any] | float]:
        """Return what a QuantizeLinear rounds, over its scale, and its zero point."""
        x, attributes = seen[node.input[0]], {entry.name: entry.i for entry in node.attribute}
        axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
        held = [self._held[name] if name in self._held else seen[name] for name in node.input[1:] if name]
        scale = spread_scale(held[0], x.shape, axis, block)
        return x / scale, spread_scale(held[1], x.shape, axis, block) if len(held) > 1 else 0.0

    @staticmethod
    def _one_step(part: ModelProto, feed: Arrays, reference: NDArray[Any]) -> float:
        """Return what a part makes of one step, up or down, in each of its integers."""
        rng = np.random.default_rng(0)
        moved = {}
        for name, value in feed.items():
            if value.dtype.kind in "iu":
                limits = np.iinfo(value.dtype)
                step = rng.integers(0, 2, value.shape) * 2 - 1
                value = np.clip(value.astype(np.int64) + step, limits.min, limits.max).astype(value.dtype)
            moved[name] = value
        made = next(iter(Float64Model(LoadedModel.of(part)).run(moved).values()))
        return _size(made - reference) or float("inf")


def _size(error: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(error.astype(np.float64))))) if error.size else 0.0


if __name__ == "__main__":
    serve(sys.argv[1], StepsJob, run, NotInFloat64, BnfoldError)
