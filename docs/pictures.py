"""Draw the pictures of the documentation, from the reference and the sample models: ``python docs/pictures.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from matplotlib import pyplot

from bnfold.api import fold, inspect
from bnfold.calibration.moments import Population, statistics_of
from bnfold.numerics.batchnorm import BatchNorm, training_step
from bnfold.report import drift_plot, figures

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


KINDS = {"Conv": "#d7e6f5", "Gemm": "#d7e6f5", "BatchNormalization": "#ffd9a0", "Relu": "#eeeeee", "Flatten": "#eeeeee"}
FOLDED = "#bfe5c6"


def before_and_after(target: Path, model: Path) -> None:
    """A network and what is left of it, as the fold and its verification tell them."""
    result = fold(model, IMAGES / "digits.folded.onnx", force=True)
    after = onnx.load(IMAGES / "digits.folded.onnx").graph.node
    (IMAGES / "digits.folded.onnx").unlink()
    changed = {name for row in result.inspection.rows for name in row.into}
    figure, axis = pyplot.subplots(figsize=(8.4, 3.1), layout="constrained")
    for height, nodes, label in ((1.0, onnx.load(model).graph.node, "before"), (0.0, after, "after")):
        axis.text(-0.2, height + 0.25, f"{label}: {len(nodes)} nodes", fontsize=10, ha="left", weight="bold")
        for place, node in enumerate(nodes):
            colour = FOLDED if label == "after" and node.name in changed else KINDS[node.op_type]
            name = {"BatchNormalization": "Batch\nNorm"}.get(node.op_type, node.op_type)
            box = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "#777777"}
            axis.text(place, height, name, ha="center", va="center", fontsize=8, bbox=box)
            if place:
                arrow = {"arrowstyle": "->", "color": "#777777"}
                axis.annotate("", (place - 0.36, height), (place - 0.64, height), arrowprops=arrow)
    checks = {check.check: check for check in result.verification.checks} if result.verification else {}
    ratio = checks["outputs"].figures["error_ratio"]
    line = f"{result.verdict}: proved from the files, and run: {ratio:.2g} times the expected rounding error"
    axis.text(-0.2, -0.45, line, fontsize=9, color="#146c2e")
    axis.text(
        7.7, 0.0, "green: weights that took a\nBatchNorm in, rounded once", fontsize=8, va="center", color="#555555"
    )
    axis.set_xlim(-0.5, 10.6)
    axis.set_ylim(-0.6, 1.45)
    axis.axis("off")
    figure.savefig(target, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


if __name__ == "__main__":
    pyplot.switch_backend("agg")
    pyplot.rcParams["svg.hashsalt"] = "bnfold"
    IMAGES.mkdir(exist_ok=True)
    samples = HERE.parent / "sample_models"
    momentum(IMAGES / "momentum.svg")
    before_and_after(IMAGES / "before_after.svg", samples / "digits.onnx")
    found = inspect(samples / "digits_corrupted.onnx", data=samples / "digits_train.npz")
    drifts = {row.name: row.drift for row in found.rows if row.drift}
    figures.save(lambda: drift_plot.draw(drifts, "digits_corrupted.onnx"), str(IMAGES / "drift.svg"))
