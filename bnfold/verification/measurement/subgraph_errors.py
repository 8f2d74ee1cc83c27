"""The error of one folded subgraph: what it makes, beside what the original's makes and beside float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.measurement.error_model import ErrorAccumulator
from bnfold.wording import shape

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SubgraphErrors:
    """The worst output of a subgraph: ``error_ratio``, largest difference, the channels that are off by themselves.

    ``noisy``: the original's own error could hide a fault. ``failed`` says why the folded subgraph is wrong altogether,
    ``skipped`` why there are no figures.
    """

    error_ratio: float = 0.0
    max_abs: float = 0.0
    noisy: bool = False
    channels: list[int] = field(default_factory=list)
    failed: str | None = None
    skipped: str | None = None


@dataclass(frozen=True)
class SubgraphOutputs:
    """What a subgraph makes of one input: in the original and in float64 by the original's names, and when folded.

    ``correctly_rounded`` is the fold whose weights are rounded once, in float64; None where there is none.
    """

    original: Arrays
    folded: Arrays
    reference: Arrays
    correctly_rounded: Arrays | None


def subgraph_errors(
    subgraph: Subgraph, made: SubgraphOutputs, powers: Iterable[float], slack: float, k: float
) -> SubgraphErrors:
    """Compare a subgraph's outputs. ``powers`` are the mean squares of its inputs, ``k`` is the limit of the ratio.

    ``slack``: see :class:`bnfold.verification.measurement.error_model.ErrorAccumulator`.
    """
    terms = _sizes_of_terms(subgraph, powers)
    worst = SubgraphErrors()
    for end in subgraph.outputs:
        a, b, t = made.original[end.original], made.folded[end.folded], made.reference[end.original]
        if a.shape != b.shape:
            return SubgraphErrors(failed=f"its output has shape {shape(b.shape)}, not {shape(a.shape)}")
        dtype = a.dtype if a.dtype.itemsize <= b.dtype.itemsize else b.dtype
        a, b = (x.astype(np.float32) if x.dtype.name == "bfloat16" else x for x in (a, b))
        if a.dtype.kind not in "f" or t.shape != a.shape:
            continue
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return SubgraphErrors(failed="it has NaN or infinity in other places")
        if not np.isfinite(a).all() or not np.isfinite(t).all():
            continue
        best = None if made.correctly_rounded is None else made.correctly_rounded.get(end.original)
        errors = ErrorAccumulator(dtype, subgraph.axis, terms, slack)
        errors.add(b.astype(np.float64), a, t, best, _accumulated(subgraph, t))
        if errors.error_ratio >= worst.error_ratio:
            worst = SubgraphErrors(errors.error_ratio, errors.max_abs, errors.too_noisy, errors.channels(k))
    return worst


def _accumulated(subgraph: Subgraph, reference: NDArray[Any]) -> NDArray[Any] | None:
    """Return what running sums that start at a bias lose, for an output of this shape; None where that is not known."""
    losses, axis = np.asarray(subgraph.accumulated), subgraph.axis
    if not losses.size or reference.ndim <= axis or reference.shape[axis] != losses.size:
        return None
    return np.broadcast_to(losses.reshape(-1, *(1,) * (reference.ndim - axis - 1)), reference.shape)


def _sizes_of_terms(subgraph: Subgraph, powers: Iterable[float]) -> NDArray[Any] | None:
    """Return the size of what each channel is added up from: products of weights and inputs, terms of the offset."""
    sizes = np.asarray(subgraph.norms) * float(np.sqrt(max(powers, default=0.0)))
    if len(subgraph.terms) in (1, len(sizes)):
        sizes = sizes + np.asarray(subgraph.terms)
    return sizes if sizes.size else None
