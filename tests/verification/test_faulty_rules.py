"""A fault in bnfold's own rules must not pass, though what folds and what replays the fold share them."""

from dataclasses import replace

import pytest

from bnfold.api import fold, inspect
from bnfold.rules import conv as linear


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_what_a_wrong_rule_folds_is_found_and_kept(samples, tmp_path, monkeypatch, part):
    real = linear.fold_linear

    def wrong(*arguments, **options):
        new, offset = real(*arguments, **options)
        return (replace(new, gain=new.gain * 1.001), offset) if part == "weight" else (new, offset * 1.001)

    monkeypatch.setattr(linear, "fold_linear", wrong)
    found = fold(samples / "digits.onnx", tmp_path / "folded.onnx")
    outcomes = {row.name: row.reason and row.reason["code"] for row in found.inspection.rows}
    assert "verification" in outcomes.values()
    assert all(
        (outcomes[row.name] == "verification") == ("Conv" in row.into[0])
        for row in inspect(samples / "digits.onnx").rows
    )
    assert found.verdict == "equivalent"
