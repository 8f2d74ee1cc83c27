"""Additions that round: constants so large beside the activations that adding them is no affine map."""

import ml_dtypes
import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, inspect, verify
from bnfold.options import VerifyOptions
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights
from tests.support import run

MAGIC = 1.5 * 2**23
"""Adding it to a float32 below 2**22 rounds to integers."""

K = 127 / 4
"""Eight bits over -4 … 4."""

CONV = [node("Conv", ["x", "w"], ["c"], name="conv")]
NORM = [bn_node("c", "b", "bn")]
LAST = bn_node("z", "y", "bn")
HELD = {"w": weights(1, 4, 3, 1, 1), "v": weights(5, 4, 4, 1, 1), **batch_norm("bn", 4, 3)}


def constants(dtype="float32", **more):
    held = {"k": K, "ik": 1 / K, "C": MAGIC, "mC": -MAGIC, "s": MAGIC / K, "h": MAGIC / K / 2, **more}
    return {
        name: np.asarray(value, dtype) if np.asarray(value).dtype.kind == "f" else value for name, value in held.items()
    }


def quantized(source, target):
    """``source`` rounded to multiples of 1 / k, as exporters write it out that know no Round."""
    return [
        node("Mul", [source, "k"], ["q1"]),
        node("Add", ["q1", "C"], ["q2"]),
        node("Sub", ["q2", "C"], ["q3"]),
        node("Mul", ["q3", "ik"], [target]),
    ]


def model_of(nodes, held, dtype="float32"):
    known = {**HELD, **held}
    known = {name: data.astype(dtype) if data.dtype.kind == "f" else data for name, data in known.items()}
    used = {name: data for name, data in known.items() if any(name in entry.input for entry in nodes)}
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return make(nodes, [tensor("x", [2, 3, 8, 8], kind)], [tensor("y", None, kind)], used)


FOUR = np.ones((4, 1, 1))
THIRD = np.array([0.0, 0, 1, 0]).reshape(4, 1, 1)
ADDER = {"one": np.ones(4), "none": np.zeros(4), "four": np.full(4, K)}


def norm(source, target, scale, bias, mean, var):
    """A BatchNorm with these parameters."""
    return node("BatchNormalization", [source, scale, bias, mean, var], [target], name="other", epsilon=0.0)


