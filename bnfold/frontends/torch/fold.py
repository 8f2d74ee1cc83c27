"""A PyTorch exported program as a fold is prepared on it: its graph, its edits, its provenance metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bnfold.frontends.torch.editor import TorchEditor
from bnfold.frontends.torch.graph import TorchGraphs
from bnfold.frontends.torch.load import LoadedProgram

if TYPE_CHECKING:
    from typing_extensions import Self

    from bnfold.options import PlanOptions


@dataclass(frozen=True)
class TorchFoldable:
    """The :class:`bnfold.planner.prepare.Foldable` of a program. Edits make a new program; this one stays as it is.

    ``options`` are those that it was folded with, for the provenance metadata when it is saved.
    """

    loaded: LoadedProgram
    options: PlanOptions | None = None

    def graphs(self, *, freeze: bool = False) -> TorchGraphs:
        """Return the graph, of a copy. Programs have no initializers that could be frozen."""
        return TorchGraphs(self.loaded.program)

    def editor(self, graphs: TorchGraphs) -> TorchEditor:
        """Return the editor that makes the new program."""
        return TorchEditor(graphs)

    def folded(self, editor: TorchEditor) -> Self:
        """Return the new program."""
        return replace(self, loaded=replace(self.loaded, program=editor.program))

    def edited(self, editor: TorchEditor) -> Self:
        """Return the new program: the same, as a program has nothing that a fold would make untrue."""
        return self.folded(editor)

    def duplicate(self) -> Self:
        """Return the program itself: its edits are made in a copy."""
        return self

    def inlined(self) -> Self | None:
        """Return None: a program calls no functions of its own."""
        return None

    def recorded(self, options: PlanOptions) -> Self:
        """Return the program with the options that are recorded when it is saved."""
        return replace(self, options=options)


def calls(foldable: TorchFoldable) -> int:
    """Return how many operators the program calls."""
    return sum(node.op == "call_function" for node in foldable.loaded.program.graph.nodes)
