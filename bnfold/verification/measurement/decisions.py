"""Decisions: operators whose result jumps where their input passes a value, so that one rounding may flip an entry.

TopK, ArgMax, comparisons, rounding to integers. What comes after a flipped entry differs by any amount, in a right fold
too. So the float64 runs are made to decide as a run did, and its outputs are compared with what follows from that. A
decision that differs from what float64 decides is accepted only where the candidates are a tie up to rounding: where
they differ by no more than a few times the rounding error that is expected of the values that decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.measurement.error_model import ErrorAccumulator

Array = NDArray[Any]

FEW = 8.0
"""How many times the expected rounding error (its root mean square) the candidates of a flipped decision may differ by.

It is the largest of all differences that counts, of two numbers with an error each, out of maybe a million: 5 times the
root mean square of one error times the root of 2, for errors that are normal.
"""

COMPARISONS = {
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Equal": np.equal,
}

STEPS = frozenset({"Round", "Floor", "Ceil", "Sign", "Truncate", "NonZero"})
"""Operators of one input with a result that is constant between steps; Truncate and NonZero are casts."""

DECISIONS = COMPARISONS.keys() | STEPS | {"TopK", "ArgMax", "ArgMin"}


def gap(kind: str, inputs: Sequence[Array], own: Array, forced: Array, axis: int = -1) -> float:
    """Return how much the inputs of a decision would have to move for it to become ``forced`` in place of its ``own``.

    That is the largest difference between candidates; infinite where no inputs lead there. TopK and ArgMax are given as
    indices along ``axis``.
    """
    if own.shape != forced.shape:
        return float("inf")
    if np.array_equal(own, forced):
        return 0.0
    x = np.asarray(inputs[0], np.float64)
    if kind in ("TopK", "ArgMax", "ArgMin"):
        return _between_candidates(x, own, forced, axis, distinct=kind == "TopK")
    changed = own != forced
    if kind in COMPARISONS:
        sides = np.broadcast_arrays(x, np.asarray(inputs[1], np.float64), own)
        return _largest(np.abs(sides[0] - sides[1])[np.broadcast_to(changed, sides[0].shape)])
    return _largest(_to_step(kind, x[changed], forced[changed].astype(np.float64)))


def _between_candidates(x: Array, own: Array, forced: Array, axis: int, *, distinct: bool) -> float:
    """Return the largest difference between values that were chosen and those that are chosen in their place."""
    width = x.shape[axis]
    if forced.min() < -width or forced.max() >= width:
        return float("inf")
    chosen, expected = forced % width, own % width
    if x.ndim != own.ndim:  # an axis that was not kept
        chosen, expected = np.expand_dims(chosen, axis), np.expand_dims(expected, axis)
    if distinct and (np.diff(np.sort(chosen, axis=axis), axis=axis) == 0).any():
        return float("inf")
    return _largest(np.abs(np.take_along_axis(x, chosen, axis) - np.take_along_axis(x, expected, axis)))


def _to_step(kind: str, x: Array, result: Array) -> Array:
    """Return how far each x is from the inputs that have this result."""
    if kind in ("Sign", "NonZero"):
        return np.abs(x)
    if kind != "Truncate":
        low, high = {"Round": (-0.5, 0.5), "Floor": (0.0, 1.0), "Ceil": (-1.0, 0.0)}[kind]
        return np.asarray(np.maximum(np.maximum(result + low - x, x - result - high), 0.0))
    below = np.where(result > 0, result, result - 1)
    above = np.where(result < 0, result, result + 1)
    return np.asarray(np.maximum(np.maximum(below - x, x - above), 0.0))


def _largest(differences: Array) -> float:
    largest = float(np.max(differences, initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


@dataclass(frozen=True)
class Deciding:
    """The values that one decision was made by, in one sample: of the original, and in float64.

    ``run`` is what the original's run had, ``wide`` what float64 has if it decides as that run did. ``reference`` and
    ``correctly_rounded`` are the original and its fold in float64 that decide as the folded model's run did.
    """

    run: Array
    wide: Array
    reference: Array
    correctly_rounded: Array


def expected_at(values: Sequence[Sequence[Deciding]], slack: float) -> float:
    """Return the rounding error that is expected of the values that decide, which are given by sample."""
    total = 0.0
    for samples in zip(*values, strict=True):
        errors = ErrorAccumulator(samples[0].run.dtype, None, slack=slack)
        for one in samples:
            run, wide, reference, best = (
                np.asarray(array, np.float64) for array in (one.run, one.wide, one.reference, one.correctly_rounded)
            )
            if run.shape == wide.shape and reference.shape == best.shape and np.isfinite(run).all():
                errors.add(reference, as_if(run, wide, reference), reference, best)
        total += errors.expected**2
    return float(np.sqrt(total))


def as_if(run: Array, wide: Array, reference: Array) -> Array:
    """Return ``reference`` with the errors that a run has beside ``wide``: of their size, if the shapes are others."""
    error = np.asarray(run, np.float64) - wide
    if error.shape == reference.shape:
        return np.asarray(reference + error)
    return np.asarray(reference + (np.sqrt(np.square(error).mean()) if error.size else 0.0))


@dataclass(frozen=True)
class Decided:
    """The float64 runs that decide as the runs in one mode did. All by sample.

    ``reference``, ``correctly_rounded`` and ``accumulated`` (see
    :class:`bnfold.verification.measurement.measured.FurtherRuns`) decide as the folded model did, ``original`` as the
    original. ``gaps`` holds, by decision, the largest gap of any flip; ``deciding`` the values, by sample and input.
    ``complete``: no other operator decides, so that integers follow exactly.
    """

    reference: list[dict[str, Array]]
    original: list[dict[str, Array]]
    correctly_rounded: list[dict[str, Array]]
    accumulated: list[dict[str, Array]]
    gaps: Mapping[str, float]
    complete: bool
    deciding: Mapping[str, list[list[Deciding]]]

    @property
    def flipped(self) -> bool:
        """True if a run has decided otherwise than float64 does."""
        return any(self.gaps.values())

    def refused(self, slack: float) -> tuple[str, float] | None:
        """Return a decision whose candidates are no tie, and how many expected rounding errors lie between them."""
        for name, distance in self.gaps.items():
            expected = expected_at(self.deciding[name], slack) if distance else 0.0
            if not distance <= FEW * expected:
                return name, distance / expected if expected else float("inf")
        return None
