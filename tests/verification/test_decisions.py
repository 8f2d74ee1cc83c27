"""Where an operator decides, one rounding flips an entry: a tie is accepted, and nothing that is further apart."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import VerifyOptions
from bnfold.verification.measurement.decisions import gap
from sample_models.build import batch_norm, bn_node, make, node, tensor

WIDTH, SIDE = 16, 64
NEAR = 1e-4
"""How far the scores of the classes lie apart, beside what they have in common, which is then subtracted."""

RUN = VerifyOptions(("outputs",))


def scored(decide, outputs, **held):
    """Features ``f`` by Conv and BatchNorm; scores ``h`` by class and position, ``s`` of one class; a decision."""
    rng = np.random.default_rng(3)
    classes = rng.standard_normal(WIDTH) + NEAR * rng.standard_normal((WIDTH, WIDTH))
    held |= {
        "w": np.float32(rng.standard_normal((WIDTH, 3, 3, 3)) / 5),
        "v": np.float32(classes.reshape(WIDTH, WIDTH, 1, 1)),
        "q_scale": np.full(WIDTH, 0.7, np.float32),
        "q_bias": np.full(WIDTH, 5.3, np.float32),
        "q_mean": np.full(WIDTH, -3.1, np.float32),
        "q_var": np.full(WIDTH, 1.1, np.float32),
        "flat": np.array([WIDTH, -1]),
        "first": np.array([0]),
        "third": np.array([2]),
        "last": np.array([3]),
        "all": np.array([-1]),
        "near": np.float32(NEAR),
    }
    nodes = [node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), bn_node("a", "b", "p"), node("Relu", ["b"], ["c"])]
    nodes += [node("Conv", ["c", "v"], ["d"]), bn_node("d", "e", "q")]
    nodes += [node("Reshape", ["c", "flat"], ["f"]), node("Reshape", ["e", "flat"], ["g"])]
    nodes += [
        node("ReduceMean", ["g"], ["m0"], axes=[0]),
        node("Sub", ["g", "m0"], ["h0"]),
        node("Div", ["h0", "near"], ["h"]),
    ]
    nodes += [node("Slice", ["h", "third", "last", "first"], ["i"]), node("Reshape", ["i", "all"], ["s"]), *decide]
    held |= batch_norm("p", WIDTH, 5)
    return make(nodes, [tensor("x", [1, 3, SIDE, SIDE])], [tensor(*output) for output in outputs], held, opset=17)


def topk():
    """The features of the best positions, and where they are."""
    decide = [node("TopK", ["s", "k"], ["t", "i2"]), node("Gather", ["f", "i2"], ["y"], axis=1)]
    return scored(decide, [("y", None), ("i2", None, TensorProto.INT64)], k=np.array([300]))


def argmax():
    """The class of each position."""
    return scored([node("ArgMax", ["h"], ["y"], axis=0, keepdims=0)], [("y", None, TensorProto.INT64)])


def threshold():
    """Features where a score is above a limit; how many are is not known before."""
    decide = [node("Greater", ["s", "limit"], ["m"]), node("NonZero", ["m"], ["n"])]
    decide += [node("Squeeze", ["n", "first"], ["o"]), node("Gather", ["f", "o"], ["y"], axis=1)]
    decide += [node("Cast", ["m"], ["z"], to=TensorProto.FLOAT)]
    return scored(decide, [("y", None), ("z", None)], limit=np.float32(0.5))


def rounding():
    """Scores in steps of two."""
    decide = [node("Mul", ["h", "much"], ["j"]), node("Round", ["j"], ["r"]), node("Sub", ["r", "level"], ["y"])]
    return scored(decide, [("y", None)], much=np.float32(0.5), level=np.float32(1))


def casting():
    """Scores as integers."""
    decide = [node("Mul", ["h", "much"], ["j"]), node("Cast", ["j"], ["y"], to=TensorProto.INT64)]
    return scored(decide, [("y", None, TensorProto.INT64)], much=np.float32(0.5))


NETWORKS = {f.__name__: f for f in (topk, argmax, threshold, rounding, casting)}


def folded(name, folder):
    paths = folder / "original.onnx", folder / "folded.onnx"
    paths[0].write_bytes(NETWORKS[name]().SerializeToString())
    fold(*paths, FoldOptions(verify=None), force=True)
    return paths


@pytest.mark.parametrize("name", NETWORKS)
def test_right_folds_pass(name, tmp_path):
    paths = folded(name, tmp_path)
    check = verify(*paths, RUN).verification.checks[0]
    assert check.verdict == "pass", check.detail


def test_the_runs_do_decide_otherwise(tmp_path):
    """Without ties there would be nothing to accept."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    for name in NETWORKS:
        made = [
            onnxruntime.InferenceSession(path.read_bytes(), settings).run(None, {"x": x})[-1]
            for path in folded(name, tmp_path)
        ]
        assert made[0].shape != made[1].shape or (made[0] != made[1]).any(), name


