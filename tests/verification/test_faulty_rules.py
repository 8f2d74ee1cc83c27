"""A fault in bnfold's own rules must not pass: what folds and what replays the fold share them."""

from dataclasses import replace

import pytest

from bnfold.api import Refused, fold
from bnfold.rules import conv as linear


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_wrong_rule_is_caught_by_what_runs(samples, tmp_path, monkeypatch, part):
    real = linear.fold_linear

    def wrong(*arguments, **options):
        new, offset = real(*arguments, **options)
        return (replace(new, gain=new.gain * 1.001), offset) if part == "weight" else (new, offset * 1.001)

    monkeypatch.setattr(linear, "fold_linear", wrong)
    with pytest.raises(Refused, match="check fails"):
        fold(samples / "digits.onnx", tmp_path / "folded.onnx")
    assert not (tmp_path / "folded.onnx").exists()
