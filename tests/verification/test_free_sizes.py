"""Dimensions that are free: what a simplification may change in shape is no simplification, and two sizes tell."""

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from bnfold.verification.onnx.inputs import size_choices
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights

PROOFS = VerifyOptions(("structure", "weights"))
OUTPUTS = VerifyOptions(("outputs",))
K = np.linspace(-1, 1, 4, dtype="float32").reshape(1, 4)


def pair(folder, before, after, shape=("N", 4), held=None):
    """Two models over one input, given by their nodes."""
    paths = folder / "a.onnx", folder / "b.onnx"
    known = {"k": K, "w": weights(1, 4, 4), "zero": np.float32(0), "axes": np.array([0]), **(held or {})}
    for path, nodes in zip(paths, (before, after), strict=True):
        used = {name: data for name, data in known.items() if any(name in entry.input for entry in nodes)}
        model = make(nodes, [tensor("x", list(shape))], [tensor("y", None)], used)
        path.write_bytes(model.SerializeToString())
    return paths


def summed(*terms, op="Add", dead=("Mul", ["x", "zero"])):
    """``ReduceSum(k @ w + 0 * x)``, with or without its second term."""
    nodes = [node("MatMul", ["k", "w"], ["m"]), node(dead[0], dead[1], ["d"])]
    nodes = [entry for entry in nodes if entry.output[0] in terms]
    nodes.append(node(op, list(terms), ["s"]) if len(terms) > 1 else node("Identity", ["m"], ["s"]))
    return [*nodes, node("ReduceSum", ["s", "axes"], ["t"], keepdims=0), node("Add", ["t", "x"], ["y"])]


@pytest.mark.parametrize(
    ("op", "shape", "order"),
    [
        ("Add", ("N", 4), ("m", "d")), ("Add", (None, 4), ("d", "m")), ("Add", (3, 4), ("d", "m")),
        ("Sub", ("N", 4), ("m", "d")), ("Sub", (3, 4), ("m", "d")), ("Sum", (None, 4), ("d", "m")),
    ],
)  # fmt: skip
def test_a_term_of_gain_zero_gives_a_sum_its_shape(op, shape, order, tmp_path):
    """ReduceSum(k @ w + 0 * x) is N times ReduceSum(k @ w)."""
    paths = pair(tmp_path, summed(*order, op=op), summed("m"), shape)
    assert verify(*paths, PROOFS).verdict != "equivalent"
    assert verify(*paths, OUTPUTS).verdict == "different"


def test_a_difference_of_a_value_and_itself_gives_a_shape_too(tmp_path):
    paths = pair(tmp_path, summed("m", "d", dead=("Sub", ["x", "x"])), summed("m"))
    assert verify(*paths, PROOFS).verdict != "equivalent"
    assert verify(*paths, OUTPUTS).verdict == "different"


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), ("N", 4)])
def test_a_term_of_gain_zero_of_the_same_shape_goes(shape, tmp_path):
    before = [node("Mul", ["x", "zero"], ["d"]), node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "d"], ["y"])]
    paths = pair(tmp_path, before, [node("MatMul", ["x", "w"], ["y"])], shape)
    assert verify(*paths, PROOFS).verdict == "equivalent"


def test_a_residual_branch_that_was_scaled_to_nothing_folds(tmp_path):
    """A BatchNorm with a scale of zero in front of a sum, sizes unknown: the right fold is still proved."""
    held = {**batch_norm("bn", 3, 2), "w": weights(1, 3, 3, 3, 3)}
    held["bn_scale"] = np.zeros(3, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        bn_node("c", "b", "bn"),
        node("Add", ["b", "x"], ["y"]),
    ]
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    model = make(nodes, [tensor("x", ["N", 3, "H", "W"])], [tensor("y", None)], held)
    paths[0].write_bytes(model.SerializeToString())
    assert fold(*paths, FoldOptions(verify=PROOFS)).verdict == "equivalent"


