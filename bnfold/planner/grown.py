"""Chains of factors and terms that a fold makes look like a BatchNorm: read again, they would be one written out.

Without ``scales`` such chains stay, but they take in what other operators leave: a factor for each channel, the term
beside it that is left of a BatchNorm, or the BatchNorm in front of them is gone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine
from bnfold.planner.candidates import AffineOp, elementwise
from bnfold.planner.plan import ResidualOp


def resembles_batch_norm(
    op: AffineOp, transform: Affine, around: tuple[Node | None, list[Node]], residuals: dict[Node, ResidualOp]
) -> bool:
    """Return True if the chain computes ``transform`` now, and with its neighbours multiplies and adds per channel.

    ``around``: what makes its input and who reads its output, beyond operators that are removed.
    """
    front, consumers = around
    if np.unique(transform.gain).size < 2 or (front is not None and front.op == "BatchNormalization"):
        return front in residuals and np.unique(transform.gain).size > 1
    beside = [node for node in (front, *consumers[:2]) if node is not None]
    kinds = {_kind(node, residuals) for node in (*op.nodes, *(beside if len(consumers) < 2 else beside[:1]))}
    return {"factor", "term"} <= kinds


def _kind(node: Node, residuals: dict[Node, ResidualOp]) -> str:
    residual = residuals.get(node)
    if residual is not None:
        return "term" if residual.op == "Add" else ""
    if elementwise(node) is None:
        return ""
    return "factor" if node.op in ("Mul", "Div") else "term"


def producer_of(value: Value, sources: Callable[[Value], Value | None]) -> Node | None:
    """Return what makes a value, beyond removed operators: ``sources`` gives the input of each by its output."""
    while (source := sources(value)) is not None:
        value = source
    return value.producer
