"""What the plots and graphs of a report show, read from matplotlib's objects and from the SVG."""

from xml.etree import ElementTree as Xml

import numpy as np
import onnx
import pytest

pytest.importorskip("matplotlib")

from matplotlib import pyplot

from bnfold.api import inspect
from bnfold.report import benchmark_plot, drawing, drift_plot
from bnfold.report.page import plots
from bnfold.results.benchmark import Benchmark, Level, Timing
from bnfold.results.drift import Drift
from bnfold.results.model import ModelInfo
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights
from tests.support import SAMPLES


@pytest.fixture(autouse=True)
def agg():
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def texts(figure):
    return [text.get_text() for text in figure.findobj(pyplot.Text)]


def dots(axis):
    """The x of every dot, and the place on the axis of every triangle."""
    return [x for part in axis.collections for x, _ in part.get_offsets()]


def test_no_error_ratio_is_drawn_elsewhere_than_it_is_without_saying_so():
    ratios = {"a": float("inf"), "b": 1e300, "c": 4e6, "d": 0.02, "e": 1e-12, "f": 0.0, "g": float("nan")}
    figure = plots._errors([(name, ratio, "pass", 3.0) for name, ratio in ratios.items()])
    axis = figure.axes[0]
    low, high = axis.get_xlim()
    assert low < 0.02 < 4e6 < high
    assert {"inf", "1e+300", "1e-12", "0", "nan"} <= set(texts(figure))
    assert not {"4e+06", "0.02"} & set(texts(figure))
    assert {4e6, 0.02} <= set(dots(axis))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["expected rounding error", "limit"]


def test_the_axis_of_errors_is_no_wider_than_they_are():
    low, high = plots._errors([("a", 0.9, "pass", 3.0), ("b", 1.4, "pass", 8.0)]).axes[0].get_xlim()
    assert 0.4 < low < 0.9
    assert 8 < high < 20


@pytest.mark.parametrize("slowest", [[], [0.5], [1e6, 1e6]])
def test_a_latency_outlier_does_not_flatten_the_boxes(slowest):
    rng = np.random.default_rng(0)
    times = [Timing([*rng.normal(mean, 0.01, 30), *slowest]) for mean in (1.0, 0.9)]
    info = ModelInfo("m.onnx", "", "onnx", 10, 20)
    level = Level("all", *times, 0.9, 0.89, 0.91)
    figure = benchmark_plot.draw(Benchmark(info, info, {}, {}, [level], "cpu", {}))
    axis = figure.axes[0]
    low, high = axis.get_xlim()
    boxes = [patch for patch in axis.patches if patch.get_width() > 0]
    assert len(boxes) == 2
    assert all(low < box.get_x() and box.get_x() + box.get_width() < high for box in boxes)
    assert max(box.get_x() for box in boxes) - min(box.get_x() for box in boxes) > 0.2 * (high - low)
    beyond = len([time for timing in times for time in timing.milliseconds if not low <= time <= high])
    assert (f"triangles: {beyond} run" in axis.get_xlabel()) == bool(slowest)


def test_a_drift_plot_has_a_legend_and_no_empty_decade():
    drifts = {"a": Drift(np.array([0.7, 0.9]), 10), "b": Drift(np.array([1.0, 1.1]), 10)}
    axis = drift_plot.draw(drifts).axes[0]
    low, high = axis.get_xlim()
    assert 0.2 < low < 0.5
    assert 1.1 < high < 3
    assert {text.get_text() for text in axis.get_legend().get_texts()} >= {"channel", "root mean square"}
    drifts["b"] = Drift(np.array([0.0, np.inf, 1.0]), 10)
    assert "2 channels beyond the axis" in drift_plot.draw(drifts).axes[0].get_xlabel()


# --- graphs


def boxes(picture, kind):
    """The names in the boxes of one kind: the second text of each."""
    root = Xml.fromstring(picture)
    groups = [group for group in root.iter("{http://www.w3.org/2000/svg}g") if group.get("class") == kind]
    return [group.findall("{http://www.w3.org/2000/svg}text")[1].text for group in groups]


def first_kept(path):
    plan = inspect(path).plans[0]
    return drawing.one(plan, *next((op, outcome) for op, outcome in plan.outcomes if hasattr(outcome, "reason")))


def test_the_consumer_that_keeps_a_batch_norm_is_in_its_picture():
    picture = first_kept(SAMPLES / "two_consumers.onnx")
    assert boxes(picture, "self") == ["bn_bn"]
    assert {"gate", "gated"} == set(boxes(picture, "blocking"))
    assert boxes(picture, "") == ["conv"]


def test_a_blocking_node_far_away_is_drawn_with_the_path_to_it(tmp_path):
    """The padding Conv is five operators behind the BatchNorm, and beside twenty other consumers."""
    held = {"w": weights(1, 4, 4, 3, 3), **batch_norm("bn", 4)}
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "p0", "bn")]
    nodes += [node("Transpose", [f"p{i}"], [f"p{i + 1}"], name=f"t{i}", perm=[0, 1, 3, 2]) for i in range(4)]
    nodes += [node("Conv", ["p4", "w"], ["y"], name="padding_conv", pads=[1, 1, 1, 1])]
    nodes += [node("Relu", ["s"], [f"r{i}"], name=f"relu{i}") for i in range(20)]
    outputs = [tensor(name, ["N", 4, 6, 6]) for name in ["y", *(f"r{i}" for i in range(20))]]
    onnx.save(make(nodes, [tensor("x", ["N", 4, 6, 6])], outputs, held), tmp_path / "m.onnx")
    picture = first_kept(tmp_path / "m.onnx")
    assert "padding_conv" in boxes(picture, "blocking")
    assert {"t0", "t1", "t2", "t3"} <= set(boxes(picture, ""))


def test_wide_forks_are_cut_and_counted(tmp_path):
    held = {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4)}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn")]
    nodes += [node("Relu", ["b"], [f"r{i}"], name=f"relu{i}") for i in range(20)]
    nodes += [node("Sigmoid", ["c"], ["s"], name="gate")]
    outputs = [tensor(name, ["N", 4, 4, 4]) for name in ["s", *(f"r{i}" for i in range(20))]]
    onnx.save(make(nodes, [tensor("x", ["N", 3, 4, 4])], outputs, held), tmp_path / "m.onnx")
    picture = first_kept(tmp_path / "m.onnx")
    assert "gate" in boxes(picture, "blocking")
    drawn = sum(len(boxes(picture, kind)) for kind in ("", "blocking"))
    assert drawn <= 8
    assert f"{22 - drawn} more not drawn" in picture
