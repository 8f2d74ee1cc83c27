"""Over a whole corpus: what is not folded keeps its bytes, and nothing crashes."""

from pathlib import Path

import onnx
import pytest

from bnfold.api import FoldOptions, fold, inspect
from bnfold.errors import InputError

DATA = Path(onnx.__file__).parent / "backend/test/data"
CORPUS = sorted(DATA.rglob("*.onnx"))
LIGHT = {"resnet50": 53, "densenet121": 59, "inception_v2": 69, "shufflenet": 49}
REAL = Path(__file__).parents[3] / "shared/models"


def test_there_is_a_corpus():
    assert len(CORPUS) > 100


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_onnx_own_models_come_out_byte_for_byte_or_folded(step, tmp_path):
    for path in CORPUS[::step]:
        out = tmp_path / "out.onnx"
        try:
            result = fold(path, out, FoldOptions(verify=None), force=True)
        except InputError as error:
            raise AssertionError(f"{path}: {error}") from error
        if not any(row.status == "folded" for row in result.inspection.rows):
            assert out.read_bytes() == path.read_bytes(), path
        else:
            onnx.checker.check_model(onnx.load(out))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "densenet121")) for name in LIGHT]
)
def test_the_batch_norms_behind_a_conv_fold(name):
    rows = inspect(DATA / "light" / f"light_{name}.onnx").batch_norms
    assert sum(row.status == "foldable" for row in rows) >= LIGHT[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_the_folded_models_are_equivalent(name, tmp_path):
    result = fold(DATA / "light" / f"light_{name}.onnx", tmp_path / "out.onnx")
    assert result.verification.verdict == "equivalent"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not here")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.onnx")) if REAL.is_dir() else [], ids=lambda path: path.stem)
def test_real_models_fold_and_verify(path, tmp_path):
    result = fold(path, tmp_path / "out.onnx", FoldOptions(freeze=True))
    assert result.verification.verdict == "equivalent"
