"""What computed constants may take: a file of a few kilobytes can ask for any amount."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.api import inspect
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.frontends.onnx.shape_inference import MOST_ENTRIES, _Counting, _is_small
from bnfold.ir.constant_folding import FEW
from bnfold.ir.evaluation import NotEvaluable
from bnfold.planner.candidates import candidates_of
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights
from tests.support import fold_proto

MIB = 2**20


def long(n):
    return np.array([n], np.int64)


def chained(op, count, **held):
    """A constant ``k`` that ``count`` nodes make, each of the result before: ``op`` names its inputs and output."""
    return [op(f"k{i}" if i else "k", f"k{i + 1}") for i in range(count)], f"k{count}", held


CHAINS = {
    "concat": chained(
        lambda a, b: node("Concat", [a, a], [b], axis=0), 20, k=np.arange(1024, dtype="f4")
    ),
    "tile": chained(lambda a, b: node("Tile", [a, "r"], [b]), 5, k=np.arange(64, dtype="f4"), r=long(16)),
    "gather": chained(lambda a, b: node("Gather", [a, "i"], [b], axis=0), 3, k=np.ones((1, 1, 1), "f4"),
                      i=np.zeros((300, 300), "i8")),
    "expand": chained(lambda a, b: node("Expand", [a, "s"], [b]), 1, k=np.ones(1, "f4"), s=long(2**27)),
    "filled": chained(lambda a, b: node("ConstantOfShape", ["s"], [b]), 1, s=long(2**27)),
    "outer sums": ([node("Tile", ["k", "r"], ["a"]), node("Reshape", ["a", "s"], ["b"]),
                    node("Add", ["a", "b"], ["o"])], "o",
                   {"k": np.ones(1024, "f4"), "r": long(64), "s": np.array([-1, 1])}),
}  # fmt: skip


def holding(nodes, held):
    w = {"w": weights(1, 4, 3, 1, 1), **{name: np.asarray(data) for name, data in held.items()}}
    first = [node("Conv", ["x", "w"], ["c"]), *nodes]
    return make([*first, node("Relu", ["c"], ["y"])], [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], w)


def values_of(model):
    graph = OnnxGraphs(model).scopes[0]
    return {value.name: value for node in graph.nodes for value in (*node.inputs, *node.outputs) if value}


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "a slice of it"])
def test_a_small_file_asks_for_little(kind, sliced):
    nodes, last, held = CHAINS[kind]
    if sliced:
        nodes, last = [*nodes, node("Slice", [last, "from", "to"], ["part"])], "part"
        held = {**held, "from": long(0), "to": long(4)}
    value = values_of(holding(nodes, held))[last]

    def refused():
        for _ in range(2):
            with pytest.raises(NotEvaluable, match="asks for"):
                value.graph.constants.evaluate(value)

    assert peak(refused) < 24 * FEW


def test_results_go_with_their_last_reader():
    """Twenty results of a tenth of what there may be at a time."""
    shape = np.array([FEW // 10])
    nodes, last, _ = chained(lambda a, b: node("Neg", [a], [b]), 20)
    value = values_of(holding([node("Expand", ["one", "s"], ["k"]), *nodes], {"one": np.ones(1, "f4"), "s": shape}))[
        last
    ]
    assert peak(lambda: value.graph.constants.evaluate(value)) < 16 * FEW
    assert value.graph.constants.evaluate(value).shape == tuple(shape)


def test_what_a_weight_is_made_of_counts_by_the_file():
    """A large weight that is moved and cast is nothing absurd."""
    nodes = [
        node("Transpose", ["k"], ["t"], perm=[1, 0]),
        node("Cast", ["t"], ["u"], to=1),
        node("Mul", ["u", "u"], ["v"]),
    ]
    big = np.ones((FEW // 1024, 2048), "f2")
    value = values_of(holding(nodes, {"k": big}))["v"]
    assert value.graph.constants.evaluate(value).shape == big.T.shape


def test_a_slice_does_not_keep_what_it_is_cut_from():
    nodes = [node("Expand", ["one", "s"], ["k"]), node("Slice", ["k", "from", "to"], ["part"])]
    held = {"one": np.ones(1, "f4"), "s": long(FEW // 4), "from": long(0), "to": long(4)}
    value = values_of(holding(nodes, held))["part"]
    part = value.graph.constants.evaluate(value)
    assert part.base is None or part.base.nbytes == part.nbytes


def test_only_so_many_small_constants_are_remembered(monkeypatch):
    monkeypatch.setattr("bnfold.ir.constant_folding.REMEMBERED", 1000)
    nodes, last, held = chained(lambda a, b: node("Neg", [a], [b]), 40, k=np.ones(100, "f4"))
    values = values_of(holding(nodes, held))
    for name in (last, "k7", last):
        value = values[name]
        assert value.graph.constants.evaluate(value).shape == (100,)
        assert sum(known.size for known in value.graph.constants._small.values()) <= 1000


@pytest.mark.parametrize("op", ["Mul", "BatchNormalization"])
def test_many_operators_do_not_keep_a_large_constant_each(op):
    """Sixty operators that read one constant, which a few bytes make."""
    size, count = FEW // 8, 60
    root = int(size**0.5)
    nodes = [node("Expand", ["row", "s"], ["wide"]), node("Add", ["wide", "column"], ["k"])]
    if op == "BatchNormalization":
        nodes, root, shape = [node("Expand", ["row", "s"], ["k"])], size, [1, size]
        made = [node(op, ["x", "k", "k", "k", "k"], [f"y{i}"]) for i in range(count)]
        held = {"row": np.ones(1, "f4"), "s": long(size)}
    else:
        shape = [root, root]
        made = [node("Mul", ["x", "k"], [f"y{i}"]) for i in range(count)]
        held = {"row": np.arange(root, dtype="f4"), "s": np.array([root, root]), "column": np.ones((root, 1), "f4")}
    outputs = [tensor(f"y{i}", shape) for i in range(count)]
    graph = OnnxGraphs(make([*nodes, *made], [tensor("x", shape)], outputs, held)).scopes[0]
    graph.constants.is_constant(graph.nodes[-1].inputs[1])
    kept = []
    assert peak(lambda: kept.extend(candidates_of(graph))) < 400 * MIB


def doubling(count):
    """Concats of a list of sizes, each twice as long as the one before."""
    nodes, last, _ = chained(lambda a, b: node("Concat", [a, a], [b], axis=0), count)
    nodes += [node("Slice", [last, "from", "to"], ["part"]), node("Reshape", ["part", "s"], ["add"])]
    bn = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Add", ["b", "add"], ["y"])]
    held = {"k": np.ones(1024, "f4"), "from": long(0), "to": long(4), "s": np.array([4, 1, 1])}
    held |= {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4, 1)}
    return make([*nodes, *bn], [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)


def test_shape_inference_computes_no_long_lists():
    assert not _is_small(doubling(16))
    assert _is_small(doubling(6))


def test_lists_in_functions_and_nested_graphs_count_too():
    inner = [node("Concat", ["a", "a"], ["b"], axis=0)]
    twice = onnx.helper.make_function("f", "Twice", ["a"], ["b"], inner, [onnx.helper.make_opsetid("", 17)])
    nodes = [onnx.helper.make_node("Twice", [f"k{i}"], [f"k{i + 1}"], domain="f") for i in range(12)]
    model = doubling(1)
    del model.graph.node[:]
    model.functions.append(twice)
    model.graph.initializer[0].name = "k0"
    model.graph.node.extend(nodes)
    assert not _is_small(model)
    body = onnx.helper.make_graph(doubling(12).graph.node[:12], "body", [], [])
    model = doubling(1)
    model.graph.node.insert(0, onnx.helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    assert not _is_small(model)


def test_what_real_models_compute_of_shapes_is_few():
    nodes = []
    for i in range(500):
        nodes += [node("Shape", ["x"], [f"s{i}"]), node("Gather", [f"s{i}", "at"], [f"g{i}"])]
        nodes.append(node("Concat", [f"g{i}", "at"], [f"c{i}"], axis=0))
    counting = _Counting({})
    counting.of_graph(holding(nodes, {"at": long(0), "bias": np.ones(100_000, "f4")}).graph, {})
    assert counting.total < MOST_ENTRIES / 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process took at most")
def test_the_whole_of_inspect_stays_small(tmp_path):
    """Onnx's inference works outside of Python's memory: measured from outside."""
    onnx.save(doubling(16), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 6000
    code = "import bnfold; print(bnfold.inspect('m.onnx').foldable, open('/proc/self/status').read())"
    shown_text = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown_text.startswith("1 ")
    most = next(line.split()[1] for line in shown_text.splitlines() if line.startswith("VmHWM"))
    assert int(most) < 400 * 1024


def test_large_additions_that_end_no_chain_are_not_evaluated(monkeypatch):
    from bnfold.ir.constant_folding import Constants

    asked = []
    evaluate = Constants.evaluate
    monkeypatch.setattr(Constants, "evaluate", lambda self, value: asked.append(value.name) or evaluate(self, value))
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Add", ["b", "add"], ["y"])]
    held = {"w": weights(1, 4, 3, 1, 1), "add": weights(2, 4, 40, 40), **batch_norm("bn", 4, 1)}
    found = inspect(make(nodes, [tensor("x", [1, 3, 40, 40])], [tensor("y", None)], held))
    assert found.foldable == 1
    assert "add" not in asked


def test_a_sparse_initializer_of_nothing_is_not_read():
    values = onnx.helper.make_tensor("k", 1, [1], [7.0])
    model = holding([], {})
    model.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(values, onnx.helper.make_tensor("at", 7, [1], [0]), [2**14, 2**13])
    )
    model.graph.node[1].CopyFrom(node("Add", ["c", "k"], ["y"]))
    assert values_of(model)["k"].tensor is None


def test_constants_of_the_size_of_activations_still_fold():
    """Exporters expand what they add: half a million entries out of four."""
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[0] * 4), node("Expand", ["bias", "s"], ["wide"])]
    nodes += [node("Add", ["c", "wide"], ["a"]), bn_node("a", "y", "bn")]
    held = {"w": weights(1, 4, 3, 1, 1), "bias": weights(2, 4, 1, 1), "s": np.array([1, 4, 360, 360])}
    held |= batch_norm("bn", 4, 1)
    model = make(nodes, [tensor("x", [1, 3, 360, 360])], [tensor("y", [1, 4, 360, 360])], held)
    assert fold_proto(model)[1][0].folds


def computed_in_torch(steps, cut):
    """The last node of a program that doubles a tensor again and again (``cut``: and halves it), and its evaluator."""
    torch = pytest.importorskip("torch")
    from bnfold.frontends.torch.constants import Computed

    def add(target, args, length):
        made = graph.call_function(target, args)
        made.meta["val"] = torch.empty(length, device="meta")
        assert computed.add(made)
        return made, length

    graph, computed, length = torch.fx.Graph(), Computed(), 1024
    last = graph.get_attr("k")
    computed.hold(last, torch.ones(length))
    for _ in range(steps):
        last, length = add(torch.ops.aten.cat.default, ([last, last],), 2 * length)
        if cut:
            last, length = add(torch.ops.aten.slice.Tensor, (last, 0, 0, 1024), 1024)
    return computed, last


def test_a_program_computes_each_constant_once():
    computed, last = computed_in_torch(60, cut=True)  # two readings each: 2**60 of the first
    assert computed.value(last).shape == (1024,)


def test_a_small_program_asks_for_little():
    computed, last = computed_in_torch(16, cut=False)
    with pytest.raises(NotEvaluable, match="too many numbers"):
        computed.value(last)


def test_constants_along_different_axes_are_not_multiplied_out():
    """A few kilobytes that stand for a map of 1,500^3 entries."""
    held = {name: np.ones(shape, "f4") for name, shape in (("a", (1500, 1, 1)), ("b", (1500, 1)), ("d", (1500,)))}
    nodes = [node("Mul", ["x", "a"], ["p"]), node("Mul", ["p", "b"], ["q"]), node("Add", ["q", "d"], ["y"])]
    found = inspect(make(nodes, [tensor("x", [1, 1500, 1500, 1500])], [tensor("y", None)], held))
    assert found.foldable == 0


def test_too_little_memory_is_no_property_of_the_model(monkeypatch):
    from bnfold.ir import constant_folding as constants

    def evaluate(self, *_):
        raise MemoryError

    monkeypatch.setattr("onnx.reference.ReferenceEvaluator.run", evaluate)
    with pytest.raises(MemoryError):
        inspect(doubling(3))
    assert constants.FEW > 0


def test_all_evaluations_together_are_bounded(monkeypatch):
    """Many layers that each compute a weight out of nothing."""
    from bnfold.ir import constant_folding as constants

    monkeypatch.setattr(constants, "WORK", 2**14)
    nodes = [node("ConstantOfShape", ["s"], ["w"])]
    for k in range(40):
        nodes += [node("Gemm", ["x", "w"], [f"g{k}"]), bn_node(f"g{k}", f"y{k}", "bn")]
    held = {"s": np.array([100, 100]), **batch_norm("bn", 100, 1)}
    outputs = [tensor(f"y{k}", None) for k in range(40)]
    found = inspect(make(nodes, [tensor("x", [2, 100])], outputs, held))
    assert found.kept > 0
    assert {row.reason["code"] for row in found.batch_norms if row.reason} <= {"dynamic-weights", "graph-input"}
