"""Published architectures with random weights: the default `fold` succeeds on each, and is as exact as the best peer.

The packages that build them come from PyPI into an environment beside this one. All of it takes hours:
`BNFOLD_ARCHITECTURES=timm/resnet18,kornia` tries some, and `BNFOLD_CORPUS=FOLDER` keeps the exported files there,
and takes what is there.
"""

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.fidelity.architectures import ARCHITECTURES
from tests.fidelity.errors import compare, worst_ratio
from tests.fidelity.try_folds import try_fold

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
BNFOLD = str(Path(sys.executable).parent / "bnfold")
ASKED = [name for name in os.environ.get("BNFOLD_ARCHITECTURES", "").split(",") if name]
NAMES = [
    f"{library}/{name}" for library, names in ARCHITECTURES.items() for name in names
    if not ASKED or library in ASKED or f"{library}/{name}" in ASKED
]  # fmt: skip
FORMS = (".onnx", ".dynamo.onnx", ".pt2")

CAUSES = {
    "it holds no BatchNorm": """
        pytorchcv_nin_cifar10.onnx pytorchcv_sqnet_cityscapes.onnx pytorchcv_squeezeresnet_v1_1.onnx
        pytorchcv_nin_cifar10.pt2 pytorchcv_sqnet_cityscapes.pt2 pytorchcv_squeezeresnet_v1_1.pt2
    """,
    "none of its BatchNorms can be folded": "monai_highresnet.dynamo.onnx pytorchcv_wrn20_10_1bit_cifar10.onnx",
    "the proof finds no counterpart of a Conv behind an offset that a residual sum keeps": "timm_visformer_tiny.onnx",
}
EXCEPTIONS = {file: cause for cause, files in CAUSES.items() for file in files.split()}
"""Files whose fold does not end with exit 0 and *equivalent*, and why. The folds that are written are right: they are
as near to float64 as the originals."""

LESS_EXACT: dict[str, str] = {}
"""Files whose fold is more than 1.5 times as far from float64 as the best peer's and the original, and why."""

SAMPLE = (
    "timm/resnet18", "timm/densenet121", "timm/mobilenetv3_small_050", "timm/repvgg_a0", "timm/levit_128s",
    "pytorchcv/densenet40_k12_cifar10", "pytorchcv/sinet_cityscapes", "torchxrayvision/densenet", "monai/densenet121",
    "speechbrain/ecapa_tdnn", "own/dcgan_discriminator", "own/tdnnf", "own/deepspeech2", "own/recurrent_head",
    "transformers/detr", "smp/Unet-tu-mobilenetv3_small_050",
)  # fmt: skip
"""Whose error against float64 is compared with the peers'."""


def label(name: str) -> str:
    return name.replace("/", "_").replace("-", "_").replace(".yaml", "").lower()


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    """A Python with the packages, and with the torch and onnx of this one."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    folder = tmp_path_factory.mktemp("zoo")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin/python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "-r", HERE / "packages.txt"]
    done = subprocess.run(install, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("the packages can't be installed: " + done.stderr.decode()[-200:])
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "beside.pth").write_text("\n".join(site.getsitepackages()))
    return str(python)


@pytest.fixture(scope="module")
def corpus(request, tmp_path_factory):
    """The folder with the exported files."""
    folder = Path(os.environ.get("BNFOLD_CORPUS") or tmp_path_factory.mktemp("corpus"))
    if not all(any((folder / (label(name) + form)).exists() for form in FORMS) for name in NAMES):
        python = request.getfixturevalue("exporter")
        command = [python, "-W", "ignore", str(HERE / "export.py"), str(folder), "--only", *NAMES]
        subprocess.run(command, check=True)
    return folder


def test_enough_are_exported(corpus):
    if not ASKED:
        assert sum((corpus / f"{label(name)}.onnx").exists() for name in NAMES) >= 100
        assert sum((corpus / f"{label(name)}.pt2").exists() for name in NAMES) >= 80


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_the_default_fold_is_equivalent(name, form, corpus, tmp_path):
    model = corpus / (label(name) + form)
    if not model.exists():
        pytest.skip("PyTorch does not export it so")
    record = try_fold(BNFOLD, model, 1200, tmp_path / f"folded{model.suffix}")
    succeeds = (record["exit"], record.get("verdict")) == (0, "equivalent")
    if model.name in EXCEPTIONS:
        assert not succeeds, f"no exception any more: {EXCEPTIONS[model.name]}"
    else:
        assert succeeds, record


@pytest.mark.parametrize("name", [name for name in SAMPLE if name in NAMES])
def test_the_fold_is_as_exact_as_the_best_peer(name, corpus, tmp_path):
    model, reference = corpus / f"{label(name)}.onnx", corpus / f"{label(name)}.npz"
    if not (model.exists() and reference.exists()):
        pytest.skip("it is not there, or does not run in float64")
    folded = tmp_path / "folded.onnx"
    assert try_fold(BNFOLD, model, 1200, folded)["exit"] == 0
    found = compare(model, folded, reference)
    assert (worst_ratio(found) > 1.5) == (model.name in LESS_EXACT), found
