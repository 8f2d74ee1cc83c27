"""The operations as a person thinks of them: inspect a model, fold it, verify a fold. Nothing here prints."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from bnfold.errors import InputError, OutputError, UsageError
from bnfold.files.external import external_tensors
from bnfold.files.load import LoadedModel, load
from bnfold.files.save import External, Staged, staged
from bnfold.pipeline import PlanOptions, prepare, rewrite
from bnfold.report.results import Comparison, Folding, Inspection, ModelInfo, rows
from bnfold.verification import VerifyOptions, verify_files
from bnfold.verification.results import Verification


@dataclass(frozen=True)
class FoldOptions(PlanOptions):
    """How to plan, where weights go, and how to verify (None: not at all)."""

    external: External = "auto"
    verify: VerifyOptions | None = field(default_factory=VerifyOptions)


class Refused(OutputError):
    """The folded model failed its verification and was not written."""

    exit_code = 1

    def __init__(self, message: str, folding: Folding) -> None:
        super().__init__(message, "nothing was written; please report this with the model if you can")
        self.folding = folding


def inspect(model: str | Path, options: FoldOptions | None = None) -> Inspection:
    """Where every BatchNorm of ``model`` would fold to, or why it stays. Changes nothing. Raises InputError."""
    original = load(model)
    plans = prepare(original, options or FoldOptions()).plans
    return Inspection(_info(original), rows(plans), plans)


def fold(
    model: str | Path,
    target: str | Path | None = None,
    options: FoldOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Folding:
    """Fold ``model`` and write it to ``target`` (by default beside it, as ``<name>.folded.onnx``).

    Verifies before it writes, unless ``options.verify`` is None; a result that fails is never written.
    Raises InputError, OutputError (:class:`Refused` for a failed verification), UsageError.
    """
    options = options or FoldOptions()
    clock = _Clock()
    original = load(model)
    place = _target(original, target, force or dry_run)
    clock.lap("load")
    ready = prepare(original, options)
    clock.lap("plan")
    nodes, size = len(original.proto.graph.node), _total_bytes(original)
    inspection = Inspection(_info(original), rows(ready.plans, done=not dry_run), ready.plans)
    folding = Folding(
        inspection, None, {"before": nodes, "after": nodes}, {"before": size, "after": size}, clock.seconds
    )
    folded, moved = rewrite(ready) if ready.changed else (original, frozenset[str]())
    folding.nodes["after"] = len(folded.proto.graph.node)
    clock.lap("fold")
    if dry_run:
        return folding
    with staged(folded, place, external=options.external, moved=moved, changed=ready.changed) as files:
        clock.lap("write")
        if ready.changed:
            written = sum(path.stat().st_size for path in (files.model, *files.data))
            folding.bytes["after"] = written
            if options.verify is not None:
                verification = _verify_staged(original, files, options.verify)
                clock.lap("verify")
                folding = replace(folding, verification=verification)
                _refuse_different(original, folding, verification)
        files.publish()
    clock.lap("write")
    return replace(folding, output={"path": str(place or "-"), "sha256": files.sha256})


def _refuse_different(original: LoadedModel, folding: Folding, verification: Verification) -> None:
    if verification.verdict == "different":
        cause = next(gate for gate in verification.gates if gate.verdict == "fail")
        raise Refused(f"{original.name}: the {cause.gate} gate fails: {cause.detail}", folding)


def verify(original: str | Path | None, folded: str | Path, options: VerifyOptions | None = None) -> Comparison:
    """Judge whether ``folded`` computes what ``original`` computes.

    Without an original it is found by what ``fold`` noted in the folded model. Raises InputError.
    """
    notes: list[str] = []
    if original is None:
        original = find_original(Path(folded))
        notes.append(f"original: {original}, found by the provenance in {folded}")
    verification, first, second = verify_files(Path(original), Path(folded), options or VerifyOptions())
    return Comparison(_info(first), _info(second), verification, notes)


def find_original(folded: Path) -> Path:
    """The file that ``fold`` made ``folded`` from, if it is still there and unchanged. Raises InputError."""
    entries = {entry.key: entry.value for entry in load(folded).proto.metadata_props}
    name, digest = entries.get("bnfold.source"), entries.get("bnfold.source_sha256")
    if not name or not digest:
        raise InputError(f"{folded}: it does not say what it was folded from", "name the original too")
    path = folded.parent / Path(name).name
    if not path.is_file() or path.samefile(folded):
        raise InputError(f"{folded}: its original {name!r} is not beside it", "name the original too")
    if _sha256(path) != digest:
        raise InputError(f"{path}: it has changed since {folded.name} was folded from it", "fold it again")
    return path


def _verify_staged(original: LoadedModel, files: Staged, options: VerifyOptions) -> Verification:
    if original.path is not None:
        return verify_files(original.path, files.model, options)[0]
    assert original.raw is not None
    source = files.model.with_name("original.onnx")
    source.write_bytes(original.raw)
    return verify_files(source, files.model, options)[0]


def _target(loaded: LoadedModel, target: str | Path | None, force: bool) -> Path | None:
    """Where to write; None is standard output."""
    if target is None and loaded.path is None:
        target = "-"
    if target is None:
        assert loaded.path is not None
        target = loaded.path.with_name(f"{loaded.path.stem}.folded{loaded.path.suffix}")
    if str(target) == "-":
        return None
    path = Path(target)
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder", "name a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file", "name another")
        if path.exists() and not force:
            raise UsageError(f"{path}: exists already", "pass --force to replace it, or choose another place")
        data = {loaded.external.span(tensor).path for tensor in external_tensors(loaded.proto)}
        if path.resolve() in data:
            raise UsageError(f"{path}: holds the weights of the model", "name another file")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _info(loaded: LoadedModel) -> ModelInfo:
    opset = next((entry.version for entry in loaded.proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return ModelInfo(loaded.name, loaded.sha256, "onnx", loaded.proto.ir_version, opset)


def _total_bytes(loaded: LoadedModel) -> int:
    spans = (loaded.external.span(tensor) for tensor in external_tensors(loaded.proto))
    return loaded.size + sum(span.length for span in spans)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


class _Clock:
    """Seconds per stage; a stage that is entered twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(("load", "plan", "fold", "verify", "write"), 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
