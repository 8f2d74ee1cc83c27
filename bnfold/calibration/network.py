"""What the statistics need of a network, whatever runs it: its layers, its levels, and one level at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from bnfold.calibration.data import Input
from bnfold.calibration.layers import Layer, Level
from bnfold.ir.graph import Graphs, Node
from bnfold.numerics.batchnorm import Array
from bnfold.planner.prepare import Foldable
from bnfold.rules.reasons import Refusal

Values = dict[str, NDArray[Any]]
"""Activations of one batch, by the names of their values."""

Fed = tuple[Array, Array]
"""Mean and variance that a layer is to normalise by."""


class Network(Protocol):
    """A model that can be run up to each of its BatchNorms."""

    @property
    def source(self) -> Foldable[Any, Any]:
        """What is run, as it is edited."""

    @property
    def graphs(self) -> Graphs:
        """What the planner sees of it."""

    layers: list[Layer]
    kept: list[tuple[Node, Refusal]]
    levels: list[Level]
    inputs: list[Input]

    def advance(self, index: int, values: Values, fed: Mapping[Layer, Fed]) -> Values:
        """Return what the level leaves (its live values), from what the level below left, or from the inputs.

        ``fed`` gives the statistics of the layers below.
        """

    def release(self, index: int) -> None:
        """A level will not be run again."""
