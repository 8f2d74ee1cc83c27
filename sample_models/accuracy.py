"""Accuracy of models on the digits that were held back: ``python sample_models/accuracy.py MODEL...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def accuracy(model: str) -> tuple[int, int]:
    """How many of the held-back images a model classifies right, and how many there are."""
    with np.load(Path(__file__).parent / "digits.npz") as data:
        images, labels = data["image"], data["label"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images})
    return int((logits.argmax(axis=1) == labels).sum()), len(labels)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        right, total = accuracy(path)
        print(f"{path}: {right} of {total} correct ({right / total:.2%})")
