"""PyTorch exported programs as the operations see them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.frontends.torch.convert import output_names, to_onnx
from bnfold.frontends.torch.fold import TorchFoldable, calls
from bnfold.frontends.torch.load import LoadedProgram, load_program
from bnfold.frontends.torch.save import program_bytes, provenance_of
from bnfold.io.digests import DataFiles
from bnfold.io.folders import temporary
from bnfold.io.load import read_file
from bnfold.io.provenance import PREFIX, SOURCE, SOURCE_DIGEST, write_provenance
from bnfold.io.save import Staged, staged_bytes
from bnfold.models.model import Model
from bnfold.models.onnx import OnnxModel, onnx_info
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
class TorchModel(Model):
    """An exported program. ``is_calibrated``: it is not saved as a fold."""

    foldable: TorchFoldable
    format: Format = "pt2"
    convention: Momentum = "torch"
    is_calibrated: bool = False

    @property
    def loaded(self) -> LoadedProgram:
        """The program as it was read."""
        return self.foldable.loaded

    def info(self) -> ModelInfo:
        """Return what a report says of it."""
        return program_info(self.loaded)

    def node_count(self) -> int:
        """Return the operators that the program calls."""
        return calls(self.foldable)

    def byte_size(self) -> int:
        """Return the bytes of the file."""
        return self.loaded.size

    def data_files(self) -> DataFiles:
        """Return none: a ``.pt2`` holds its tensors itself."""
        return DataFiles()

    def guarded(self) -> AbstractContextManager[None]:
        """Return a context that does nothing: the archive has been checked."""
        return nullcontext()

    def reloaded(self) -> TorchModel:
        """Return the model itself: edits are made in copies."""
        return self

    def prepare(self, options: PlanOptions, *, defer_range_checks: bool = False) -> Prepared[TorchFoldable]:
        """Plan its fold; its weights are in memory, so they are checked at once."""
        return prepare(self.foldable, options)

    def rewritten(self, ready: Prepared[TorchFoldable]) -> TorchModel:
        """Return the folded program."""
        return replace(self, foldable=rewrite(ready))

    def source(self) -> tuple[str | None, str | None]:
        """Return what its note names as its original."""
        note = provenance_of(self.loaded)
        return note.get("source"), note.get("source_sha256")

    def weights(self) -> dict[str, Callable[[], NDArray[Any]]]:
        """Return the tensors of several axes, by their names in the state_dict."""
        state = self.loaded.program.state_dict
        return {name: (lambda t=t: t.detach().float().numpy()) for name, t in state.items() if t.dim() > 1}  # type: ignore[misc]

    def recorded(self, options: PlanOptions) -> TorchModel:
        """Return it with the options for its provenance metadata."""
        return replace(self, foldable=self.foldable.recorded(options))

    @property
    def has_no_bytes(self) -> bool:
        """True for a live program, or a module that was exported."""
        return not self.loaded.is_file

    def formats(self) -> tuple[Format, ...]:
        """Return ``.pt2``, and ONNX through torch's exporter."""
        return ("pt2", "onnx")

    def converted(self, folded: TorchModel, to: Format) -> Model:
        """Return ``folded`` in ONNX, under this program's output names."""
        proto = to_onnx(folded.loaded.program, self.name, output_names(self.loaded.program))
        source = {SOURCE: Path(self.name).name, SOURCE_DIGEST: self.loaded.sha256}
        write_provenance(proto, {PREFIX + "converted": __version__, **source})
        return OnnxModel.of(proto)

    def staged(
        self, place: Path | None, *, external: External, changed: bool, replace: bool
    ) -> AbstractContextManager[Staged]:
        """Write it into a staging folder."""
        loaded = self.loaded
        if not changed and loaded.is_file and loaded.path is not None:
            data = read_file(loaded.path)
        else:
            data = program_bytes(loaded.program, loaded, self.foldable.options, calibrated=self.is_calibrated)
        return staged_bytes(data, place, replace=replace)

    def live(self) -> Any:
        """Return the ExportedProgram."""
        return self.loaded.program

    def weight_files(self) -> frozenset[Path]:
        """Return none: a ``.pt2`` holds its tensors itself."""
        return frozenset()

    def verify(self, folded: Path, options: VerifyOptions) -> Comparison:
        """Judge a program, or the ONNX model that one became, against this one."""
        from bnfold.io.sniff import kind_of_source
        from bnfold.io.source import FileSource
        from bnfold.results.verification import Comparison
        from bnfold.verification.judge import refuse_swapped
        from bnfold.verification.torch.verify import verify_converted, verify_programs

        with temporary() as folder:
            source = self._on_disk(folder)
            if kind_of_source(FileSource(folded)) != "onnx":
                second = load_program(folded)
                refuse_swapped(self.loaded, provenance_of(self.loaded).get("source_sha256"), second)
                verification = verify_programs(source, second, options)
                return Comparison(self.info(), program_info(second), verification)
            verification, model = verify_converted(source, folded, options)
            return Comparison(self.info(), onnx_info(model), verification, data=(DataFiles(), model.external.files()))

    def network(self, source: Foldable[Any, Any] | None = None) -> Network:
        """Return it as torch runs it level by level."""
        from bnfold.calibration.torch_network import TorchNetwork

        source = self.foldable if source is None else source
        assert isinstance(source, TorchFoldable)
        return TorchNetwork(source)

    def calibration_source(self) -> TorchFoldable:
        """Return the program itself."""
        return self.foldable

    def calibrated(self, source: Foldable[Any, Any]) -> TorchModel:
        """Return the calibrated program."""
        assert isinstance(source, TorchFoldable)
        return replace(self, foldable=source, is_calibrated=True)

    def _on_disk(self, folder: Path) -> LoadedProgram:
        """The program as a ``.pt2`` file, which another process can read."""
        if self.loaded.is_file:
            return self.loaded
        path = folder / "original.pt2"
        path.write_bytes(program_bytes(self.loaded.program, self.loaded))
        return replace(self.loaded, path=path, is_file=True)


def program_info(loaded: LoadedProgram) -> ModelInfo:
    """Return what a report says of a program."""
    return ModelInfo(loaded.name, loaded.sha256, "pt2", None, None)
