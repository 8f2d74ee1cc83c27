"""Judge a folded program, or the ONNX model that it became, against the program that it came from.

The reference is eager torch on the original: what the user's network computes. A folded program is aligned as ONNX
models are. A folded ONNX model is also compared with the original exported to ONNX, so that changes by the exporter
and by the fold are distinguished.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from bnfold.errors import BnfoldError
from bnfold.frontends.torch.convert import to_onnx
from bnfold.frontends.torch.fold import TorchFoldable
from bnfold.frontends.torch.graph import TorchGraphs
from bnfold.frontends.torch.load import LoadedProgram
from bnfold.frontends.torch.save import provenance_of
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load
from bnfold.options import CHECKS, PlanOptions, VerifyOptions
from bnfold.planner.prepare import prepare, rewrite
from bnfold.results.model import versions
from bnfold.results.verification import CheckResult, Verification, nothing_ran
from bnfold.verification.checks.weights import OTHERS
from bnfold.verification.equivalence.alignment import align
from bnfold.verification.equivalence.findings import Alignment
from bnfold.verification.judge import run_checks, verify
from bnfold.verification.measurement.measured import ReferenceSpec
from bnfold.verification.onnx.verify import verify_files
from bnfold.verification.torch.run import ConvertedRuns, ProgramRuns
from bnfold.wording import counted, shape


def verify_programs(original: LoadedProgram, folded: LoadedProgram, options: VerifyOptions) -> Verification:
    """Judge one program against another. Both must be files. Raises InconclusiveError if a device is not there."""
    return verify(ProgramComparison(original, folded.path, options, folded), options)


def verify_converted(original: LoadedProgram, folded: Path, options: VerifyOptions) -> tuple[Verification, LoadedModel]:
    """Judge an ONNX model against a program: proofs and layers against the original in ONNX, outputs against torch."""
    model = load(folded)
    found = Verification([], [], [], *nothing_ran(), versions())
    asked = CHECKS if options.checks is None else options.checks  # a conversion is hard to prove: layers are evidence
    if proofs := [check for check in asked if check != "outputs"]:
        with temporary() as folder:
            counterpart = folder / "original.onnx"
            counterpart.write_bytes(to_onnx(original.program, original.name).SerializeToString())
            found = verify_files(counterpart, folded, replace(options, checks=proofs))[0]
    found = replace(found, versions=versions(), origin="other")  # it is not known whether a conversion is bnfold's
    if "outputs" in asked:
        runs = ConvertedRuns(original, None, options, folded)
        spec = ReferenceSpec(OTHERS / 2, exact=False, k=options.tolerances.k)
        ran = run_checks(runs, options, ["outputs"], spec, [])
        checks = [*found.checks, *ran.checks]
        found = replace(found, checks=checks, outputs=ran.outputs, device=ran.device, inputs=ran.inputs)
    return found, model


@dataclass(frozen=True)
class ProgramComparison(ProgramRuns):
    """Two programs (see :class:`bnfold.verification.judge.Comparison`)."""

    second: LoadedProgram

    @cached_property
    def refolded(self) -> bool:
        """True if folding the original again gives the folded program itself."""
        return is_refolded(self.original, self.second)

    @property
    def says_folded(self) -> bool:
        """True if the folded program records that bnfold has folded it."""
        return "version" in provenance_of(self.second)

    def interface(self) -> CheckResult | None:
        """Compare inputs, outputs and free dimensions."""
        changed = _interface_change(self.original, self.second)
        return None if changed is None else CheckResult("structure", "fail", changed)

    def aligned(self) -> Alignment | str:
        """Align both programs. What a program overwrites is only followed in bnfold's own folds."""
        try:
            graphs = [TorchGraphs(loaded.program) for loaded in (self.original, self.second)]
            if not self.refolded and any(one.mutated for one in graphs):
                return "a program overwrites tensors while others read them, which is not followed"
            return align(*graphs)
        except (ValueError, IndexError, ArithmeticError, BnfoldError) as error:
            return f"the programs can't be followed: {' '.join(str(error).split())[:200]}"

    def hidden_values(self) -> Collection[str]:
        """Return no names: every value of a program can be fed and read."""
        return ()


def is_refolded(original: LoadedProgram, folded: LoadedProgram) -> bool:
    """Return True if folding ``original`` as ``folded`` records gives ``folded``: the same calls, the same bits."""
    options = PlanOptions.from_record(provenance_of(folded).get("options", ""))
    if options is None:
        return False
    try:
        ready = prepare(TorchFoldable(original), options)
    except BnfoldError:
        return False
    if not ready.changed:
        return False
    made = rewrite(ready).loaded.program
    first, second = ({**p.state_dict, **p.constants} for p in (made, folded.program))
    if _text(made) != _text(folded.program) or first.keys() != second.keys():
        return False
    pairs = ((first[name], second[name]) for name in first)
    return all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a.detach(), b.detach())
        for a, b in pairs
    )


def _text(program: ExportedProgram) -> str:
    """Return all of a program but its tensors: calls, subgraphs, which input is which tensor."""
    parts: list[str] = []
    pending: list[tuple[str, torch.fx.GraphModule]] = [("", program.graph_module)]
    while pending:
        name, module = pending.pop()
        parts += [name, str(module.graph)]
        for node in module.graph.nodes:
            inner = getattr(module, str(node.target), None) if node.op == "get_attr" else None
            if isinstance(inner, torch.fx.GraphModule):
                pending.append((f"{name}.{node.target}", inner))
    return "\n".join([*parts, str(program.graph_signature)])


def _interface_change(original: LoadedProgram, folded: LoadedProgram) -> str | None:
    """Return what callers would notice; None if there is nothing."""
    first, second = (_ends(loaded) for loaded in (original, folded))
    for what, old, new in zip(("inputs", "outputs"), first, second, strict=True):
        if len(old) != len(new):
            return f"it has {counted(len(new), what[:-1])}, not {len(old)}"
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            if one != other:
                return f"{what[:-1]} {place} is {other}, not {one}"
    if original.program.range_constraints.keys() != folded.program.range_constraints.keys():
        return "other dimensions are dynamic than in the original"
    return None


def _ends(loaded: LoadedProgram) -> tuple[list[str], list[str]]:
    """Return the inputs and the outputs: their kinds, types and shapes."""
    program = loaded.program
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature

    def described(name: str) -> str:
        held = nodes[name].meta.get("val") if name in nodes else None
        return (
            f"{str(held.dtype).removeprefix('torch.')} {shape(held.shape)}"
            if isinstance(held, Tensor)
            else str(type(held).__name__)
        )

    inputs = [s.arg.name for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    outputs = [(s.kind.name, getattr(s.arg, "name", "")) for s in signature.output_specs]
    return [f"{name}: {described(name)}" for name in inputs], [f"{kind} {described(name)}" for kind, name in outputs]
