"""Verdicts over random pairs of networks, from the files alone: right folds pass, and what passes computes the same.

``python -m tests.fuzz.verifier_fuzz COUNT [SEED]``: a network and its fold should not be called different, even without
a word of who folded (but where a BatchNorm stayed: no other tool folds into its numbers). Where one of them is changed
in its structure (:mod:`tests.fuzz.structural_fuzz`) and passes, onnxruntime must compute the same with both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from bnfold.api import FoldOptions, fold
from bnfold.errors import BnfoldError
from bnfold.options import VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from tests.fuzz.child import in_child
from tests.fuzz.fold_fuzz import input_of, run
from tests.fuzz.networks import Draw, network
from tests.fuzz.runner import run_cases
from tests.fuzz.structural_fuzz import contradicted

STATIC = VerifyOptions(checks=("structure", "weights"))

CLOSE = {"float16": 0.05, "float32": 1e-3}
"""Of the largest output: what rounding may cost a right fold."""


def verdict(original: Path, other: Path) -> str:
    """``pass``, ``fail`` or ``inconclusive``, by both static checks."""
    checks = verify_files(original, other, STATIC)[0].checks
    found = {check.verdict for check in checks if check.check in STATIC.checks}
    return next((worst for worst in ("fail", "inconclusive") if worst in found), "pass")


def check(draw: Draw, folder: Path) -> list[str]:
    """What was said of a right fold, and of a changed one. Raises AssertionError for a wrong verdict."""
    model = network(draw)
    original, folded, changed = (folder / f"{name}.onnx" for name in ("original", "folded", "changed"))
    original.write_bytes(model.SerializeToString())
    fold(original, folded, FoldOptions(verify=None, threshold=draw(3) == 0, merge=draw(4) == 0), force=True)
    anonymous = ModelProto.FromString(folded.read_bytes())
    if all(node.op_type != "BatchNormalization" for node in anonymous.graph.node):
        del anonymous.metadata_props[:]
    folded.write_bytes(anonymous.SerializeToString())
    right = verdict(original, folded)
    changed.write_bytes(contradicted((model, anonymous)[draw(2)], draw).SerializeToString())
    try:
        said = verdict(original, changed)
    except BnfoldError as error:
        said = f"exit code {error.exit_code}"
    if said == "pass":
        said = f"pass, {compared(original, changed, input_of(model, draw(2**16)))}"
        assert "differ" not in said, said
    return [f"folded: {right}", f"changed: {said}"]


def compared(original: Path, other: Path, x: Any) -> str:
    """Whether onnxruntime computes the same with both, in a process that it may bring down."""
    said = original.with_name("said.txt")
    said.write_text("onnxruntime crashes")

    def work() -> int:
        try:
            one, two = run(original, x), run(other, x)
        except Exception:  # of the many kinds that onnxruntime has
            said.write_text("no model to onnxruntime")
            return 0
        said.write_text("the same" if all(_close(one[name], two.get(name)) for name in one) else "outputs differ")
        return 0

    os.waitpid(in_child(work), 0)
    return said.read_text()


def _close(expected: Any, actual: Any) -> bool:
    if actual is None or expected.shape != actual.shape:
        return False
    limit = CLOSE.get(expected.dtype.name, 0.0)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    return bool(np.abs(a - b)[finite].max(initial=0.0) <= limit * (np.abs(a[finite]).max(initial=0.0) + 1e-6))


def main() -> None:
    """Run what the command line asks for."""
    run_cases(lambda draw, folder, _: check(draw, folder))


if __name__ == "__main__":
    main()
