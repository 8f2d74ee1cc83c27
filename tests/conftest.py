"""Fixtures of all tests: the sample models, and a model with its fold."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnfold.api import FoldOptions, fold
from tests.support import SAMPLES


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
