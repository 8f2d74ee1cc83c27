"""The sample models: built deterministically, and each shows what it says."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from bnfold.cli.main import main
from bnfold.numerics.batchnorm import BatchNorm
from sample_models import build

EXPECTED = {
    "padded_conv_behind": "padding",
    "training_mode": "training-mode",
    "two_consumers": "consumers",
}


@pytest.mark.parametrize("name", sorted(build.SAMPLES))
def test_building_gives_the_committed_bytes(name, tmp_path, samples):
    assert build.write(name, tmp_path).read_bytes() == (samples / f"{name}.onnx").read_bytes()


@pytest.mark.parametrize("name", sorted(build.SAMPLES))
def test_each_sample_folds_or_says_why(name, samples):
    result = CliRunner().invoke(main, ["inspect", "--strict", str(samples / f"{name}.onnx")])
    if name in EXPECTED:
        assert result.exit_code == 1
        assert EXPECTED[name] in result.stdout
    else:
        assert result.exit_code == 0, result.output


def test_the_held_back_images_are_there(samples):
    with np.load(samples / "digits.npz") as data:
        assert data["image"].shape == (360, 1, 8, 8)
        assert data["label"].shape == (360,)


@pytest.mark.parametrize(("name", "parameters"), [("keras_dense", 200), ("keras_conv", 120)])
def test_what_keras_exports_folds_and_is_equivalent(name, parameters, samples, tmp_path):
    """Casts from float32 to float32 stand around every layer, the BatchNorm is written out."""
    source, target = samples / f"{name}.onnx", tmp_path / "folded.onnx"
    assert any(node.op_type == "Cast" for node in onnx.load(source).graph.node)
    (norm,) = inspected(source)["batch_norms"]
    assert norm["form"] == "decomposed"
    assert BatchNorm.fresh(norm["channels"]).parameter_count == parameters
    result = CliRunner().invoke(main, ["fold", str(source), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert "Folded 1 of 1 BatchNorm in " in result.stdout and "\nVerified: equivalent\n" in result.stdout
    assert inspected(target)["summary"]["batch_norms"] == 0


def inspected(path):
    """What ``bnfold inspect`` says of a file."""
    return json.loads(CliRunner().invoke(main, ["inspect", str(path), "--quiet", "--json", "-"]).stdout)
