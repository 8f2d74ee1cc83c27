"""The ranges of integer and boolean inputs: what the nodes that read them allow, and what the report says of it."""

import numpy as np
import pytest
from onnx import TensorProto

from bnfold.api import fold, verify
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load_bytes
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from bnfold.verification.runtime.ranges import inferred_ranges
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights
from tests.support import call

INT = TensorProto.INT64


def range_of(nodes, held=None, kind=INT, inputs=(), opset=18):
    """Return the range of the input ``x`` of a graph, as (low, high), and whether the model allows no other."""
    model = make(nodes, [tensor("x", [2, 6], kind), *inputs], [ANY], held or {}, opset=opset)
    found = inferred_ranges(OnnxGraphs(load_bytes(model.SerializeToString()).proto).scopes[0]).get("x")
    return None if found is None else (found.low, found.high, found.binding)


TABLE = {"table": weights(1, 10, 4)}
LOOKUP = node("Gather", ["table", "i"], ["y"], axis=0)


@pytest.mark.parametrize(
    ("nodes", "held", "expected"),
    [
        ([node("Gather", ["table", "x"], ["y"], axis=0)], {}, (0, 9)),
        ([node("Gather", ["table", "x"], ["y"], axis=1)], {}, (0, 3)),
        ([node("GatherElements", ["table", "x"], ["y"], axis=-1)], {}, (0, 3)),
        ([node("Cast", ["x"], ["c"], to=TensorProto.INT32), node("Unsqueeze", ["c", "a"], ["i"]), LOOKUP],
         {"a": np.array([1])}, (0, 9)),
        ([node("Add", ["x", "k"], ["i"]), LOOKUP], {"k": np.array(3)}, (-3, 6)),
        ([node("Add", ["x", "k"], ["i"]), LOOKUP], {"k": np.array([0, 1, 2, 3, 4, 7])}, (0, 2)),
        ([node("Sub", ["k", "x"], ["i"]), LOOKUP], {"k": np.array(3)}, (-6, 3)),
        ([node("Mul", ["x", "k"], ["i"]), LOOKUP], {"k": np.array(2)}, (0, 4)),
        ([node("Sub", ["x", "k"], ["s"]), node("Mul", ["s", "m"], ["i"]), LOOKUP],
         {"k": np.array(1), "m": np.array(-3)}, (-2, 1)),
        ([node("Slice", ["x", "s", "e", "a"], ["i"]), LOOKUP, node("Gather", ["small", "x"], ["z"], axis=0)],
         {"s": np.array([0]), "e": np.array([2]), "a": np.array([1]), "small": weights(2, 5, 2)}, (0, 4)),
        ([node("Concat", ["x", "k"], ["i"], axis=0), LOOKUP], {"k": np.zeros((1, 6), np.int64)}, (0, 9)),
        ([node("OneHot", ["x", "depth", "v"], ["y"])], {"depth": np.array(7), "v": np.float32([0, 1])}, (0, 6)),
    ],
    ids="gather axis elements moved shifted offsets subtracted scaled both tightest concat onehot".split(),  # noqa: SIM905
)  # fmt: skip
def test_an_index_lies_inside_what_it_indexes(nodes, held, expected):
    assert range_of(nodes, {**TABLE, **held}) == (*expected, True)


def test_the_ends_of_an_inferred_range_are_accepted_and_what_lies_beyond_is_not():
    """Beside onnxruntime: the range is neither too wide nor, where one shift is applied, too narrow."""
    import onnxruntime as ort

    nodes = [node("Sub", ["x", "k"], ["s"]), node("Mul", ["s", "m"], ["i"]), node("GatherElements", ["t", "i"], ["y"])]
    held = {"k": np.array(1), "m": np.array(-3), "t": weights(1, 10, 6)}
    model = make(nodes, [tensor("x", [2, 6], INT)], [ANY], held)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    low, high, _ = range_of(nodes, held)
    for value in (low, high):
        session.run(None, {"x": np.full((2, 6), value)})
    with pytest.raises(Exception, match=r"[Bb]ounds|range"):
        session.run(None, {"x": np.full((2, 6), low - 2)})  # 9 positions too far: no negative index either