ROUNDING = {
    "before_a_norm": ([*CONV, *quantized("c", "z"), LAST], {}),
    "behind_a_norm": ([*CONV, *NORM, *quantized("b", "y")], {}),
    "of_the_input": ([*quantized("x", "z"), node("Conv", ["z", "w"], ["c"]), bn_node("c", "y", "bn")], {}),
    "between_layers": (
        [*CONV, *NORM, *quantized("b", "z"), node("Relu", ["z"], ["r"]), node("Conv", ["r", "v"], ["y"])], {},
    ),
    "per_channel": ([*CONV, *quantized("c", "z"), LAST], {"C": MAGIC * FOUR}),
    "in_one_channel": ([*CONV, *quantized("c", "z"), LAST], {"C": MAGIC * THIRD}),
    "scaled_constant": ([*CONV, node("Add", ["c", "s"], ["q"]), node("Sub", ["q", "s"], ["z"]), LAST], {}),
    "scaled_behind_a_norm": (
        [
            *CONV, *NORM, node("Add", ["b", "s"], ["q"]), node("Sub", ["q", "s"], ["r"]),
            node("Mul", ["r", "k"], ["y"]),
        ],
        {},
    ),
    "in_one_sum": (
        [
            *CONV, node("Mul", ["c", "k"], ["q1"]), node("Sum", ["q1", "C", "mC"], ["q2"]),
            node("Mul", ["q2", "ik"], ["z"]), LAST,
        ],
        {},
    ),
    "scaled_in_one_sum": ([*CONV, node("Sum", ["s", "c", "ms"], ["z"]), LAST], {"ms": -MAGIC / K}),
    "of_two_values": (
        [
            *CONV, node("Mul", ["c", "k"], ["q1"]), node("Relu", ["q1"], ["r"]), node("Sum", ["q1", "r", "C"], ["q2"]),
            node("Sub", ["q2", "C"], ["q3"]), node("Mul", ["q3", "ik"], ["z"]), LAST,
        ],
        {},
    ),
    "in_a_mean": (
        [
            *CONV, node("Mul", ["c", "k"], ["q1"]), node("Mean", ["q1", "C"], ["q2"]), node("Sub", ["q2", "ch"], ["z"]),
            LAST,
        ],
        {"ch": MAGIC / 2},
    ),
    "clamped": (
        [
            *CONV, *NORM, node("Mul", ["b", "k"], ["q1"]), node("Add", ["q1", "C"], ["q2"]),
            node("Clip", ["q2", "lo", "hi"], ["q3"]), node("Sub", ["q3", "C"], ["q4"]),
            node("Mul", ["q4", "ik"], ["y"]),
        ],
        {"lo": MAGIC - 128, "hi": MAGIC + 127},
    ),
    "clamped_and_scaled": (
        [
            *CONV, *NORM, node("Add", ["b", "s"], ["q2"]), node("Clip", ["q2", "lo", "hi"], ["q3"]),
            node("Sub", ["q3", "s"], ["q4"]), node("Mul", ["q4", "k"], ["y"]),
        ],
        {"lo": (MAGIC - 128) / K, "hi": (MAGIC + 127) / K},
    ),
    "from_the_left": (
        [
            *CONV, *NORM, node("Mul", ["b", "k"], ["q1"]), node("Add", ["C", "q1"], ["q2"]),
            node("Add", ["mC", "q2"], ["q3"]), node("Div", ["q3", "k"], ["y"]),
        ],
        {},
    ),
    "subtracted_from": (
        [
            *CONV, *NORM, node("Mul", ["b", "k"], ["q1"]), node("Sub", ["C", "q1"], ["q2"]),
            node("Sub", ["C", "q2"], ["q3"]), node("Div", ["q3", "k"], ["y"]),
        ],
        {},
    ),
    "by_sum": (
        [
            *CONV, *NORM, node("Mul", ["b", "k"], ["q1"]), node("Sum", ["q1", "C"], ["q2"]),
            node("Sub", ["q2", "C"], ["q3"]), node("Div", ["q3", "k"], ["y"]),
        ],
        {},
    ),
    "in_two_halves": (
        [
            *CONV, *NORM, node("Add", ["b", "h"], ["q1"]), node("Add", ["q1", "h"], ["q2"]),
            node("Sub", ["q2", "s"], ["q3"]), node("Mul", ["q3", "k"], ["y"]),
        ],
        {},
    ),
    "through_a_reshape": (
        [
            *CONV, *NORM, node("Add", ["b", "s"], ["q2"]), node("Reshape", ["q2", "to"], ["r"]),
            node("Sub", ["r", "s"], ["q3"]), node("Mul", ["q3", "k"], ["y"]),
        ],
        {"to": np.array([2, -1])},
    ),
    "bias_of_a_layer": (
        [node("Conv", ["x", "w", "bias"], ["c"]), node("Sub", ["c", "C"], ["z"]), LAST], {"bias": np.full(4, MAGIC)},
    ),
    "bias_of_a_norm": (
        [*CONV, norm("c", "q", "four", "bias", "none", "one"), node("Sub", ["q", "C"], ["z"]), LAST],
        {**ADDER, "bias": np.full(4, MAGIC)},
    ),
    "scaled_bias_of_a_norm": (
        [*CONV, norm("c", "q", "one", "bias", "none", "one"), node("Sub", ["q", "s"], ["z"]), LAST],
        {**ADDER, "bias": np.full(4, MAGIC / K)},
    ),
    "taken_back_by_a_norm": (
        [*CONV, node("Add", ["c", "s"], ["q"]), norm("q", "y", "one", "none", "mean", "one")],
        {**ADDER, "mean": np.full(4, MAGIC / K)},
    ),
    "bias_below_whole_numbers": (
        [node("Conv", ["x", "w", "bias"], ["c"]), node("Sub", ["c", "s"], ["z"]), LAST],
        {"bias": np.full(4, MAGIC / K)},
    ),
    "bias_taken_back_by_a_norm": (
        [node("Conv", ["x", "w", "bias"], ["c"]), norm("c", "y", "one", "none", "mean", "one")],
        {**ADDER, "bias": np.full(4, MAGIC / K), "mean": np.full(4, MAGIC / K)},
    ),
    "small_bias_beside_tiny_weights": (
        [
            node("Conv", ["x", "tiny", "one"], ["c"]), node("Sub", ["c", "one4"], ["d"]),
            node("Mul", ["d", "up"], ["z"]), LAST,
        ],
        {**ADDER, "tiny": weights(1, 4, 3, 1, 1) * (K / MAGIC), "one4": FOUR, "up": MAGIC / K},
    ),
    **{
        f"through_{entry.op_type}": (
            [*CONV, node("Add", ["c", "s"], ["q"]), entry, node("Sub", ["r", "s"], ["z"]), LAST], more
        )
        for entry, more in (
            (node("MaxPool", ["q"], ["r"], kernel_shape=[1, 1]), {}),
            (node("AveragePool", ["q"], ["r"], kernel_shape=[2, 2]), {}),
            (node("Gather", ["q", "i"], ["r"], axis=2), {"i": np.array([3, 0, 1])}),
            (
                node("Slice", ["q", "from", "to", "on"], ["r"]),
                {"from": np.array([1]), "to": np.array([5]), "on": np.array([2])},
            ),
        )
    },
    "by_channel_through_transposes": (
        [
            *CONV, node("Add", ["c", "each"], ["q"]), node("Transpose", ["q"], ["t"], perm=[0, 2, 3, 1]),
            node("Sub", ["t", "last"], ["u"]), node("Transpose", ["u"], ["z"], perm=[0, 3, 1, 2]), LAST,
        ],
        {"each": MAGIC / K * np.arange(1.0, 5).reshape(4, 1, 1), "last": MAGIC / K * np.arange(1.0, 5)},
    ),
    "saturating_factors": (
        [*CONV, *NORM, node("Mul", ["b", "big"], ["q"]), node("Mul", ["q", "small"], ["y"])],
        {"big": 2.0**127, "small": 2.0**-126},
    ),
    "vanishing_factors": (
        [*CONV, *NORM, node("Mul", ["b", "small"], ["q"]), node("Mul", ["q", "big"], ["y"])],
        {"big": 2.0**126, "small": 2.0**-126},
    ),
}  # fmt: skip


