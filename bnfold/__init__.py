"""Fold BatchNorm layers into the weights of ONNX and PyTorch models, and verify that the result is equivalent.

>>> import bnfold
>>> bnfold.inspect("sample_models/digits.onnx").foldable
3
>>> bnfold.fold("sample_models/digits.onnx", "folded.onnx").verdict
'equivalent'
>>> bnfold.verify("sample_models/digits.onnx", "folded.onnx").verdict
'equivalent'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.api import assert_equivalent, calibrate, fold, inspect, verify
    from bnfold.batch.run import fold_many, inspect_many
    from bnfold.benchmark.run import bench
    from bnfold.errors import BnfoldError
    from bnfold.options import BenchOptions, CalibrateOptions, FoldOptions, VerifyOptions

_HOMES = {
    "api": ("assert_equivalent", "calibrate", "fold", "inspect", "verify"),
    "batch.run": ("fold_many", "inspect_many"),
    "benchmark.run": ("bench",),
    "errors": ("BnfoldError",),
    "options": ("BenchOptions", "CalibrateOptions", "FoldOptions", "VerifyOptions"),
}
"""The modules that hold the public names."""

__all__ = [
    "BenchOptions",
    "BnfoldError",
    "CalibrateOptions",
    "FoldOptions",
    "VerifyOptions",
    "__version__",
    "assert_equivalent",
    "bench",
    "calibrate",
    "fold",
    "fold_many",
    "inspect",
    "inspect_many",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: ``import bnfold`` alone costs nothing."""
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"bnfold.{home}"), name)
    raise AttributeError(f"module 'bnfold' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, which tab completion and ``help(bnfold)`` show."""
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__", "__spec__"])
