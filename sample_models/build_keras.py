"""Build the Keras samples: ``KERAS_BACKEND=torch python sample_models/build_keras.py`` (needs keras and torch).

They are what ``model.export(..., format="onnx")`` of Keras 3 writes of two small networks, trained for some steps: a
BatchNormalization written out as Sub, Mul and Add, and casts from float32 to float32 around every layer.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras import layers

HERE = Path(__file__).parent

NETWORKS = {
    "keras_dense": ((20,), [layers.Dense(50)], 200),
    "keras_conv": ((16, 16, 3), [layers.Conv2D(30, 3)], 120),
}
"""Each sample: the shape of its input, what its BatchNormalization follows, and how many parameters that one has."""


def network(shape: tuple[int, ...], before: list[layers.Layer], parameters: int) -> keras.Model:
    """Return a classifier whose BatchNormalization has seen some batches."""
    norm = layers.BatchNormalization(momentum=0.9)
    behind = [layers.GlobalAveragePooling2D()] if len(shape) > 1 else []
    model = keras.Sequential([keras.Input(shape), *before, norm, layers.ReLU(), *behind, layers.Dense(4)])
    rng = np.random.default_rng(0)
    images = rng.normal(0.5, 1.0, (512, *shape)).astype(np.float32)
    labels = images.reshape(512, -1)[:, :4].argmax(axis=1)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=32, epochs=2, verbose=0)
    assert norm.count_params() == parameters
    return model


def write(name: str, folder: Path = HERE) -> Path:
    """Train and export one of the networks; return its path."""
    path = folder / f"{name}.onnx"
    keras.utils.set_random_seed(0)
    network(*NETWORKS[name]).export(str(path), format="onnx", verbose=False)
    return path


if __name__ == "__main__":
    for name in NETWORKS:
        print(write(name))