def feed():
    return np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f4")


@pytest.mark.parametrize("options", [{}, {"scales": False}, {"threshold": True, "merge": True}], ids=str)
@pytest.mark.parametrize("name", ROUNDING)
def test_what_rounds_stays(name, options, tmp_path):
    """The fold computes what the original does, roundings included: all but a few numbers near a half."""
    nodes, more = ROUNDING[name]
    model = model_of(nodes, constants(**more))
    original, folded = tmp_path / "a.onnx", tmp_path / "b.onnx"
    original.write_bytes(model.SerializeToString())
    fold(original, folded, FoldOptions(verify=None, **options))
    expected, actual = (run(onnx.load(path), {"x": feed()})[0] for path in (original, folded))
    with np.errstate(invalid="ignore"):
        same = (expected == actual) | (
            np.abs(expected - actual) <= 1e-5 * np.abs(expected[np.isfinite(expected)]).max()
        )
    assert same.mean() > 0.995
    kinds = ("Mul", "Add", "Sub", "Sum", "Mean", "Div", "BatchNormalization")
    before, after = ([entry.op_type in kinds for entry in onnx.load(path).graph.node] for path in (original, folded))
    assert sum(after) >= 2 or name.startswith("bias"), (sum(before), sum(after))


@pytest.mark.parametrize(("dtype", "exponent"), [("float16", 10), ("bfloat16", 7), ("float64", 52)])
def test_other_types_round_at_other_constants(dtype, exponent):
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    held = {"C": np.asarray(1.5 * 2.0**exponent), "k": np.asarray(4.0), "ik": np.asarray(0.25)}
    rows = inspect(model_of([*CONV, *quantized("c", "z"), LAST], held, kind)).rows
    assert [(row.name, row.reason and row.reason["code"]) for row in rows if row.form != "scale"] == [
        ("bn_bn", "nonlinear")
    ]


