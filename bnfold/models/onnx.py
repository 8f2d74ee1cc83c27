"""ONNX models as the operations see them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from bnfold.errors import UsageError
from bnfold.frontends.onnx.fold import OnnxFoldable
from bnfold.io.digests import DataFiles
from bnfold.io.external import external_tensors
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, parsed, readable
from bnfold.io.provenance import PREFIX, SOURCE, SOURCE_DIGEST, provenance_of, write_provenance
from bnfold.io.save import Staged, staged
from bnfold.io.serialize import in_memory
from bnfold.models.model import Model
from bnfold.options import External, Format, PlanOptions, VerifyOptions
from bnfold.planner.prepare import Prepared, prepare, rewrite
from bnfold.results.model import ModelInfo
from bnfold.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.calibration.network import Network
    from bnfold.numerics.batchnorm import Momentum
    from bnfold.planner.prepare import Foldable
    from bnfold.results.verification import Comparison


@dataclass(frozen=True)
class OnnxModel(Model):
    """An ONNX model. Folding edits ``foldable.loaded.proto`` in place; :meth:`reloaded` reads it again."""

    foldable: OnnxFoldable
    format: Format = "onnx"
    convention: Momentum = "onnx"

    @classmethod
    def of(cls, proto: ModelProto) -> OnnxModel:
        """Return a model that was made in memory."""
        return cls(OnnxFoldable(LoadedModel.of(proto)))

    @property
    def loaded(self) -> LoadedModel:
        """The model as it was read."""
        return self.foldable.loaded

    def info(self) -> ModelInfo:
        """Return what a report says of it, its versions included."""
        return onnx_info(self.loaded)

    def node_count(self) -> int:
        """Return the nodes of the main graph."""
        return len(self.loaded.proto.graph.node)

    def byte_size(self) -> int:
        """Return the bytes of the file and of the external tensors."""
        spans = (self.loaded.external.span(tensor) for tensor in external_tensors(self.loaded.proto))
        return self.loaded.size + sum(span.length for span in spans)

    def data_files(self) -> DataFiles:
        """Return the files of its external data."""
        return self.loaded.external.files()

    def guarded(self) -> AbstractContextManager[None]:
        """Return a context in which names that are not UTF-8 are an InputError."""
        return readable((self.name, lambda: self.reloaded().loaded.proto))

    def reloaded(self) -> OnnxModel:
        """Return the model parsed again."""
        return OnnxModel(OnnxFoldable(parsed(self.loaded.source, self.path)))

    def prepare(self, options: PlanOptions, *, defer_range_checks: bool = False) -> Prepared[OnnxFoldable]:
        """Plan its fold."""
        return prepare(self.foldable, options, defer_range_checks=defer_range_checks)

    def rewritten(self, ready: Prepared[OnnxFoldable]) -> OnnxModel:
        """Return the folded model."""
        return replace(self, foldable=rewrite(ready))

    def source(self) -> tuple[str | None, str | None]:
        """Return what its metadata name as its original."""
        entries = provenance_of(self.loaded.proto)
        return entries.get(SOURCE), entries.get(SOURCE_DIGEST)

    def weights(self) -> dict[str, Callable[[], NDArray[Any]]]:
        """Return the constant operands of convolutions and matrix products, by the node's name."""
        found: dict[str, Callable[[], NDArray[Any]]] = {}
        for node in self.foldable.graphs().scopes[0].nodes:
            for value in node.inputs[:2] if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul") else ():
                if value is not None and value.tensor is not None and node.name not in found:
                    found[node.name] = value.tensor
        return found

    @property
    def notes(self) -> list[str]:
        """What a fold has left out."""
        return list(self.foldable.notes)

    def formats(self) -> tuple[Format, ...]:
        """Return ONNX alone."""
        return ("onnx",)

    def converted(self, folded: OnnxModel, to: Format) -> Model:
        """Return ``folded``: there is no other format."""
        return folded

    def staged(
        self, place: Path | None, *, external: External, changed: bool, replace: bool
    ) -> AbstractContextManager[Staged]:
        """Write it into a staging folder."""
        moved = self.foldable.moved
        return staged(self.loaded, place, external=external, moved=moved, changed=changed, replace=replace)

    def live(self) -> Any:
        """Return a ModelProto that holds all of its tensors."""
        return in_memory(self.loaded.proto, self.loaded.external)

    def weight_files(self) -> frozenset[Path]:
        """Return the files of its external tensors."""
        tensors = external_tensors(self.loaded.proto)
        return frozenset(self.loaded.external.span(tensor).path for tensor in tensors)

    def verify(self, folded: Path, options: VerifyOptions) -> Comparison:
        """Judge an ONNX model against this one."""
        from bnfold.io.sniff import kind_of_source
        from bnfold.io.source import FileSource
        from bnfold.results.verification import Comparison
        from bnfold.verification.onnx.verify import verify_files

        if kind_of_source(FileSource(folded)) != "onnx":
            raise UsageError(
                f"{folded} is a PyTorch exported program, {self.name} one of ONNX", "name the original first"
            )

        with temporary() as folder:
            path = self.path
            if path is None:
                path = folder / "original.onnx"
                path.write_bytes(self.loaded.source.read(0, self.loaded.size))
            verification, first, second = verify_files(path, folded, options)
            beside = first.external.files(), second.external.files()
            return Comparison(onnx_info(first), onnx_info(second), verification, data=beside)

    def network(self, source: Foldable[Any, Any] | None = None) -> Network:
        """Return it as onnxruntime runs it level by level."""
        from bnfold.calibration.onnx_network import OnnxNetwork

        source = self.calibration_source() if source is None else source
        assert isinstance(source, OnnxFoldable)
        return OnnxNetwork(source)

    def calibration_source(self) -> OnnxFoldable:
        """Return it with its functions inlined."""
        return self.foldable.inlined() or self.foldable

    def calibrated(self, source: Foldable[Any, Any]) -> OnnxModel:
        """Return the calibrated model."""
        assert isinstance(source, OnnxFoldable)
        write_provenance(source.loaded.proto, {PREFIX + "calibrated": __version__})
        return replace(self, foldable=source)


def onnx_info(loaded: LoadedModel) -> ModelInfo:
    """Return what a report says of an ONNX model."""
    opset = next((entry.version for entry in loaded.proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return ModelInfo(loaded.name, loaded.sha256, "onnx", loaded.proto.ir_version, opset)
