"""Inspect and fold ONNX models: from the loaded model to what is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import OutputError, UsageError
from bnfold.frontends.onnx.pipeline import prepare, rewrite
from bnfold.io.external import external_tensors
from bnfold.io.load import LoadedModel, parsed, readable
from bnfold.io.save import Staged, staged
from bnfold.io.serialize import in_memory
from bnfold.results.folding import Folding, Inspection, Written, onnx_info, refuse_different, rows
from bnfold.rules.rule import NotRepresentable

if TYPE_CHECKING:
    from bnfold.frontends.torch.load import LoadedProgram
    from bnfold.options import FoldOptions, Format, PlanOptions, VerifyOptions
    from bnfold.results.verification import Verification
    from bnfold.timing import StageTimer

NO_TRAINING = "how to train the model (training_info) is left out: it names tensors that the fold has changed"

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}


@np.errstate(invalid="ignore", over="ignore")
def inspect_onnx(original: LoadedModel, options: PlanOptions) -> Inspection:
    """Where every BatchNorm would fold to, or why it stays."""
    with readable((original.name, original.proto)):
        plans = prepare(original, options).plans
        return Inspection(onnx_info(original), rows(plans), plans)


@dataclass(frozen=True)
class Goal:
    """Where a folded model goes: to ``place`` (None: standard output), replacing what stands there by ``force``.

    With ``keep`` nothing is written, the folded model is in the result; after a ``dry_run`` there is none.
    """

    place: Path | None
    force: bool = False
    keep: bool = False
    dry_run: bool = False


@np.errstate(invalid="ignore", over="ignore")
def fold_onnx(original: LoadedModel, goal: Goal, options: FoldOptions, timer: StageTimer) -> Folding:
    """Fold an ONNX model.

    Weights are read once: whether they fit their types shows when they are written. If one does not (which is rare),
    all begins anew, looking first.
    """
    with readable((original.name, lambda: parsed(original.source, original.path).proto)):
        try:
            return _fold(original, goal, options, timer, defer_range_checks=not goal.dry_run)
        except NotRepresentable:
            again = parsed(original.source, original.path)
        return _fold(again, goal, options, timer, defer_range_checks=False)


def _fold(
    original: LoadedModel, goal: Goal, options: FoldOptions, timer: StageTimer, *, defer_range_checks: bool
) -> Folding:
    ready = prepare(original, options, defer_range_checks=defer_range_checks)
    timer.record("plan")
    nodes, size = len(original.proto.graph.node), _total_bytes(original)
    inspection = Inspection(onnx_info(original), rows(ready.plans, done=not goal.dry_run), ready.plans)
    folding = Folding(
        inspection, None, {"before": nodes, "after": nodes}, {"before": size, "after": size}, timer.seconds
    )
    beside = original.external.files()
    folding = replace(folding, data=(beside, beside))
    trained = bool(original.proto.training_info)
    folded, moved = rewrite(ready) if ready.changed else (original, frozenset[str]())
    if trained and not folded.proto.training_info:
        folding = replace(folding, notes=[NO_TRAINING])
    folding.nodes["after"] = len(folded.proto.graph.node)
    timer.record("fold")
    if goal.dry_run:
        return folding
    external = "auto" if goal.keep else options.external
    with staged(folded, goal.place, external=external, moved=moved, changed=ready.changed, replace=goal.force) as files:
        timer.record("write")
        if ready.changed:
            folding.bytes["after"] = sum(path.stat().st_size for path in (files.model, *files.data))
            if options.verify is not None:
                verification = _verify_staged(original, files, options.verify)
                timer.record("verify")
                folding = replace(folding, verification=verification)
                refuse_different(original.name, folding)
        if goal.keep:
            return replace(folding, model=in_memory(folded.proto, folded.external))
        files.publish()
    timer.record("write")
    written = Written(str(goal.place or "-"), lambda: files.sha256)
    return replace(folding, output=written, data=(beside, files.written if ready.changed else beside))


def _verify_staged(original: LoadedModel, files: Staged, options: VerifyOptions) -> Verification:
    from bnfold.frontends.onnx.verify import verify_files

    if original.path is not None:
        return verify_files(original.path, files.model, options)[0]
    source = files.model.with_name("original.onnx")
    source.write_bytes(original.source.read(0, original.size))
    return verify_files(source, files.model, options)[0]


def target_of(
    loaded: LoadedModel | LoadedProgram, target: str | Path | None, to: Format, force: bool, mark: str = "folded"
) -> Path | None:
    """Where to write, by default beside the model with a ``mark``; None is standard output.

    Raises UsageError, OutputError.
    """
    if target is None and loaded.path is None:
        target = "-"
    if target is None:
        assert loaded.path is not None
        suffix = loaded.path.suffix if isinstance(loaded, LoadedModel) else SUFFIXES[to]
        target = loaded.path.with_name(f"{loaded.path.stem}.{mark}{suffix}")
    if str(target) == "-":
        return None
    path = Path(target)
    other = next((suffix for kind, suffix in SUFFIXES.items() if kind != to and path.suffix == suffix), None)
    if other is not None:
        hint = "--to onnx makes an ONNX model of a program" if other == ".onnx" else "give it another suffix"
        raise UsageError(f"{path}: what is written is {'ONNX' if to == 'onnx' else 'a program of torch'}", hint)
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder", "name a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file", "name another")
        if path.exists() and not force:
            raise UsageError(f"{path}: exists already", "pass --force to replace it, or choose another place")
        external = loaded.external if isinstance(loaded, LoadedModel) else None
        tensors = external_tensors(loaded.proto) if isinstance(loaded, LoadedModel) else ()
        if external is not None and path.resolve() in {external.span(tensor).path for tensor in tensors}:
            raise UsageError(f"{path}: holds the weights of the model", "name another file")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _total_bytes(loaded: LoadedModel) -> int:
    spans = (loaded.external.span(tensor) for tensor in external_tensors(loaded.proto))
    return loaded.size + sum(span.length for span in spans)
