"""How far a fold is from float64: not much farther than the original, or than what onnxruntime folds itself."""

import numpy as np
import onnx
import onnxruntime
import pytest

from bnfold.io.load import LoadedModel
from bnfold.verification.reference.model import Float64Model
from tests.wrong_folds.corpus import network
from tests.wrong_folds.networks import NETWORKS, SHAPE

FACTOR = 1.5
"""How many times as large as the larger of both errors that of a fold may be."""


def session(model, **settings):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def folded_by_onnxruntime(model, folder):
    path = folder / "peer.onnx"
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session(model, graph_optimization_level=level, optimized_model_filepath=str(path))
    return onnx.load(path)


def error(model, feeds, references):
    """Return the root mean square of what a model's outputs are off by, relative to their size."""
    run = session(model)
    name = run.get_inputs()[0].name
    off = [
        np.square(made.astype(np.float64) - reference).mean() / np.square(reference).mean()
        for feed, outputs in zip(feeds, references, strict=True)
        for made, reference in zip(run.run(None, {name: feed}), outputs, strict=True)
    ]
    return float(np.sqrt(np.mean(off)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fold_is_as_near_to_float64_as_others(name, tmp_path):
    original, folded = network(name, "float32")
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(SHAPE).astype(np.float32) for _ in range(8)]
    wide = Float64Model(LoadedModel.of(original))
    references = [list(wide.run({original.graph.input[0].name: feed}).values()) for feed in feeds]
    mine, own, peer = (
        error(model, feeds, references) for model in (folded, original, folded_by_onnxruntime(original, tmp_path))
    )
    assert mine <= FACTOR * max(own, peer), (mine, own, peer)
