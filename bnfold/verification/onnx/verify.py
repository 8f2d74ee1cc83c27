"""Judge a folded ONNX model against its original: how :mod:`bnfold.verification.judge` reads and runs the two."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bnfold.errors import BnfoldError, InconclusiveError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.frontends.onnx.interface import interface_change, operator_set_change
from bnfold.io.load import LoadedModel, load, readable
from bnfold.io.provenance import SOURCE_DIGEST, VERSION, provenance_of
from bnfold.options import RunOptions, VerifyOptions
from bnfold.results.verification import CheckResult, Verification
from bnfold.verification.equivalence.alignment import align
from bnfold.verification.equivalence.findings import Alignment
from bnfold.verification.equivalence.ort_nchwc import BLOCKS, is_nchwc, nchwc_values, without_nchwc
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.judge import InvalidModel, refuse_swapped, verify
from bnfold.verification.measurement.measured import Measured, ReferenceSpec
from bnfold.verification.onnx.refold import is_refolded
from bnfold.verification.onnx.run import measure, placement
from bnfold.verification.reference.model import NotInFloat64, without_functions
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices.registry import device_missing, device_of
from bnfold.verification.runtime.inputs import model_inputs
from bnfold.wording import inputs_differ


def verify_files(original: Path, folded: Path, options: VerifyOptions) -> tuple[Verification, LoadedModel, LoadedModel]:
    """Judge ``folded`` against ``original``.

    Raises InputError if either can't be read, InconclusiveError if the device asked for is not there, UsageError if
    ``original`` was folded from ``folded``.
    """
    first, second = load(original), load(folded)
    refuse_swapped(first, provenance_of(first.proto).get(SOURCE_DIGEST), second)
    with readable((first.name, first.proto), (second.name, second.proto)):
        return verify(OnnxComparison(first, second, folded, options.runs), options), first, second


@dataclass(frozen=True)
class OnnxComparison:
    """Two ONNX models (see :class:`bnfold.verification.judge.Comparison`), the folded one from the file ``path``."""

    original: LoadedModel
    folded: LoadedModel
    path: Path
    options: RunOptions

    @cached_property
    def refolded(self) -> bool:
        """True if folding the original again gives the folded model itself."""
        return is_refolded(self.original, self.folded)

    @property
    def says_folded(self) -> bool:
        """True if the folded model records that bnfold has folded it."""
        return VERSION in provenance_of(self.folded.proto)

    def interface(self) -> CheckResult | None:
        """Compare what callers see, then the operator sets, in which operators may have changed their meaning."""
        if changed := next(interface_change(self.original.proto, self.folded.proto), None):
            return CheckResult("structure", "fail", changed)
        if changed := operator_set_change(self.original.proto, self.folded.proto):
            return CheckResult("structure", "inconclusive", changed)
        return None

    def aligned(self) -> Alignment | str:
        """Align both models, functions inlined; onnxruntime's blocked layout is read in each size of its blocks."""
        try:
            original = OnnxGraphs(without_functions(self.original.proto), self.original.external, freeze=True)
        except (NotInFloat64, BnfoldError) as error:
            return f"the original can't be read: {error}"
        blocked = is_nchwc(self.folded.proto)
        layouts = [without_nchwc(self.folded, block) for block in BLOCKS] if blocked else []
        protos = [proto for proto in layouts if proto is not None] or [self.folded.proto]
        try:
            folded = [OnnxGraphs(without_functions(proto), self.folded.external, freeze=True) for proto in protos]
        except NotInFloat64 as error:
            return str(error)
        except BnfoldError as error:
            raise InvalidModel(str(error)) from None
        try:
            return min((align(original, graphs) for graphs in folded), key=lambda found: len(found.mismatches))
        except (ValueError, IndexError, ArithmeticError) as error:  # shapes that contradict each other
            return f"the models can't be followed: {' '.join(str(error).split())[:200]}"

    def hidden_values(self) -> Collection[str]:
        """Return the names of values that lie in memory in onnxruntime's blocked layout."""
        return nchwc_values(self.folded.proto)

    def unavailable(self) -> str | None:
        """Return that onnxruntime is not installed, where it is not. Raises InconclusiveError for a missing device."""
        if runtime.available():
            return None
        if not device_of(self.options.device).is_host:
            raise device_missing(self.options.device, runtime.RunFailed("onnxruntime is not installed"))
        return "nothing was run: onnxruntime is not installed (pip install 'bnfold[cpu]')"

    def measure(self, spec: ReferenceSpec, cut: list[Subgraph], *, outputs: bool) -> Measured:
        """Run both models on onnxruntime, the original in float64 too."""
        found = measure(self.original, self.path, self.options, spec, cut, outputs=outputs)
        differ = inputs_differ(*([info.name for info in model_inputs(m.proto)] for m in (self.original, self.folded)))
        if differ and isinstance(found.folded, runtime.RunFailed):
            return replace(found, folded=runtime.RunFailed(differ))
        return found

    def placement(self, measured: Measured) -> dict[str, Any]:
        """Return where the original's nodes ran. Raises InconclusiveError if it is not what was asked for."""
        return placement(self.original, measured, self.options)

    def missing_device(self, error: runtime.DeviceMissing) -> InconclusiveError:
        """Return what to tell a user whose device is not there."""
        return device_missing(self.options.device, error)
