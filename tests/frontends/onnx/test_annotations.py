"""Parts of a model that name tensors without computing with them: what a fold made untrue goes, the rest stays."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold
from bnfold.cli.main import main
from bnfold.io.load import load

QUICK = FoldOptions(verify=None)
SHAPE = [1, 4, 2, 2]


def block(source, at, kept=False):
    """A convolution and a BatchNorm, which is kept if its input has another consumer."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 4, 1, 1)), **{name: rng.uniform(1, 2, 4) for name in "sbmv"}}
    held = [numpy_helper.from_array(array.astype("f4"), f"{name}{at}") for name, array in arrays.items()]
    nodes = [
        helper.make_node("Conv", [source, f"w{at}"], [f"c{at}"]),
        helper.make_node("BatchNormalization", [f"c{at}", *(f"{name}{at}" for name in "sbmv")], [f"n{at}"]),
        helper.make_node("Add", [f"n{at}", f"c{at}"], [f"y{at}"])
        if kept
        else helper.make_node("Relu", [f"n{at}"], [f"y{at}"]),
    ]
    return nodes, held


def info(name, shape=SHAPE, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def annotate(graph, *names):
    for name in names:
        entry = graph.quantization_annotation.add(tensor_name=name)
        entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")


def annotated(graph):
    return [entry.tensor_name for entry in graph.quantization_annotation]


def written(tmp_path, nodes, held, outputs, change=lambda model: None):
    scale = numpy_helper.from_array(np.array(0.1, "f4"), "scale")
    graph = helper.make_graph(nodes, "g", [info("x"), info("q", [], TensorProto.BOOL)], outputs, [*held, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    fold(path, tmp_path / "f.onnx", QUICK, force=True)
    return model, onnx.load(tmp_path / "f.onnx")


def test_annotations_of_what_changed_go(tmp_path):
    nodes, held = block("x", 0)
    before, after = written(
        tmp_path,
        nodes,
        held,
        [info("y0")],
        lambda m: annotate(m.graph, "x", "w0", "c0", "n0", "m0", "y0", "scale", "nobody"),
    )
    assert annotated(after.graph) == ["x", "n0", "y0", "scale", "nobody"]
    old = {entry.tensor_name: entry.SerializeToString() for entry in before.graph.quantization_annotation}
    assert all(entry.SerializeToString() == old[entry.tensor_name] for entry in after.graph.quantization_annotation)


def test_a_value_that_carries_a_map_loses_its_annotation(tmp_path):
    """The BatchNorm goes into the layer behind: what lies between keeps its name and holds other numbers."""
    rng = np.random.default_rng(1)
    held = [numpy_helper.from_array(rng.uniform(1, 2, 4).astype("f4"), name) for name in "sbmv"]
    held.append(numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype("f4"), "w"))
    nodes = [
        helper.make_node("BatchNormalization", ["x", *"sbmv"], ["n"]),
        helper.make_node("Transpose", ["n"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    _, after = written(tmp_path, nodes, held, [info("y")], lambda m: annotate(m.graph, "x", "n", "t", "w", "y"))
    assert [node.op_type for node in after.graph.node] == ["Transpose", "Conv"]
    assert annotated(after.graph) == ["x", "y"]


def test_every_graph_has_names_of_its_own(tmp_path):
    """Two branches of the same names, of which one folds; a branch also speaks of the graph around it."""
    outer, more = block("x", 1)

    def branch(kept):
        nodes, held = block("y1", 0, kept)
        graph = helper.make_graph(nodes, "b", [], [info("y0")], held)
        annotate(graph, "w0", "c0", "y0", "c1", "y1")
        return graph

    nodes = [*outer, helper.make_node("If", ["q"], ["z"], then_branch=branch(False), else_branch=branch(True))]
    _, after = written(tmp_path, nodes, more, [info("z")], lambda m: annotate(m.graph, "w1", "c1", "y1", "z"))
    assert annotated(after.graph) == ["y1", "z"]
    then, other = (attribute.g for attribute in after.graph.node[-1].attribute)
    if len(then.node) == 3:
        then, other = other, then
    assert annotated(then) == ["y0", "y1"]
    assert annotated(other) == ["w0", "c0", "y0", "y1"]


def training(model, *names, op="Identity", binding=None):
    entry = model.training_info.add()
    entry.algorithm.CopyFrom(
        helper.make_graph([helper.make_node(op, list(names), ["new"])], "step", [], [info("new", None)])
    )
    if binding:
        entry.update_binding.add(key=binding, value="new")


@pytest.mark.parametrize(
    ("step", "stays"),
    [
        (lambda m: training(m, "w0"), False),
        (lambda m: training(m, "c0"), False),
        (lambda m: training(m, "x", binding="v0"), False),
        (lambda m: training(m, op="GraphCall"), False),
        (lambda m: (training(m, "x"), training(m, "x", binding="b0")), False),
        (lambda m: training(m, "y0", binding="scale"), True),
    ],
    ids=["weight", "value", "binding", "call", "second", "untouched"],
)
def test_training_goes_where_it_would_be_wrong(tmp_path, step, stays):
    nodes, held = block("x", 0)
    before, after = written(tmp_path, nodes, held, [info("y0")], step)
    assert list(after.training_info) == (list(before.training_info) if stays else [])
    words = ["fold", str(tmp_path / "m.onnx"), "--dry-run", "--json", str(tmp_path / "j.json")]
    shown_text = CliRunner().invoke(main, words).output
    assert ("note: how to train the model" in shown_text) is not stays
    assert len(json.loads((tmp_path / "j.json").read_text())["notes"]) == (0 if stays else 1)


def test_a_weight_that_others_still_read_counts_for_training(tmp_path):
    """The layer reads another weight now: a step that updates the old one would train nothing."""
    nodes, held = block("x", 0)
    nodes.append(helper.make_node("Identity", ["w0"], ["old"]))
    _, after = written(
        tmp_path,
        nodes,
        held,
        [info("y0"), info("old", [4, 4, 1, 1])],
        lambda m: (training(m, "x", binding="w0"), annotate(m.graph, "w0")),
    )
    assert not after.training_info and annotated(after.graph) == ["w0"]


def test_what_is_not_folded_keeps_its_bytes(tmp_path):
    nodes, held = block("x", 0, kept=True)
    before, after = written(
        tmp_path, nodes, held, [info("y0")], lambda m: (training(m, "w0"), annotate(m.graph, "c0", "w0"))
    )
    assert after.training_info == before.training_info and annotated(after.graph) == ["c0", "w0"]
    assert load(tmp_path / "m.onnx").sha256 == load(tmp_path / "f.onnx").sha256
