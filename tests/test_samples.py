"""The sample models: built deterministically, and each shows what it says."""

import numpy as np
import pytest
from click.testing import CliRunner

from bnfold.cli.main import main
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