def test_a_mask_is_zero_and_one_and_what_is_compared_reaches_what_it_is_compared_with():
    to_float = node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    assert range_of([to_float]) == (0, 1, False)
    assert range_of([node("Less", ["x", "k"], ["y"])], {"k": np.array([3, 8])}) == (0, 8, False)
    assert range_of([node("Not", ["x"], ["y"])], kind=TensorProto.BOOL) == (0, 1, False)
    assert range_of([to_float], kind=TensorProto.UINT8) == (0, 255, False)
    assert range_of([node("Reshape", ["v", "x"], ["y"])], {"v": weights(1, 4)}) == (1, 1, True)


def test_readers_that_contradict_each_other_leave_it_open():
    nodes = [node("Add", ["x", "k"], ["i"]), LOOKUP, node("Gather", ["table", "x"], ["z"], axis=0)]
    assert range_of(nodes, {**TABLE, "k": np.array(50)}) is None


@pytest.fixture
def embedded(tmp_path):
    """A network of identifiers, a mask and a BatchNorm, with the fold of it."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"], axis=0),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Mul", ["e", "m"], ["masked"]),
        node("MatMul", ["masked", "w"], ["d"], name="dense"),
        bn_node("d", "y", "bn"),
    ]
    held = {"table": weights(1, 10, 4), "w": weights(2, 4, 5), **batch_norm("bn", 5)}
    model = make(nodes, [tensor("ids", [6], INT), tensor("mask", [6, 1], INT)], [ANY], held)
    path, folded = tmp_path / "ids.onnx", tmp_path / "folded.onnx"
    path.write_bytes(model.SerializeToString())
    return path, folded, fold(path, folded).verification


def test_a_model_of_identifiers_verifies_by_default(embedded):
    _, _, result = embedded
    assert result.verdict == "equivalent"
    assert {name: (each["low"], each["high"]) for name, each in result.inputs["ranges"].items()} == {
        "ids": (0, 9), "mask": (0, 1),
    }  # fmt: skip
    assert "looks up one of 10" in result.inputs["ranges"]["ids"]["because"]


def test_a_range_that_is_given_counts(embedded):
    original, folded, _ = embedded
    options = VerifyOptions(runs=RunOptions(inputs=InputOptions(ranges={"ids": (0, 3)})))
    result = verify(original, folded, options).verification
    assert (result.verdict, list(result.inputs["ranges"])) == ("equivalent", ["mask"])
    wide = VerifyOptions(checks=("outputs",), runs=RunOptions(inputs=InputOptions(ranges={"ids": (20, 30)})))
    assert verify(original, folded, wide).verification.verdict == "inconclusive"


def test_the_text_says_what_was_inferred(embedded):
    original, folded, _ = embedded
    result = call("verify", "--verbose", original, folded)
    assert "input 'ids': 0 to 9, Gather" in result.stdout
    assert "input 'mask': 0 to 1, it indexes nothing" in result.stdout


def test_a_program_of_identifiers_verifies_by_default(tmp_path):
    """Embeddings of columns, with offsets; a mask of truth values."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.single = torch.nn.Embedding(30, 4), torch.nn.Embedding(7, 4)
            self.register_buffer("offsets", torch.tensor([0, 10]))
            self.dense, self.norm = torch.nn.Linear(12, 6), torch.nn.BatchNorm1d(6)

        def forward(self, ids, kind, mask):
            found = self.embedding(ids + self.offsets).flatten(1)
            return self.norm(self.dense(torch.cat([found, self.single(kind)], 1))) * mask

    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_mean.normal_()
    example = torch.randint(0, 10, (5, 2)), torch.randint(0, 7, (5,)), torch.rand(5, 1) > 0.5
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(net, example), path)
    result = fold(path, tmp_path / "folded.pt2").verification
    assert result.verdict == "equivalent"
    assert [(each["low"], each["high"]) for each in result.inputs["ranges"].values()] == [(0, 19), (0, 6), (0, 1)]