def between(source, target, *nodes, **held):
    """A fault that puts nodes between a value and those that read it."""

    def apply(model):
        for reader in model.graph.node:
            reader.input[:] = [target if name == source else name for name in reader.input]
        for output in model.graph.output:
            if output.name == source:
                for made in model.graph.node:
                    made.output[:] = [source + "_before" if name == source else name for name in made.output]
                for inserted in nodes:
                    inserted.input[:] = [source + "_before" if name == source else name for name in inserted.input]
                    inserted.output[:] = [source if name == target else name for name in inserted.output]
                for reader in model.graph.node:
                    reader.input[:] = [source if name == target else name for name in reader.input]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(numpy_helper.from_array(data, name) for name, data in held.items())

    return apply


def ranks_changed(order):
    return between("i2", "i3", node("Gather", ["i2", "order"], ["i3"]), order=np.array(order))


def constant_changed(name, change):
    def apply(model):
        held = next(entry for entry in model.graph.initializer if entry.name == name)
        held.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(held)), name))

    return apply


def operator_changed(old, new):
    def apply(model):
        next(entry for entry in model.graph.node if entry.op_type == old).op_type = new

    return apply


def scores_moved(by):
    """A fault before the decision: every second score is larger."""
    bump = np.zeros(SIDE * SIDE, np.float32)
    bump[::2] = by
    return between("s", "s2", node("Add", ["s", "bump"], ["s2"]), bump=bump)


FAULTS = {
    "the best and the last are swapped": ("topk", ranks_changed([299, *range(1, 299), 0])),
    "the order is reversed": ("topk", ranks_changed(range(299, -1, -1))),
    "an entry twice": ("topk", ranks_changed([0, 0, *range(2, 300)])),
    "the smallest": ("topk", lambda model: _attribute(model, "TopK", largest=0)),
    "every second score larger": ("topk", scores_moved(1.0)),
    "class off by one": ("argmax", between("y", "y2", node("Add", ["y", "step"], ["y2"]), step=np.array(1))),
    "the least of classes": ("argmax", operator_changed("ArgMax", "ArgMin")),
    "the class of one position off by one": (
        "argmax",
        between("y", "y2", node("Add", ["y", "step"], ["y2"]), step=np.eye(1, SIDE * SIDE, 9, dtype=np.int64)[0]),
    ),
    "another threshold": ("threshold", constant_changed("limit", lambda old: old + np.float32(1))),
    "below the threshold": ("threshold", operator_changed("Greater", "Less")),
    "rounded down": ("rounding", operator_changed("Round", "Floor")),
    "rounded up": ("rounding", operator_changed("Round", "Ceil")),
    "a step too low": ("rounding", constant_changed("level", lambda old: old + np.float32(1))),
    "integers off by one": ("casting", between("y", "y2", node("Add", ["y", "step"], ["y2"]), step=np.array(1))),
}


def _attribute(model, op, **values):
    made = next(entry for entry in model.graph.node if entry.op_type == op)
    made.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] * (place % 2)) for place, name in enumerate(FAULTS)]
)
def test_faults_are_no_ties(fault, tmp_path):
    name, apply = FAULTS[fault]
    paths = folded(name, tmp_path)
    model = onnx.load(paths[1])
    apply(model)
    nodes = _in_order(model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    paths[1].write_bytes(model.SerializeToString())
    check = verify(*paths, RUN).verification.checks[0]
    assert check.verdict == "fail", check.detail


def _in_order(model):
    known = {entry.name for entry in (*model.graph.input, *model.graph.initializer)} | {""}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        ready = next(entry for entry in waiting if known >= set(entry.input))
        waiting.remove(ready)
        known |= set(ready.output)
        ordered.append(ready)
    return ordered


@pytest.mark.parametrize(
    ("kind", "x", "own", "forced", "expected"),
    [
        ("TopK", [3.0, 2.0, 1.0], [0, 1], [1, 0], 1.0),
        ("TopK", [3.0, 2.0, 1.0], [0, 1], [0, 2], 1.0),
        ("TopK", [3.0, 2.0, 1.0], [0, 1], [0, 0], np.inf),
        ("TopK", [3.0, 2.0, 1.0], [0, 1], [0, 7], np.inf),
        ("ArgMax", [3.0, 2.5, 1.0], [0], [1], 0.5),
        ("Floor", [2.25], [2.0], [1.0], 0.25),
        ("Ceil", [2.25], [3.0], [2.0], 0.25),
        ("Round", [2.25], [2.0], [3.0], 0.25),
        ("Round", [2.25], [2.0], [7.0], 4.25),
        ("Truncate", [-1.25], [-1], [-2], 0.75),
        ("Truncate", [0.25], [0], [1], 0.75),
        ("Truncate", [1.25], [1], [0], 0.25),
        ("Sign", [0.25], [1.0], [-1.0], 0.25),
    ],
)
def test_the_gap_is_how_far_inputs_would_have_to_move(kind, x, own, forced, expected):
    assert gap(kind, [np.array(x)], np.array(own), np.array(forced), 0) == expected


def test_the_gap_of_a_comparison():
    left, right = np.array([1.0, 2.0]), np.array([1.5, 0.0])
    assert gap("Greater", [left, right], left > right, np.array([True, True])) == 0.5
    assert gap("Greater", [left, right], left > right, left > right) == 0.0
