"""Types that numpy does not know, at the ends of a model and within: an answer or a clear sentence, never a bug."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import fold

SHAPE = [1, 4, 2, 2]
ODD = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1", "INT4", "UINT4", "BFLOAT16")
OTHER = ("STRING", "COMPLEX64")


def folded(tmp_path, ends, before=(), after=(), held=()):
    """What a fold of one BatchNorm between ``before`` (which makes x) and ``after`` (which reads n) says."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 4, 1, 1)), **{name: rng.uniform(1, 2, 4) for name in "sbmv"}}
    constants = [numpy_helper.from_array(array.astype("f4"), name) for name, array in arrays.items()]
    nodes = [
        *before,
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *"sbmv"], ["n"]),
        *after,
    ]
    infos = [
        end
        if not isinstance(end, tuple)
        else helper.make_tensor_value_info(end[0], getattr(TensorProto, end[1]), SHAPE)
        for end in ends
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [*constants, *held])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return fold(tmp_path / "m.onnx", tmp_path / "f.onnx").verification


def verdicts(found):
    return {check.check: check.verdict for check in found.checks}


def cast(source, target, kind):
    return helper.make_node("Cast", [source], [target], to=getattr(TensorProto, kind))


@pytest.mark.parametrize("kind", [*ODD, *OTHER])
def test_an_output_of_an_odd_type_is_judged_by_proof(tmp_path, kind):
    found = folded(tmp_path, [("x", "FLOAT"), ("y", kind)], after=[cast("n", "y", kind)])
    assert verdicts(found) == {"structure": "pass", "weights": "pass", "outputs": "inconclusive"}
    assert found.verdict == "equivalent"  # by proof
    assert "can't be run" in found.checks[-1].detail


def test_a_quantized_output_is_judged_by_proof(tmp_path):
    held = [
        numpy_helper.from_array(np.array(0.1, "f4"), "k"),
        helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0]),
    ]
    after = [helper.make_node("QuantizeLinear", ["n", "k", "z"], ["y"])]
    found = folded(tmp_path, [("x", "FLOAT"), ("y", "FLOAT8E4M3FN")], after=after, held=held)
    assert found.verdict == "equivalent" and "'y' is a tensor(float8e4m3fn)" in found.checks[-1].detail


@pytest.mark.parametrize("kind", ODD)
def test_values_of_odd_types_within_a_model_don_t_matter(tmp_path, kind):
    found = folded(tmp_path, [("x", "FLOAT"), ("y", "FLOAT")], after=[cast("n", "k", kind), cast("k", "y", "FLOAT")])
    assert found.verdict in ("equivalent", "inconclusive") and "fail" not in verdicts(found).values()


@pytest.mark.parametrize("kind", [*ODD, *OTHER])
def test_inputs_of_odd_types_are_not_made_up(tmp_path, kind):
    found = folded(tmp_path, [("q", kind), ("n", "FLOAT")], before=[cast("q", "x", "FLOAT")])
    assert found.verdict == "equivalent" and "can't be run" in found.checks[-1].detail


def test_outputs_that_are_no_tensors(tmp_path):
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    optional = helper.make_value_info("y", helper.make_optional_type_proto(tensor))
    for end, node in (
        (sequence, helper.make_node("SequenceConstruct", ["n", "n"], ["y"])),
        (optional, helper.make_node("Optional", ["n"], ["y"])),
        (optional, helper.make_node("Optional", [], ["y"], type=tensor)),
    ):
        found = folded(tmp_path, [("x", "FLOAT"), end], after=[node])
        assert found.verdict in ("equivalent", "inconclusive")
        (tmp_path / "f.onnx").unlink()
