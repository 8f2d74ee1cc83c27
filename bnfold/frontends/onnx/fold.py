"""An ONNX model as a fold is prepared on it: its graphs, its edits, its provenance metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx import ModelProto

from bnfold.errors import InputError
from bnfold.frontends.onnx.editor import OnnxEditor
from bnfold.frontends.onnx.functions import batch_norms_inlined
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import LoadedModel
from bnfold.io.provenance import OPTIONS, SOURCE, SOURCE_DIGEST, VERSION, write_provenance
from bnfold.options import PlanOptions
from bnfold.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

NO_TRAINING = "how to train the model (training_info) is left out: it names tensors that the fold has changed"


@dataclass(frozen=True)
class OnnxFoldable:
    """The :class:`bnfold.planner.prepare.Foldable` of an ONNX model. Edits are made in its ModelProto, in place.

    ``moved`` names the new tensors that take the place of external ones, and belong outside the file too. ``notes``
    tell the user what a fold has left out.
    """

    loaded: LoadedModel
    moved: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def graphs(self, *, freeze: bool = False) -> OnnxGraphs:
        """Return the graphs, the main one first. Raises InputError."""
        try:
            return OnnxGraphs(self.loaded.proto, self.loaded.external, freeze=freeze)
        except InputError as error:
            raise InputError(f"{self.loaded.name}: {error}", error.hint) from None

    def editor(self, graphs: OnnxGraphs) -> OnnxEditor:
        """Return the editor of the model; large weights are computed when they are written."""
        return OnnxEditor(graphs, self.loaded.external.defer)

    def folded(self, editor: OnnxEditor) -> Self:
        """Return the edited model, without a ``training_info`` that names tensors which the fold has changed."""
        notes = (NO_TRAINING,) if editor.annotations.drop_training() else ()
        return replace(self, moved=self.moved | editor.moved, notes=self.notes + notes)

    def edited(self, editor: OnnxEditor) -> Self:
        """Return the model after edits that leave everything else true."""
        return replace(self, moved=self.moved | editor.moved)

    def duplicate(self) -> Self:
        """Return the model with a ModelProto of its own."""
        copy = ModelProto()
        copy.CopyFrom(self.loaded.proto)
        return replace(self, loaded=replace(self.loaded, proto=copy))

    def inlined(self) -> Self | None:
        """Return the model with calls of functions that hold BatchNorms inlined; None if there are none."""
        inlined = batch_norms_inlined(self.loaded.proto)
        return None if inlined is None else replace(self, loaded=replace(self.loaded, proto=inlined))

    def recorded(self, options: PlanOptions) -> Self:
        """Write the provenance metadata into the model."""
        loaded = self.loaded
        notes = {
            VERSION: __version__,
            OPTIONS: options.record(),
            SOURCE: loaded.name if loaded.path is None else loaded.path.name,
            SOURCE_DIGEST: loaded.sha256,
        }
        write_provenance(loaded.proto, notes)
        return self
