"""bnfold: remove BatchNormalization from trained networks, exactly, and prove it.

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
    from bnfold.api import calibrate, fold, inspect, verify
    from bnfold.batch.run import fold_many, inspect_many
    from bnfold.errors import BnfoldError

__all__ = ["BnfoldError", "__version__", "calibrate", "fold", "fold_many", "inspect", "inspect_many", "verify"]


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: ``import bnfold`` alone costs nothing."""
    if name == "BnfoldError":
        from bnfold.errors import BnfoldError

        return BnfoldError
    if name in ("fold_many", "inspect_many"):
        from bnfold.batch import run as batch

        return getattr(batch, name)
    if name in __all__:
        from bnfold import api

        return getattr(api, name)
    raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
