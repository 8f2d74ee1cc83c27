"""Draw the pictures of the documentation, from the reference and the sample models: ``python docs/pictures.py``.

Each is drawn twice, transparent: ``NAME.svg`` for light pages and ``NAME.dark.svg`` for dark ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as Xml

import matplotlib
import numpy as np
import onnx
from matplotlib import pyplot

from bnfold.api import fold, inspect
from bnfold.calibration.moments import Population, statistics_of
from bnfold.numerics.batchnorm import BatchNorm, training_step
from bnfold.report import drift_plot
from bnfold.results.folding import Folding

HERE = Path(__file__).parent
IMAGES = HERE / "images"
SAMPLES = HERE.parent / "sample_models"
STEPS, ROWS = 400, 32
INK = {"": "#24292f", ".dark": "#e6edf3"}
"""The colour of lines and texts, by the ending of the file."""


def momentum() -> pyplot.Figure:
    """What running means make of the same batches, whose mean moves while the network still learns."""
    rng = np.random.default_rng(0)
    centre = 2.0 - 1.5 * np.exp(-np.arange(STEPS) / 60)
    batches = [rng.normal(mean, 1.0, (ROWS, 1)) for mean in centre]
    figure, axis = pyplot.subplots(figsize=(4.4, 4.2), layout="constrained")
    for kept, colour in ((0.5, "#d98880"), (0.9, "#3f83cc"), (0.99, "#3c9f4f"), (0.999, "#a577d0")):
        bn, means = BatchNorm.fresh(1), []
        for batch in batches:
            bn = training_step(batch, bn, momentum=kept)[1]
            means.append(float(bn.mean[0]))
        axis.plot(
            means, color=colour, linewidth=0.9 if kept == 0.5 else 1.3, label=f"momentum {kept} (torch: {1 - kept:.3g})"
        )
    axis.plot(centre, linewidth=1.3, label="mean of the population")
    pooled = float(batch_mean(batches[-100:]))
    axis.plot([STEPS - 100, STEPS], [pooled] * 2, linewidth=2.5, linestyle=":", label="pooled, last 100 batches")
    axis.set_xlim(0, STEPS)
    axis.set_ylim(0, 2.4)
    axis.set_xlabel("training step")
    axis.set_ylabel("running mean")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False, columnspacing=1)
    return figure


def batch_mean(batches: list[np.ndarray]) -> np.ndarray:
    """The exact mean of all of them."""
    population = Population()
    for batch in batches:
        population.add(statistics_of(batch, (0,)))
    result = population.result()
    assert result is not None
    return result.mean[0]


def drift() -> pyplot.Figure:
    """The statistics of the corrupted digits network, against the data that it was trained on."""
    found = inspect(SAMPLES / "digits_corrupted.onnx", data=SAMPLES / "digits_train.npz")
    return drift_plot.draw({row.name: row.drift for row in found.rows if row.drift}, "digits_corrupted.onnx")


def draw(name: str, make: Callable[[], pyplot.Figure]) -> None:
    """Write one of matplotlib's pictures in both colours."""
    for ending, ink in INK.items():
        keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        style = dict.fromkeys(keys, ink) | {"svg.hashsalt": "bnfold", "svg.fonttype": "none", "font.size": 9}
        cycle = matplotlib.cycler(color=[ink])
        with matplotlib.rc_context({**style, "axes.prop_cycle": cycle}):
            figure = make()
            target = IMAGES / f"{name}{ending}.svg"
            figure.savefig(target, transparent=True, metadata={"Date": None})
            pyplot.close(figure)
            target.write_text(target.read_text().replace("stroke: #000000", f"stroke: {ink}"))


BOX, GAP, ROW, TOP = (150, 24), 40, 33, 50
"""Pixels: a box, the space between the columns, the distance of rows, and where they begin."""

PLAIN, NORM, CHANGED, GONE = "plain", "norm", "changed", "gone"