def test_a_comparison_that_adds_an_axis_is_no_leaky_relu(tmp_path):
    held = {"z": np.zeros((1, 1, 1), "f4"), "s": np.float32(0.1)}
    nodes = [node("Less", ["x", "z"], ["l"]), node("Mul", ["x", "s"], ["m"]), node("Where", ["l", "m", "x"], ["r"])]
    written = [*nodes, node("ReduceSum", ["r", "axes"], ["t"], keepdims=0), node("Identity", ["t"], ["y"])]
    plain = [node("LeakyRelu", ["x"], ["r"], alpha=float(np.float32(0.1)))]
    plain += [node("ReduceSum", ["r", "axes"], ["t"], keepdims=0), node("Identity", ["t"], ["y"])]
    paths = pair(tmp_path, written, plain, (3, 4), held)
    assert verify(*paths, PROOFS).verdict != "equivalent"


def inputs_of(model, folder, **options):
    paths = folder / "a.onnx", folder / "b.onnx"
    paths[0].write_bytes(model.SerializeToString())
    fold(*paths, FoldOptions(verify=None), force=True)
    runs = RunOptions(inputs=InputOptions(**options))
    return verify(*paths, VerifyOptions(("outputs",), runs)).verification


def image(*shape, flat=None):
    held = {**batch_norm("bn", 3, 2), "w": weights(1, 3, 3, 1, 1)}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn")]
    if flat is not None:
        held["to"] = np.array(flat)
        nodes += [node("Reshape", ["b", "to"], ["y"])]
    else:
        nodes += [node("Relu", ["b"], ["y"])]
    return make(nodes, [tensor("x", list(shape))], [tensor("y", None)], held)


def test_generated_inputs_have_two_sizes_where_dimensions_are_free(tmp_path):
    found = inputs_of(image("N", 3, "H", "W"), tmp_path)
    assert found.verdict == "equivalent"
    assert found.inputs["shapes"] == [{"x": [1, 3, 32, 32]}, {"x": [2, 3, 64, 64]}]


def test_one_kind_of_input_has_two_sizes_too(tmp_path):
    found = inputs_of(image("N", 3, 8, 8), tmp_path, kinds=("normal",))
    assert found.inputs["shapes"] == [{"x": [1, 3, 8, 8]}, {"x": [2, 3, 8, 8]}]


def test_a_model_that_takes_one_size_is_given_one(tmp_path):
    found = inputs_of(image("N", 3, "H", "W", flat=[1, 3 * 32 * 32]), tmp_path)
    assert found.verdict == "equivalent"
    assert found.inputs["shapes"] == [{"x": [1, 3, 32, 32]}]


@pytest.mark.parametrize("options", [{"shapes": {"x": (4, 3, 8, 8)}}, {"samples": 1, "kinds": ("normal",)}])
def test_what_the_user_says_is_what_is_fed(options, tmp_path):
    found = inputs_of(image("N", 3, 8, 8), tmp_path, **options)
    assert found.inputs["shapes"] == [{"x": [4 if "shapes" in options else 1, 3, 8, 8]}]


def test_dimensions_of_one_name_have_one_size():
    nodes = [node("MatMul", ["x", "z"], ["y"])]
    model = make(nodes, [tensor("x", ["N", "T"]), tensor("z", ["T", "D"])], [tensor("y", None)], {})
    assert next(size_choices(InputOptions(), model)).of(0, "normal")[1] == 32
    from bnfold.verification.runtime.inputs import shapes_of

    assert shapes_of(InputOptions(), list(model.graph.input), 1, 32) == {"x": (1, 32), "z": (32, 32)}


def test_outputs_whose_sizes_change_are_judged_together(tmp_path):
    """The batch on the axis of channels: what has another length in the next sample is no channel."""
    model = image("N", 3, 8, 8)
    model.graph.node[-1].CopyFrom(node("Transpose", ["b"], ["y"], perm=[1, 0, 2, 3]))
    found = inputs_of(model, tmp_path, samples=3)
    assert found.verdict == "equivalent"


def test_a_program_of_free_batch_runs_on_two_sizes(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    dynamic = ({0: torch.export.Dim("N", min=1, max=8)},)
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=dynamic)
    result = fold(program)
    assert result.verdict == "equivalent"
    assert [
        shape["x"] if "x" in shape else next(iter(shape.values())) for shape in result.verification.inputs["shapes"]
    ] == [
        [2, 3, 8, 8],
        [3, 3, 8, 8],
    ]


def test_the_files_are_left_alone(tmp_path):
    model = image("N", 3, "H", "W")
    inputs_of(model, tmp_path)
    assert onnx.load(tmp_path / "a.onnx") == model
