"""Draw the pictures of the documentation, from the reference and the sample models: ``python docs/pictures.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot

from bnfold.api import inspect
from bnfold.batchnorm import BatchNorm, training_step
from bnfold.statistics.moments import Population, statistics_of
from bnfold.statistics.plot import save_drifts

HERE = Path(__file__).parent
IMAGES = HERE / "images"
STEPS, ROWS = 400, 32


def momentum(target: Path) -> None:
    """What running means make of the same batches, whose mean moves while the network still learns."""
    rng = np.random.default_rng(0)
    centre = 2.0 - 1.5 * np.exp(-np.arange(STEPS) / 60)
    batches = [rng.normal(mean, 1.0, (ROWS, 1)) for mean in centre]
    figure, axis = pyplot.subplots(figsize=(8, 3), layout="constrained")
    axis.plot(centre, color="black", linewidth=1, label="the population's mean")
    for kept, colour in ((0.5, "#d62728"), (0.9, "#1f77b4"), (0.99, "#2ca02c"), (0.999, "#9467bd")):
        bn, means = BatchNorm.fresh(1), []
        for batch in batches:
            bn = training_step(batch, bn, momentum=kept)[1]
            means.append(float(bn.mean[0]))
        axis.plot(means, color=colour, linewidth=1, label=f"momentum {kept} (torch: {1 - kept:.3g})")
    axis.axhline(float(batch_mean(batches[-100:])), color="grey", linestyle=":", label="pooled, over the last 100")
    axis.set_xlabel("training step")
    axis.set_ylabel("running mean")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


def batch_mean(batches: list[np.ndarray]) -> np.ndarray:
    """The exact mean of all of them."""
    population = Population()
    for batch in batches:
        population.add(statistics_of(batch, (0,)))
    result = population.result()
    assert result is not None
    return result.mean[0]


if __name__ == "__main__":
    pyplot.switch_backend("agg")
    pyplot.rcParams["svg.hashsalt"] = "bnfold"
    IMAGES.mkdir(exist_ok=True)
    momentum(IMAGES / "momentum.svg")
    samples = HERE.parent / "sample_models"
    found = inspect(samples / "digits_spoilt.onnx", data=samples / "digits_train.npz")
    drifts = {row.name: row.drift for row in found.rows if row.drift}
    save_drifts(drifts, "digits_spoilt.onnx", str(IMAGES / "drift.svg"))
