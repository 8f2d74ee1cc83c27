"""Judge a folded program, or the ONNX model that it became, against the program that it came from.

The truth is eager torch on the original: what the user's network computes. A folded program is followed by the same
alignment as ONNX models; a folded ONNX model is compared, besides, with the ONNX that the original itself becomes, so
that what the exporter changes and what the fold changes are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from bnfold.frontends.torch.run import run_programs
from bnfold.frontends.torch.save import provenance_of
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load
from bnfold.options import PlanOptions, VerifyOptions
from bnfold.planner.prepare import prepare, rewrite
from bnfold.results.verification import (
    CheckResult,
    LayerResult,
    OutputResult,
    Verification,
    nothing_ran,
    origin_of,
    versions,
)
from bnfold.verification.checks.structure import judge_graph
from bnfold.verification.checks.weights import OTHERS, check_weights
from bnfold.verification.equivalence.alignment import Alignment, align
from bnfold.verification.equivalence.subgraphs import Subgraph, subgraphs
from bnfold.verification.judge import verify_files


def verify_programs(original: LoadedProgram, folded: LoadedProgram, options: VerifyOptions) -> Verification:
    """Judge one program against another. Both must be files. Raises InconclusiveError if a device is not there."""
    ours = is_refolded(original, folded)
    proof = _Proof(original, folded, ours, options)
    checks: list[CheckResult] = []
    if "structure" in options.checks:
        checks.append(proof.structure())
    layers: list[LayerResult] = []
    if "weights" in options.checks:
        check, layers = check_weights(proof.found, options.ulps, ours=proof.ours)
        checks.append(check)
    cut = proof.subgraphs() if "layers" in options.checks else []
    ran = run_programs(original, folded.path, cut, options, exact=proof.proved, slack=0.0 if ours else OTHERS / 2)
    if "layers" in options.checks and isinstance(proof.found, str):
        checks.append(CheckResult("layers", "inconclusive", proof.found))
    elif "layers" in options.checks:
        check, more = ran.layers(cut, options)
        checks.append(check)
        layers += more
    outputs: list[OutputResult] = []
    if "outputs" in options.checks:
        check, outputs = ran.outputs(options)
        checks.append(check)
    used = versions() if ran.torch is None else {**versions(), "torch": ran.torch}
    origin = origin_of(ours, says="version" in provenance_of(folded))
    return Verification(checks, layers, outputs, ran.device, ran.fed, used, origin)


def verify_converted(original: LoadedProgram, folded: Path, options: VerifyOptions) -> tuple[Verification, LoadedModel]:
    """Judge an ONNX model against a program: proofs and layers against the original in ONNX, outputs against torch."""
    model = load(folded)
    with temporary() as folder:
        counterpart = folder / "original.onnx"
        counterpart.write_bytes(to_onnx(original.program, original.name).SerializeToString())
        proofs = [check for check in options.checks if check != "outputs"]
        found = None
        if proofs:
            told = VerifyOptions(proofs, options.runs, options.tolerances, options.ulps)
            found = verify_files(counterpart, folded, told)[0]
    checks = [] if found is None else list(found.checks)
    layers = [] if found is None else found.layers
    device, fed = nothing_ran() if found is None else (found.device, found.inputs)
    outputs: list[OutputResult] = []
    if "outputs" in options.checks:
        ran = run_programs(original, None, [], options, exact=False, slack=OTHERS / 2, onnx=folded)
        check, outputs = ran.outputs(options)
        checks.append(check)
        device, fed = ran.device, ran.fed
    return Verification(checks, layers, outputs, device, fed, versions()), model


@dataclass
class _Proof:
    """What can be said of two programs without running them."""

    original: LoadedProgram
    folded: LoadedProgram
    ours: bool
    options: VerifyOptions
    found: Alignment | str = ""

    def __post_init__(self) -> None:
        if set(self.options.checks) & {"structure", "weights", "layers"}:
            self.found = _aligned(self.original, self.folded, sure=self.ours)

    @property
    def proved(self) -> bool:
        """True if bnfold made it, and the proof finds nothing wrong: then it is itself the best fold there is."""
        found = self.found
        return self.ours and not isinstance(found, str) and not found.mismatches and not found.wrong_outputs

    def structure(self) -> CheckResult:
        """The same inputs and outputs, and a graph that follows from folds."""
        if changed := _interface(self.original, self.folded):
            return CheckResult("structure", "fail", changed)
        return judge_graph(self.found)

    def subgraphs(self) -> list[Subgraph]:
        """What differs, cut out between values that both share."""
        return [] if isinstance(self.found, str) else subgraphs(self.found, proved=self.proved)


def _aligned(original: LoadedProgram, folded: LoadedProgram, *, sure: bool) -> Alignment | str:
    """Both programs read side by side, or why they can't be. ``sure``: what they overwrite is known to be the same."""
    try:
        graphs = [TorchGraphs(loaded.program) for loaded in (original, folded)]
        if not sure and any(one.mutated for one in graphs):
            return "a program overwrites tensors while others look at them, which is not followed"
        return align(*graphs)
    except (ValueError, IndexError, ArithmeticError, BnfoldError) as error:
        return f"the programs can't be followed: {' '.join(str(error).split())[:200]}"


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
    """All of a program but its tensors: calls, nested graphs, which input is which tensor."""
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


def _interface(original: LoadedProgram, folded: LoadedProgram) -> str | None:
    """What callers would notice."""
    first, second = (_ends(loaded) for loaded in (original, folded))
    for what, old, new in zip(("inputs", "outputs"), first, second, strict=True):
        if len(old) != len(new):
            return f"it has {len(new)} {what}, not {len(old)}"
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            if one != other:
                return f"{what[:-1]} {place} is {other}, not {one}"
    if original.program.range_constraints.keys() != folded.program.range_constraints.keys():
        return "its free dimensions are others"
    return None


def _ends(loaded: LoadedProgram) -> tuple[list[str], list[str]]:
    """Inputs and outputs: what kind, which type, which shape."""
    program = loaded.program
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature

    def told(name: str) -> str:
        held = nodes[name].meta.get("val") if name in nodes else None
        return f"{held.dtype} {[str(n) for n in held.shape]}" if isinstance(held, Tensor) else str(type(held).__name__)

    inputs = [s.arg.name for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    outputs = [(s.kind.name, getattr(s.arg, "name", "")) for s in signature.output_specs]
    return [f"{name}: {told(name)}" for name in inputs], [f"{kind} {told(name)}" for kind, name in outputs]
