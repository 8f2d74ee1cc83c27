"""Corrupt the running statistics of the digits network, as training and tools do: ``python sample_models/corrupt.py``.

It writes ``digits_corrupted.onnx``, whose first two BatchNorms hold what a momentum of 0.999 makes of ten steps, and
whose last one has a variance 100 times too large; and ``digits_train.npz``, the images that the network was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bnfold.api import calibrate
from bnfold.options import CalibrateOptions

HERE = Path(__file__).parent
STEPS, ROWS = 10, 64


def training_images() -> np.ndarray:
    """The images that ``build.py --digits`` trains on, of shape (N, 1, 8, 8)."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    seen: np.ndarray = train_test_split(images, labels, test_size=0.2, random_state=0)[0]
    return seen


def set_statistics(model: ModelProto, node: str, mean: np.ndarray | None, var: np.ndarray) -> None:
    """Give the BatchNormalization called ``node`` another mean (None: its own) and variance."""
    names = next(entry.input for entry in model.graph.node if entry.name == node)
    for name, data in ((names[3], mean), (names[4], var)):
        for tensor in model.graph.initializer:
            if tensor.name == name and data is not None:
                tensor.CopyFrom(numpy_helper.from_array(data.astype(np.float32), name))


def statistics(model: ModelProto, node: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean and variance of the BatchNormalization called ``node``."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = next(entry.input for entry in model.graph.node if entry.name == node)
    return held[names[3]], held[names[4]]


def corrupted(model: ModelProto, images: np.ndarray) -> ModelProto:
    """The model with the statistics of an unlucky training run."""
    layers = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    fresh = ModelProto()
    fresh.CopyFrom(model)
    for layer in layers:
        mean, var = statistics(model, layer)
        set_statistics(fresh, layer, np.zeros_like(mean), np.ones_like(var))
    options = CalibrateOptions(mode="moving-average", momentum=0.999, convention="onnx", batch=ROWS)
    slow: ModelProto = calibrate(fresh, images[: STEPS * ROWS], options=options).model
    mean, var = statistics(model, layers[-1])
    set_statistics(slow, layers[-1], mean, var * 100)
    del slow.metadata_props[:]
    return slow


if __name__ == "__main__":
    seen = training_images()
    np.savez_compressed(HERE / "digits_train.npz", image=seen)
    onnx.save(corrupted(onnx.load(HERE / "digits.onnx"), seen), HERE / "digits_corrupted.onnx")
