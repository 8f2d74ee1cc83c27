"""What every model can do, whatever its format: the interface between the operations and the frontends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bnfold.errors import UsageError
from bnfold.io.destination import SUFFIXES, Destination, checked_place
from bnfold.options import External, Format, PlanOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from bnfold.calibration.network import Network
    from bnfold.io.digests import DataFiles
    from bnfold.io.save import Staged
    from bnfold.numerics.batchnorm import Momentum
    from bnfold.options import VerifyOptions
    from bnfold.planner.prepare import Foldable, Prepared
    from bnfold.results.model import ModelInfo
    from bnfold.results.verification import Comparison


class Loaded(Protocol):
    """What a frontend has read."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def path(self) -> Path | None:
        """The file that it was read from; None for a stream or a live object."""


class Model(ABC):
    """A model that was read from a file, a stream or a live object. Its methods raise InputError for what is wrong."""

    format: Format
    convention: Momentum
    """How its library counts the momentum of running statistics."""

    @property
    @abstractmethod
    def loaded(self) -> Loaded:
        """The model as it was read."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.loaded.name

    @property
    def path(self) -> Path | None:
        """The file that it was read from; None for a stream or a live object."""
        return self.loaded.path

    @abstractmethod
    def info(self) -> ModelInfo:
        """Return what a report says of it."""

    @abstractmethod
    def node_count(self) -> int:
        """Return how many operators it has."""

    @abstractmethod
    def byte_size(self) -> int:
        """Return the bytes that it takes, data files included."""

    @abstractmethod
    def data_files(self) -> DataFiles:
        """Return the files beside it that hold its tensors."""

    @abstractmethod
    def guarded(self) -> AbstractContextManager[None]:
        """Return a context in which failures that odd names in the file cause are an InputError."""

    @abstractmethod
    def reloaded(self) -> Self:
        """Return the model as it was read, whatever has been edited since."""

    @abstractmethod
    def prepare(self, options: PlanOptions, *, defer_range_checks: bool = False) -> Prepared[Any]:
        """Plan its fold (:func:`bnfold.planner.prepare.prepare`)."""

    @abstractmethod
    def rewritten(self, ready: Prepared[Any]) -> Self:
        """Return the folded model of a plan; this one may be edited in place."""

    @abstractmethod
    def source(self) -> tuple[str | None, str | None]:
        """Return the name and the sha256 of what it was folded from, as its provenance metadata say."""

    @abstractmethod
    def weights(self) -> dict[str, Callable[[], NDArray[Any]]]:
        """Return the weights of its linear layers, each as a call that reads it, by the layer's name."""

    @property
    def notes(self) -> list[str]:
        """What a fold has left out, for the user."""
        return []

    def recorded(self, options: PlanOptions) -> Self:
        """Return it as it is written where nothing was folded: with its own bytes if it has some."""
        return self

    @property
    def has_no_bytes(self) -> bool:
        """True for a model without bytes of its own, which a copy of it can't keep."""
        return False

    @abstractmethod
    def formats(self) -> tuple[Format, ...]:
        """Return the formats that its fold can be written in, its own first."""

    @abstractmethod
    def converted(self, folded: Self, to: Format) -> Model:
        """Return ``folded``, the fold of this model, in another format."""

    @abstractmethod
    def staged(
        self, place: Path | None, *, external: External, changed: bool, replace: bool
    ) -> AbstractContextManager[Staged]:
        """Write it into a staging folder beside ``place``; one that was not ``changed`` keeps its bytes."""

    @abstractmethod
    def live(self) -> Any:
        """Return it as the object that users of its library have."""

    @abstractmethod
    def weight_files(self) -> frozenset[Path]:
        """Return the files that hold its weights, which nothing may be written over."""

    @abstractmethod
    def verify(self, folded: Path, options: VerifyOptions) -> Comparison:
        """Judge whether the model in the file ``folded`` computes what this one computes. Raises UsageError."""

    @abstractmethod
    def network(self, source: Foldable[Any, Any] | None = None) -> Network:
        """Return it as it is run to observe its BatchNorms; ``source`` takes its place after an edit."""

    @abstractmethod
    def calibration_source(self) -> Foldable[Any, Any]:
        """Return it as a calibration edits it."""

    @abstractmethod
    def calibrated(self, source: Foldable[Any, Any]) -> Self:
        """Return the calibrated model, with provenance metadata that says so."""

    def output_format(self, to: Format | None) -> Format:
        """Return the format to write. Raises UsageError for one that its fold can't be written in."""
        if to is not None and to not in self.formats():
            raise UsageError(
                f"{self.name}: it can't be written as {to}", f"leave out --to, or use {self.formats()[-1]}"
            )
        return to or self.format

    def destination(
        self, target: str | Path | None, to: Format, *, mark: str, live: bool, force: bool, dry_run: bool
    ) -> Destination:
        """Return where to write: by default beside the model, with a ``mark`` in the name; a ``live`` one nowhere.

        Raises UsageError, OutputError.
        """
        if live and target is None:
            return Destination(None, force, keep=True, dry_run=dry_run)
        wanted = self._default_target(to, mark) if target is None else target
        place = checked_place(wanted, to, force=force or dry_run, kept=self.weight_files())
        if place is None and self.format == "pt2":
            raise UsageError(f"{self.name}: a PyTorch program is not written to standard output", "name a file with -o")
        return Destination(place, force, dry_run=dry_run)

    def _default_target(self, to: Format, mark: str) -> str | Path:
        if self.path is None:
            return "-"
        suffix = self.path.suffix if self.format == to == "onnx" else SUFFIXES[to]
        return self.path.with_name(f"{self.path.stem}.{mark}{suffix}")
