"""The strategies for removing one candidate, and the reason to report where none of them succeeds."""

from __future__ import annotations

from collections.abc import Iterator

from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import AffineOp
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Assignments

Strategy = tuple[str, Assignments]
"""A direction, and the transforms that it puts on the two ends of an affine operator."""


def strategies_of(op: AffineOp, transform: Affine) -> Iterator[Strategy]:
    """Yield the strategies to satisfy ``A(x) = A(y) M``: all upstream; gain down, shift up; all downstream; the rest.

    Each says what both ends carry, so that a transform that reaches the other end by another path is a contradiction.
    """
    gain, shift = transform.gain_only(), transform.shift_only()
    both = transform.has_shift and not gain.is_identity
    x, y = op.source, op.target
    yield "upstream", [(x, transform), (y, IDENTITY)]
    if not transform.invertible:
        return
    if both:
        yield "both", [(y, gain.inverse()), (x, gain.inverse().after(transform).shift_only())]
    yield "downstream", [(y, transform.inverse()), (x, IDENTITY)]
    if both:
        yield "both", [(x, gain), (y, shift.inverse())]


_INPUT_SIDE = ("graph-input", "nonlinear", "unknown-op", "control-flow", "quantized-activation")
_ACTIONABLE = ("padding", "consumers", "channel-axis", "dynamic-weights", "overridable", "unknown-shape")


def most_telling(refusals: dict[str, Refusal]) -> Refusal:
    """Return one reason out of those of both directions: what stands in the way and can be changed."""
    up, last = refusals["upstream"].located(), refusals.get("downstream")
    if last is None:
        return up
    down = last.located()
    if down.detail == up.detail:
        return up
    code = down.reason if up.reason in _INPUT_SIDE and down.reason in _ACTIONABLE else up.reason
    sides = up.detail, down.detail
    return Refusal(code, f"previous layer: {up.detail}; next layer: {down.detail}", sides)
