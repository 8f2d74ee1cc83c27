"""What models are fed: the user's data in every layout, or generated samples that the model accepts."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.api import fold, verify
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights


@pytest.mark.parametrize("layout", ["npz", "npy", "folder", "test_data_set_0"])
def test_user_data_in_all_layouts(pair, tmp_path, samples, layout):
    data = tmp_path / "data"
    image = np.load(samples / "digits.npz")["image"][:3]
    if layout == "npz":
        path = data.with_suffix(".npz")
        np.savez(path, image=image)
    elif layout == "npy":
        path = data.with_suffix(".npy")
        np.save(path, image)
    else:
        path = data
        folder = data / layout if layout == "test_data_set_0" else data
        folder.mkdir(parents=True)
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(image).SerializeToString())
    options = VerifyOptions(runs=RunOptions(inputs=InputOptions(data=path)))
    result = verify(*pair, options)
    assert result.verification.verdict == "equivalent"
    assert result.verification.inputs["source"] == str(path)


def test_integers_need_a_range(tmp_path):
    nodes = [
        node("Gather", ["table", "ids"], ["e"], axis=0),
        node("MatMul", ["e", "w"], ["m"], name="dense"),
        bn_node("m", "y", "bn"),
    ]
    held = {"table": weights(1, 10, 4), "w": weights(2, 4, 5), **batch_norm("bn", 5)}
    model = make(nodes, [tensor("ids", [6], onnx.TensorProto.INT64)], [ANY], held)
    original, folded = tmp_path / "ids.onnx", tmp_path / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    fold(original, folded)
    assert verify(original, folded, VerifyOptions(["outputs"])).verification.verdict == "inconclusive"
    options = VerifyOptions(["outputs"], runs=RunOptions(inputs=InputOptions(ranges={"ids": (0, 9)})))
    assert verify(original, folded, options).verification.verdict == "equivalent"


def test_free_dimensions_are_tried_until_the_model_accepts_them(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("Flatten", ["b"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
    ]
    held = {"w": weights(1, 4, 3, 1, 1), "v": weights(2, 4 * 64 * 64, 2), **batch_norm("bn", 4)}
    model = make(nodes, [tensor("x", ["N", 3, "H", "W"])], [ANY], held)
    original, folded = tmp_path / "free.onnx", tmp_path / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    result = fold(original, folded).verification
    assert result.verdict == "equivalent"
    assert result.inputs["shapes"] == [{"x": [1, 3, 64, 64]}, {"x": [2, 3, 64, 64]}]


def test_user_rows_beyond_the_declared_batch_become_samples(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    original, folded = tmp_path / "o.onnx", tmp_path / "f.onnx"
    original.write_bytes(make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held).SerializeToString())
    fold(original, folded)
    np.save(tmp_path / "x.npy", weights(3, 5, 3, 8, 8))
    options = VerifyOptions(runs=RunOptions(inputs=InputOptions(data=tmp_path / "x.npy")))
    result = verify(original, folded, options).verification
    assert (result.verdict, result.inputs["samples"]) == ("equivalent", 5)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2", "BFLOAT16", "INT4", "STRING", "COMPLEX64"])
def test_inputs_that_numpy_can_t_store_leave_it_undecided(kind, tmp_path):
    nodes = [node("Identity", ["z"], ["unread"]), node("Conv", ["x", "w"], ["c"]), bn_node("c", "y", "bn")]
    held = {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4)}
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("z", [2], getattr(onnx.TensorProto, kind))]
    path = tmp_path / "model.onnx"
    path.write_bytes(make(nodes, inputs, [tensor("y", None)], held, opset=21, ir_version=10).SerializeToString())
    found = {check.check: check for check in fold(path, tmp_path / "folded.onnx").verification.checks}
    assert found["structure"].verdict == found["weights"].verdict == "pass"
    assert found["outputs"].verdict == "inconclusive"
    assert f"has type {kind.lower()}" in found["outputs"].detail
