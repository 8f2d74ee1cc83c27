"""The public functions, as a notebook would call them: again and again in one process."""

import subprocess
import sys

import pytest


def test_the_functions_stay_functions(tmp_path, samples):
    code = f"""
import bnfold
for k in range(2):
    assert bnfold.inspect({str(samples / "conv.onnx")!r}).foldable == 1
    result = bnfold.fold({str(samples / "conv.onnx")!r}, {str(tmp_path)!r} + f"/{{k}}.onnx")
    assert result.verdict == "equivalent", result.verdict
    assert bnfold.verify({str(samples / "conv.onnx")!r}, {str(tmp_path)!r} + f"/{{k}}.onnx").verdict == "equivalent"
from bnfold import fold, inspect, verify
assert callable(fold) and callable(inspect) and callable(verify)
assert issubclass(bnfold.BnfoldError, Exception)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_folded_has_a_verdict_too(tmp_path, samples):
    import bnfold
    from bnfold.api import FoldOptions

    assert bnfold.fold(samples / "two_consumers.onnx", tmp_path / "1.onnx").verdict == "unchanged"
    assert bnfold.fold(samples / "conv.onnx", tmp_path / "2.onnx", FoldOptions(verify=None)).verdict == "not verified"


def test_unknown_names_are_attribute_errors():
    import bnfold

    with pytest.raises(AttributeError, match="nonsense"):
        _ = bnfold.nonsense