def before_and_after(result: Folding, before: onnx.GraphProto, after: onnx.GraphProto, ending: str) -> str:
    """Draw a network and what is left of it, node beside node, as the fold and its verification say."""
    folded = [row for row in result.inspection.rows if row.status == "folded"]
    changed, left = {name for row in folded for name in row.into}, {node.name for node in after.node}
    width, height = 2 * BOX[0] + GAP + 2, TOP + ROW * len(before.node) + 24
    size = {"viewBox": f"0 0 {width} {height}", "width": str(width), "height": str(height)}
    root = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    caption = f"{len(folded)} BatchNorms removed, {result.verdict}"
    Xml.SubElement(root, "title").text = caption
    Xml.SubElement(root, "style").text = STYLES[ending]
    columns = (1 + BOX[0] // 2, 1 + BOX[0] + GAP + BOX[0] // 2)
    for x, title, nodes in zip(columns, ("before", "after"), (before.node, after.node), strict=True):
        text(root, x, 16, title, "head")
        text(root, x, 34, f"{len(nodes)} nodes", "small")
    last: list[int | None] = [None, None]
    for row, node in enumerate(before.node):
        y = TOP + row * ROW
        norm = node.op_type == "BatchNormalization"
        kinds = (
            NORM if norm else PLAIN,
            GONE if node.name not in left else CHANGED if node.name in changed else PLAIN,
        )
        for side, kind in enumerate(kinds):
            if kind == GONE:
                continue
            begin = last[side]
            if begin is not None:
                Xml.SubElement(root, "path", {"d": f"M{columns[side]} {begin} V{y - 1} m-4 -6 l4 6 l4 -6"})
            last[side] = y + BOX[1]
            place = {"x": str(columns[side] - BOX[0] // 2), "y": str(y), "rx": "6"}
            Xml.SubElement(root, "rect", {**place, "width": str(BOX[0]), "height": str(BOX[1]), "class": kind})
            name = node.op_type.replace("BatchNormalization", "BatchNorm")
            text(root, columns[side], y + 17, f"{name}, new weights" if kind == CHANGED else name)
    text(root, width // 2, height - 4, caption, "caption")
    return Xml.tostring(root, encoding="unicode") + "\n"


def text(root: Xml.Element, x: int, y: int, words: str, kind: str = "") -> None:
    """Add a centred line."""
    Xml.SubElement(root, "text", {"x": str(x), "y": str(y), **({"class": kind} if kind else {})}).text = words


def style(ink: str, dim: str, plain: str, norm: tuple[str, str], changed: tuple[str, str]) -> str:
    """The rules of one theme: colours of texts, and of boxes by what they say (filling, border)."""
    return (
        f"text{{font:13px system-ui,sans-serif;fill:{ink};text-anchor:middle}}.head{{font-weight:700;font-size:15px}}"
        f".small{{fill:{dim}}}.caption{{font-weight:700;font-size:15px;fill:{changed[1]}}}"
        f"rect{{stroke:{dim};fill:{plain}}}.norm{{fill:{norm[0]};stroke:{norm[1]}}}"
        f".changed{{fill:{changed[0]};stroke:{changed[1]}}}path{{stroke:{dim};fill:none}}"
    )


STYLES = {
    "": style(INK[""], "#59636e", "none", ("#ffe3b0", "#b07c00"), ("#cdebd0", "#1a7f37")),
    ".dark": style(INK[".dark"], "#9198a1", "none", ("#4d3800", "#d29922"), ("#12381f", "#3fb950")),
}


if __name__ == "__main__":
    pyplot.switch_backend("agg")
    IMAGES.mkdir(exist_ok=True)
    draw("momentum", momentum)
    draw("drift", drift)
    original = SAMPLES / "digits.onnx"
    with TemporaryDirectory() as folder:
        result = fold(original, Path(folder) / "digits.folded.onnx")
        graphs = onnx.load(original).graph, onnx.load(Path(folder) / "digits.folded.onnx").graph
    for ending in INK:
        (IMAGES / f"before_after{ending}.svg").write_text(before_and_after(result, *graphs, ending))
