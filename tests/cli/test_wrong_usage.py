"""Wrong inputs and usages: the first line says what is wrong in the user's terms, and a hint says what to do."""

import json
import shutil
import struct
import zipfile

import numpy as np
import pytest

from tests.support import SAMPLES, call

WEIGHTS = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()

FILES = {
    "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "model.safetensors": struct.pack("<Q", len(WEIGHTS)) + WEIGHTS + bytes(4),
    "model.tflite": b"\x1c\0\0\0TFL3" + bytes(50),
    "text.onnx": "hello, this is a text file, with an ä in it\n".encode(),
    "model.json": b'{"a": 1}',
    "empty.onnx": b"",
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "lfs.onnx": b"version https://git-lfs.github.com/spec/v1\n",
}

ARRAYS = {
    "float64.npy": np.zeros((1, 1, 8, 8)),
    "large.npy": np.zeros((2, 1, 9, 9), np.float32),
    "objects.npy": np.array([None, {}], object),
    "uint8.npy": np.zeros((2, 1, 8, 8), np.uint8),
    "one.npy": np.zeros((1, 8, 8), np.float32),
}

USAGES = [
    # the words, what the first line says, what the hint says
    ("fold model.keras", "model.keras: a Keras model", "format='onnx'"),
    ("fold model.h5", "model.h5: a Keras model (HDF5)", "format='onnx'"),
    ("fold model.safetensors", "weights only (safetensors), no graph", "export the model"),
    ("fold model.tflite", "a TFLite model", "before the conversion"),
    ("fold lfs.onnx", "a Git LFS pointer", "git lfs pull"),
    ("fold saved", "saved: a TensorFlow SavedModel", "tf2onnx"),
    ("fold folder", "no .onnx or .pt2 file in this folder", "name the files"),
    ("fold no/such/model.onnx", "the folder 'no' does not exist", "check the path"),
    ("fold missing.onnx", "missing.onnx: No such file", "check the path"),
    ("inspect https://example.com/model.onnx", "https://example.com/model.onnx: a URL", "download the file"),
    ("fold text.onnx", "a text file, not an ONNX model", ".onnx file itself"),
    ("fold model.json", "a text file, not an ONNX model", ".onnx file itself"),
    ("fold empty.onnx", "the file is empty", "complete"),
    ("fold short.onnx", "or a truncated one", "complete"),
    ("fold picture.png", "not an ONNX model", "complete"),
    ("fold other.pt2", "a zip archive that holds no model", ".onnx or .pt2 file itself"),
    ("fold conv.onnx --thresold", "No such option '--thresold'", " fold --help lists"),
    ("fold conv.onnx --shape x=1,3,8,8", "--shape x=1,3,8,8: not of the form", "a colon"),
    ("fold conv.onnx --shape y:1,3,8,8", "no input is called 'y'", "inputs: x"),
    ("fold conv.onnx --range x:5", "--range x:5: not of the form", "a colon"),
    ("fold conv.onnx --range x:5,1", "--range x:5,1: LO (5) is above HI (1)", "x:1,5"),
    ("fold conv.onnx --range", "requires an argument", " fold --help lists"),
    ("fold conv.onnx --inputs missing.npz", "missing.npz: No such file", "check the path"),
    ("fold conv.onnx --inputs conv.onnx", "conv.onnx: can't be read as inputs", ".npz"),
    (
        "fold digits.onnx --inputs float64.npy",
        "takes float32 [N, 1, 8, 8], not float64 [1, 1, 8, 8]",
        "astype",
    ),
    ("fold digits.onnx --inputs large.npy", "takes float32 [N, 1, 8, 8], not float32 [2, 1, 9, 9]", "the layout"),
    ("fold digits.onnx --inputs one.npy", "takes float32 [N, 1, 8, 8], not float32 [1, 8, 8]", "array[None]"),
    ("fold digits.onnx --shape image:1,1,9,9", "takes [N, 1, 8, 8], not [1, 1, 9, 9]", "declared by a name"),
    ("fold digits.onnx --inputs wrongname.npz", "no array for input 'image'; its arrays: foo", "inputs: image"),
    ("fold conv.onnx --device gpu", "--device gpu: not a device", "cuda"),
    ("fold conv.onnx --checks layer", "--checks layer: not one of", "did you mean 'layers'?"),
    ("fold conv.onnx -o digits.onnx", "output file already exists: digits.onnx", "--force"),
    ("fold conv.onnx -o no/out.onnx", "the folder 'no' does not exist", "create it first"),
    ("fold conv.onnx -o folder", "folder: a folder", "name a file"),
    ("fold conv.onnx -o conv.onnx", "is the model itself", "--in-place"),
    ("fold conv.onnx -o out.pt2", "what is written is ONNX", "suffix"),
    ("fold conv.onnx digits.onnx -o out.onnx", "--output takes one model", "--output-dir"),
    ("fold", "no model is given", "bnfold fold model.onnx"),
    ("fold no*.onnx", "no file matches this pattern", "check the folder"),
    ("fold conv.onnx --report html", "write html=FILE", "html=F"),
    ("fold conv.onnx --json no/x.json", "its folder does not exist", "create it first"),
    ("verify conv.onnx", "it does not record which model it was folded from", "name the original too"),
    ("verify conv.onnx missing.onnx", "missing.onnx: No such file", "check the path"),
    ("verify folder conv.onnx", "folder: a folder, not a model", "name the .onnx"),
    ("verify", "no model is given", "bnfold verify ORIGINAL FOLDED"),
    ("bench digits.onnx conv.onnx", "the models have different inputs: 'x'", "a model and what was made of it"),
    ("calibrate conv.onnx", "Missing option '--data'", "--help"),
    ("calibrate conv.onnx --data conv.onnx", "neither a .npy nor a .npz file", ".npz"),
    ("calibrate conv.onnx --data x.npz --momentum 2", "between 0 and 1", "0.9 in ONNX's"),
    ("calibrate digits.onnx --data missing.npy", "missing.npy: No such file", "check the path"),
    ("calibrate digits.onnx --data objects.npy", "objects.npy: an array of Python objects", "numbers of one type"),
    ("calibrate digits.onnx --data objects.npz", "objects.npz: an array of Python objects", "numbers of one type"),
    ("calibrate digits.onnx --data large.npy", "takes [any, 1, 8, 8], not [2, 1, 9, 9]", "the layout"),
    ("calibrate digits.onnx --data one.npy", "takes [any, 1, 8, 8], not [1, 8, 8]", "array[None]"),
    ("calibrate digits.onnx --data uint8.npy", "takes float32, not uint8", "array.astype('float32')"),
    ("foldd conv.onnx", "no command is called 'foldd'", "did you mean 'bnfold fold'?"),
    ("conv.onnx", "no command is called 'conv.onnx'", "did you mean 'bnfold fold conv.onnx'?"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with what users mistake for a model."""
    folder = tmp_path_factory.mktemp("files")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    for name, array in ARRAYS.items():
        np.save(folder / name, array)
    np.savez(folder / "objects.npz", image=ARRAYS["objects.npy"])
    np.savez(folder / "wrongname.npz", foo=np.zeros((1, 1, 8, 8), np.float32))
    for name, member in (("model.keras", "model.weights.h5"), ("other.pt2", "a.txt")):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(member, "x")
    for name in ("conv.onnx", "digits.onnx"):
        shutil.copy(SAMPLES / name, folder)
    whole = (SAMPLES / "digits.onnx").read_bytes()
    (folder / "short.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"\x08\x01")
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(("words", "said", "hint"), USAGES, ids=[usage[0] for usage in USAGES])
def test_what_is_wrong_and_what_to_do(words, said, hint, files, monkeypatch):
    monkeypatch.chdir(files)
    result = call(*words.split())
    assert result.exit_code in (2, 3, 4, 5)
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ") and said in first
    assert second.startswith("hint: ") and hint in second
    assert "Errno" not in first and "Error:" not in first.replace("(ValueError:", "")


def test_models_with_different_inputs_are_said_to_have_them(files, monkeypatch):
    monkeypatch.chdir(files)
    result = call("verify", "digits.onnx", "conv.onnx", "--checks", "outputs")
    assert result.exit_code == 1
    assert "the models have different inputs: 'x' is not in the original" in result.stdout + result.stderr
    assert "feed" not in result.stdout + result.stderr
