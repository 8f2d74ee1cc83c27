"""The public functions, as a notebook would call them: again and again in one process."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold


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
    from bnfold.api import FoldOptions

    assert bnfold.fold(samples / "two_consumers.onnx", tmp_path / "1.onnx").verdict == "unchanged"
    assert bnfold.fold(samples / "conv.onnx", tmp_path / "2.onnx", FoldOptions(verify=None)).verdict == "not verified"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bnfold.nonsense


def test_the_public_names_are_shown():
    """What tab completion and ``help(bnfold)`` list."""
    shown = {name for name in dir(bnfold) if not name.startswith("_")}
    assert shown == {name for name in bnfold.__all__ if not name.startswith("_")}
    assert all(callable(getattr(bnfold, name)) for name in shown)


class TestLiveModels:
    def test_a_fold_is_verified_without_files(self, samples):
        model = onnx.load(samples / "digits.onnx")
        found = bnfold.verify(model, bnfold.fold(model).model)
        assert (found.verdict, found.original.path, found.folded.path) == ("equivalent", "<ModelProto>", "<ModelProto>")

    def test_one_side_may_be_a_file(self, samples, tmp_path):
        model = onnx.load(samples / "conv.onnx")
        bnfold.fold(samples / "conv.onnx", tmp_path / "folded.onnx")
        assert bnfold.verify(model, tmp_path / "folded.onnx").verdict == "equivalent"
        assert bnfold.verify(samples / "conv.onnx", onnx.load(tmp_path / "folded.onnx")).verdict == "equivalent"

    def test_a_wrong_fold_fails_an_assertion(self, samples):
        model = onnx.load(samples / "conv.onnx")
        folded = bnfold.fold(model).model
        bnfold.assert_equivalent(model, folded)
        weight = next(tensor for tensor in folded.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
        with pytest.raises(AssertionError, match=r"the models are different\n(.*\n)*.*weights: fail"):
            bnfold.assert_equivalent(model, folded)

    def test_the_original_of_a_live_fold_can_not_be_found(self, samples):
        with pytest.raises(bnfold.BnfoldError, match="can't be found"):
            bnfold.verify(None, onnx.load(samples / "conv.onnx"))


@pytest.mark.filterwarnings("ignore")
def test_modules_are_verified_with_their_inputs():
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    inputs = (torch.randn(2, 3, 8, 8),)
    folded = bnfold.fold(layers, example_inputs=inputs).model
    assert bnfold.verify(layers, folded, example_inputs=inputs).verdict == "equivalent"
