"""A float64 run that decides as another run did, in a process of its own.

Started by :func:`bnfold.verification.runtime.runner.spawn`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from bnfold.errors import BnfoldError
from bnfold.io.load import load
from bnfold.verification.measurement.decisions import COMPARISONS, DECISIONS, gap
from bnfold.verification.onnx.worker import AccumulatedNoise, ReferenceJob, correctly_rounded_model
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from bnfold.verification.runtime.jobs import serve
from bnfold.verification.runtime.worker import load_arrays, save_arrays

INTEGERS = frozenset(
    {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)


@dataclass(frozen=True)
class DecidedJob:
    """Run the model of a :class:`ReferenceJob`, or its correctly rounded fold, with the decisions that were ``made``.

    ``made`` names values; those of each sample lie in ``made-<sample>.npz``.
    """

    job: ReferenceJob
    fold: bool
    made: list[str]


@dataclass(frozen=True)
class DecidedResult:
    """The names of the outputs, the largest gap of the flips in each decision, and how many inputs each has."""

    outputs: list[str]
    gaps: dict[str, float]
    inputs: dict[str, int]


def kind_of(node: NodeProto) -> tuple[str, str] | None:
    """Return which decision a node of the standard operators makes, and the name of the value that holds it."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Cast":
        to = next((entry.i for entry in node.attribute if entry.name == "to"), 0)
        return ("NonZero" if to == TensorProto.BOOL else "Truncate", node.output[0]) if to in INTEGERS else None
    if node.op_type not in DECISIONS:
        return None
    place = 1 if node.op_type == "TopK" else 0
    return (node.op_type, node.output[place]) if len(node.output) > place and node.output[place] else None


class FollowedDecisions:
    """An amendment of a float64 run: decisions are replaced by those that were made, and their inputs kept."""

    def __init__(self, made: Mapping[str, NDArray[Any]]) -> None:
        self._made = made
        self.gaps: dict[str, float] = {}
        self.seen: dict[str, list[NDArray[Any]]] = {}

    def __call__(self, node: NodeProto, inputs: list[Any], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what follows from the decision that was made."""
        found = kind_of(node)
        if found is None or found[1] not in self._made:
            return outputs
        kind, name = found
        forced, values = self._made[name], [np.asarray(value) for value in inputs if value is not None]
        values = values[: 2 if kind in COMPARISONS else 1]
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), -1 if kind == "TopK" else 0)
        own = np.asarray(outputs[1 if kind == "TopK" else 0])
        self.gaps[name] = max(self.gaps.get(name, 0.0), gap(kind, values, own, forced, axis))
        self.seen[name] = values
        if not np.isfinite(self.gaps[name]):
            raise NotInFloat64(f"{node.op_type} decides what nothing leads to")
        if kind == "TopK":
            indices = forced % values[0].shape[axis]
            return np.take_along_axis(values[0], indices, axis), forced
        return (forced.astype(own.dtype),)


def run(job: DecidedJob, folder: Path) -> DecidedResult:
    """Outputs go to ``reference-<sample>.npz``, inputs of decisions to ``seen-<sample>.npz``. Raises NotInFloat64."""
    original = load(job.job.original)
    model = correctly_rounded_model(job.job, original) if job.fold else Float64Model(original)
    if model is None:
        raise NotInFloat64("there is no fold")
    gaps: dict[str, float] = {}
    inputs: dict[str, int] = {}
    for sample in range(job.job.samples):
        feed = load_arrays(folder / f"input-{sample}.npz", job.job.inputs)
        followed = FollowedDecisions(load_arrays(folder / f"made-{sample}.npz", job.made))
        noise = None if job.job.noise_seed is None else AccumulatedNoise(job.job.noise_seed + sample, feed)

        def amend(
            node: NodeProto,
            values: list[Any],
            outputs: tuple[Any, ...],
            noise: AccumulatedNoise | None = noise,
            followed: FollowedDecisions = followed,
        ) -> tuple[Any, ...]:
            return followed(node, values, outputs if noise is None else noise(node, values, outputs))

        save_arrays(folder / f"reference-{sample}.npz", model.run(feed, amend=amend).values())
        missing = set(job.made) - followed.seen.keys()
        if missing:
            raise NotInFloat64("a decision is not made")
        save_arrays(folder / f"seen-{sample}.npz", [value for name in job.made for value in followed.seen[name]])
        gaps = {name: max(gaps.get(name, 0.0), found) for name, found in followed.gaps.items()}
        inputs = {name: len(followed.seen[name]) for name in job.made}
    return DecidedResult(model.outputs, gaps, inputs)


if __name__ == "__main__":
    serve(sys.argv[1], DecidedJob, run, NotInFloat64, BnfoldError)