PLAIN = {
    "pixels": (
        [node("Sub", ["x", "m"], ["a"]), node("Mul", ["a", "i"], ["s1"]), node("Conv", ["s1", "w"], ["z"]), LAST],
        {"m": 127.5, "i": 1 / 127.5},
    ),
    "there_and_back": (
        [node("Mul", ["x", "i"], ["a"]), node("Sub", ["a", "m"], ["s1"]), node("Add", ["s1", "m"], ["s2"]),
         node("Conv", ["s2", "w"], ["z"]), LAST],
        {"m": 127.5, "i": 2.0},
    ),
    "large_mean_written_out": (
        [*CONV, node("Sub", ["c", "m"], ["a"]), node("Mul", ["a", "g"], ["s1"]), node("Add", ["s1", "t"], ["y"])],
        {"m": 5000 * FOUR, "g": np.arange(1.0, 5).reshape(4, 1, 1), "t": FOUR},
    ),
    "large_mean": ([*CONV, norm("c", "y", "one", "none", "m", "one")], {**ADDER, "m": np.full(4, 1e6)}),
    "small_scale": (
        [
            *CONV, norm("c", "b", "tiny", "one", "none", "one"), node("Relu", ["b"], ["r"]),
            norm("r", "z", "one", "none", "one", "var"), LAST,
        ],
        {**ADDER, "tiny": np.array([1e-6, 1, 1, 1]), "var": np.array([1e-12, 1, 1, 1])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_large_constants_of_real_networks_fold(name):
    nodes, more = PLAIN[name]
    rows = inspect(model_of(nodes, constants(**more))).batch_norms
    assert rows
    assert "nonlinear" not in {row.reason["code"] for row in rows if row.reason and "rounds" in row.reason["detail"]}


@pytest.mark.parametrize(
    "checks", [("outputs",), ("structure", "weights"), ("structure", "weights", "layers", "outputs")]
)
def test_a_fold_that_takes_the_rounding_away_is_different(checks, tmp_path):
    """Not inconclusive: the float64 run does not round, but rounding does not explain how the models differ either."""
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    nodes = [*CONV, *NORM, *quantized("b", "y")]
    wrong = [*CONV, *NORM, node("Identity", ["b"], ["y"])]
    for path, one in zip(paths, (nodes, wrong), strict=True):
        path.write_bytes(model_of(one, constants()).SerializeToString())
    assert verify(*paths, VerifyOptions(checks)).verdict == "different"
    assert fold(paths[0], tmp_path / "c.onnx").verdict == "equivalent"


def test_branches_whose_biases_cancel_are_not_merged():
    nodes = [
        node("Conv", ["x", "w", "up"], ["c"]), bn_node("c", "b", "bn"), node("Conv", ["x", "w2", "down"], ["d"]),
        bn_node("d", "e", "bn"), node("Add", ["b", "e"], ["y"]),
    ]  # fmt: skip
    held = {"w2": weights(8, 4, 3, 1, 1), "up": np.full(4, MAGIC / K), "down": np.full(4, -MAGIC / K)}
    options = FoldOptions(verify=None, merge=True)
    kept = [row for row in inspect(model_of(nodes, held), options).batch_norms if row.via == ["Add"]]
    assert kept == []
    plain = {**held, "up": np.full(4, 0.5), "down": np.full(4, -0.5)}
    assert all(row.status == "foldable" for row in inspect(model_of(nodes, plain), options).batch_norms)


def test_digits_that_are_lost_by_chance_leave_the_outputs_undecided(tmp_path):
    """A difference of large computed numbers: moving the weights by an ulp moves it as far as a fold does."""
    nodes = [
        *CONV, *NORM, node("Mul", ["b", "big"], ["p"]), node("Conv", ["p", "v"], ["q"]),
        node("Conv", ["p", "u"], ["r"]), node("Sub", ["q", "r"], ["y"]),
    ]  # fmt: skip
    held = {**constants(), "big": np.float32(1000), "u": weights(5, 4, 4, 1, 1) * np.float32(1 + 1e-6)}
    original = tmp_path / "a.onnx"
    original.write_bytes(model_of(nodes, held).SerializeToString())
    result = fold(original, tmp_path / "b.onnx")
    assert {check.check: check.verdict for check in result.verification.checks}["outputs"] != "fail"


def program(magic, *, last=True):
    """A module of torch that rounds, unless ``magic`` is 0."""
    torch = pytest.importorskip("torch")

    class Quantized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)
            torch.nn.init.constant_(self.bn.bias, 0.5)  # a shift, which the division before it can't take

        def forward(self, x):
            y = self.conv(x) if last else self.bn(self.conv(x))
            y = (y * K + magic - magic) / K if magic else y
            return self.bn(y) if last else y

    torch.manual_seed(0)
    return torch.export.export(Quantized().eval(), (torch.randn(2, 3, 8, 8),))


def test_programs_of_torch_round_too():
    rows = inspect(program(MAGIC)).batch_norms
    assert [row.reason["code"] for row in rows] == ["nonlinear"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_program_whose_rounding_was_taken_away_is_different(tmp_path):
    torch = pytest.importorskip("torch")
    paths = tmp_path / "a.pt2", tmp_path / "b.pt2"
    for path, magic in zip(paths, (MAGIC, 0), strict=True):
        torch.export.save(program(magic, last=False), path)
    assert verify(*paths, VerifyOptions(("outputs",))).verdict == "different"
