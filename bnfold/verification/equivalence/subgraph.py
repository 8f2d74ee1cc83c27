"""A folded layer as a subgraph of both models: what a worker needs to run the two side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class End:
    """A value at the boundary of a subgraph: its name and element type in the original and in the folded model."""

    original: str
    folded: str
    original_type: int
    folded_type: int


@dataclass(frozen=True)
class Subgraph:
    """A part of both models, from ``inputs`` to ``outputs``, whose last layer is ``node``; channels are on ``axis``.

    Where it is one layer, ``terms`` are the sizes of what each channel's shift is rounded at, ``norms`` the lengths of
    its rows of weights, ``accumulated`` what its running sums lose if they start at the bias.

    ``sure`` is False where the outputs are paired by their names alone: a difference then proves nothing.
    """

    name: str
    node: str
    inputs: list[End]
    outputs: list[End]
    axis: int
    terms: list[float]
    norms: list[float]
    accumulated: list[float]
    sure: bool
