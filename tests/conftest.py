"""Fixtures of all tests: the sample models, and a model with its fold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bnfold.api import FoldOptions, fold
from tests import fork_server
from tests.support import SAMPLES


@pytest.fixture(autouse=True, scope="session")
def forked_workers() -> Iterator[None]:
    """Start bnfold's workers from a process that has imported their libraries."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setattr(subprocess, "Popen", fork_server.ForkingPopen)
        yield
    fork_server.stop()


@pytest.fixture
def real_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start bnfold's workers as users do."""
    monkeypatch.setattr(subprocess, "Popen", fork_server.Real)


@pytest.fixture
def samples() -> Path:
    """The folder of the sample models."""
    return SAMPLES


@pytest.fixture
def pair(tmp_path: Path, samples: Path) -> tuple[Path, Path]:
    """The digits model and its fold."""
    original, folded = samples / "digits.onnx", tmp_path / "folded.onnx"
    fold(original, folded, FoldOptions(verify=None))
    return original, folded
