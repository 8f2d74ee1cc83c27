"""What a fold may cost: an offset that other consumers have to undo, measured by the activations."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.builders import ANY, STATISTICS, batch_norm, bn, bn_node, make, node, normal, parse, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, reasons


def forked(offset, mean, shared=True):
    """Return a tensor with a BatchNorm and, if shared, another layer; the offset is ``offset`` times the scale."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4 if shared else 3, 1, 1)}
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), np.full(4, 2.0 * (offset + mean), "f4")
    held["bn_mean"], held["bn_var"] = np.full(4, mean, "f4"), np.full(4, 1.0 - 1e-5, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["b"], ["s"]),
        node("Conv", ["c" if shared else "x", "v"], ["t"]),
        node("Sigmoid", ["t"], ["u"]),
        node("Mul", ["s", "u"], ["y"]),
    ]
    return make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)


@pytest.mark.parametrize(
    ("offset", "mean", "folds"),
    [
        (1.7, 0.0, True),  # √(1.7² + 1²) is less than twice the deviation of 1
        (1.8, 0.0, False),
        (10.0, 10.0, True),  # as large as the activations themselves
        (10.2, 10.0, False),
        (-25.0, 10.0, True),
        (-10.0, 10.0, True),  # the mean goes: less is rounded than before
        (12.0, 3.0, False),
    ],
)
def test_an_offset_around_other_consumers_is_measured_by_the_activations(offset, mean, folds):
    model = forked(offset, mean)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


@pytest.mark.parametrize(
    ("epsilon", "var", "bias", "folds"),
    [
        (1e-3, [1.0, 1.0, 1.0, 1.0], 2.0, True),
        (1e6, [1.0, 1.0, 1.0, 1.0], 2.0, False),
        (1e30, [1.0, 1.0, 1.0, 1.0], 2.0, False),
        (1e-3, [0.0, 1.0, 1.0, 1.0], 2.0, True),
        (1e-3, [0.0, 0.0, 0.0, 0.0], 2.0, False),
        (1e-3, [0.0, 0.0, 0.0, 0.0], 0.0, True),
        (1e-3, [0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 2.0], False),
    ],
)
def test_an_epsilon_above_every_variance_is_no_measure_of_the_activations(epsilon, var, bias, folds):
    model = forked(0.0, 0.0)
    for held in model.graph.initializer:
        for name, values in (("bn_var", var), ("bn_bias", np.broadcast_to(bias, 4))):
            if held.name == name:
                held.CopyFrom(onnx.numpy_helper.from_array(np.array(values, "f4"), name))
    (norm,) = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_offset_without_other_consumers_may_be_of_any_size():
    _, (plan,) = fold_proto(forked(6400.0, 0.0, shared=False))
    assert plan.folds


@pytest.mark.parametrize("mean", [20.0, 1.0])
def test_an_offset_is_measured_by_the_activations_of_its_channel(mean):
    """The largest offset may be no larger than the activations of its own channel."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4, 1, 1)}
    offset, means = np.array([8, 0.2, 0.3, 0.4], "f4"), np.array([mean, 1, 1, 1], "f4")
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), 2.0 * (offset + means)
    held["bn_mean"], held["bn_var"] = means, np.full(4, 1.0 - 1e-5, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        s = Sigmoid (b)
        t = Conv (c, v)
        u = Sigmoid (t)
        y = Mul (s, u)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if mean > 1 else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_unused_output_of_unknown_size_needs_no_undoing():
    """A huge offset on both outputs of a Split along an axis of unknown size, one of them unused."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), np.full(4, 128000.0, "f4")
    held["bn_mean"], held["bn_var"] = np.zeros(4, "f4"), np.full(4, 1.0 - 1e-5, "f4")
    graph = """(float[1, 3, H, 4] x) => (float[] y) {
        c = Conv (x, w)
        one, other = Split <axis = 2> (c)
        b = BatchNormalization (one, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held, opset=13)
    _, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes


@pytest.mark.parametrize(
    ("gain", "offset", "folds"),
    [(0.01, 0.1, False), (0.01, 0.001, True), (1.0, 0.1, True), (100.0, 10.0, True), (1.0, 10.0, False)],
)
def test_an_offset_without_statistics_is_measured_by_the_weights_before_it(gain, offset, folds):
    held = {"w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4, 1, 1)}
    held |= {"g": np.full((4, 1, 1), gain, "f4"), "h": np.full((4, 1, 1), offset, "f4")}
    held["g"][0] *= 2  # not the same scale for all channels
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        p = Mul (c, g)
        b = Add (p, h)
        s = Sigmoid (b)
        t = Conv (c, v)
        u = Sigmoid (t)
        y = Mul (s, u)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_unused_output_needs_no_undoing():
    """An offset of any size may go to an output that is unused."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1)}
    held |= {"bn_scale": np.ones(2, "f4"), "bn_bias": np.full(2, 200.0, "f4"), "bn_mean": np.zeros(2, "f4")}
    held["bn_var"] = np.ones(2, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
        c = Conv (x, w)
        p, q = Split <axis = 1> (c)
        b = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    "between", [[node("Identity", ["t"], ["u"])], [node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2])]]
)
def test_conditioning_is_checked_behind_other_operators(between):
    held = {
        **STATISTICS,
        "s": np.full(4, 1e-6, "f4"),
        "b": np.ones(4, "f4"),
        "m": np.zeros(4, "f4"),
        "v": np.ones(4, "f4"),
    }
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="c"),
        *between,
        bn("u"),
        node("Conv", ["t", "w2"], ["q"], name="c2"),
    ]
    outputs = [ANY, helper.make_tensor_value_info("q", 1, None)]
    model = make(
        nodes, [tensor("x", [2, 3, 8, 8])], outputs, {"w": normal(4, 3, 1, 1), "w2": normal(4, 4, 1, 1), **held}
    )
    assert fold_and_compare(model) == 0


def dense(gammas, layers=3, channels=8):
    """Return a dense block: each layer normalises all that came before it, by a BatchNorm with these scales."""
    held, nodes, value, width = {"w": weights(1, channels, 3, 1, 1)}, [node("Conv", ["x", "w"], ["t0"])], "t0", channels
    rng = np.random.default_rng(3)
    for index in range(1, layers + 1):
        held |= {
            f"n{index}_scale": np.resize(gammas, width).astype("f4"),
            f"n{index}_bias": rng.normal(0, 0.3, width).astype("f4"),
            f"n{index}_mean": np.zeros(width, "f4"),
            f"n{index}_var": np.ones(width, "f4"),
            f"v{index}": (rng.standard_normal((4, width, 1, 1)) / np.sqrt(width)).astype("f4"),
        }
        nodes += [
            bn_node(value, f"b{index}", f"n{index}"),
            node("Relu", [f"b{index}"], [f"r{index}"]),
            node("Conv", [f"r{index}", f"v{index}"], [f"c{index}"]),
            node("Concat", [value, f"c{index}"], [f"t{index}"], axis=1),
        ]
        value, width = f"t{index}", width + 4
    nodes[-1].output[0] = "y"
    nodes.append(node("Sigmoid", [f"c{layers}"], ["z"]))
    nodes[-2:] = [node("Sigmoid", [f"c{layers}"], ["y"])]
    return make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)


@pytest.mark.parametrize(("gammas", "folds"), [([1.0, 0.8, 1.2], True), ([1.0, 0.8, 2e-3, 1.2], False)])
def test_a_small_scale_does_not_go_upstream_where_other_layers_would_divide_by_it(gammas, folds):
    """DenseNet: through a Concat, with BatchNorms that are kept behind it."""
    model = dense(gammas)
    folded, (plan,) = fold_proto(model)
    assert ("folds" in reasons(plan)) is folds
    assert folds or set(reasons(plan)) <= {"conditioning", "nonlinear"}
    assert "conditioning" in reasons(plan) or folds
    assert_equivalent(model, folded, 16.0)


@pytest.mark.parametrize("count", [2, 12])
def test_offsets_that_add_up_along_a_residual_chain_cost_little(count):
    """Each BatchNorm may leave its offset in the sum, where all of them could make it many times its size."""
    held, nodes, value = {"w": weights(1, 4, 3, 1, 1)}, [node("Conv", ["x", "w"], ["t0"])], "t0"
    rng = np.random.default_rng(0)
    for index in range(count):
        held |= {f"w{index}": (rng.standard_normal((4, 4, 1, 1)) / 2).astype("f4")}
        held |= {f"n{index}_{key}": np.full(4, number, "f4") for key, number in [("scale", 1), ("bias", 0)]}
        held |= {f"n{index}_mean": np.full(4, 0.4, "f4"), f"n{index}_var": np.full(4, 0.34, "f4")}
        nodes += [
            node("Conv", [value, f"w{index}"], [f"c{index}"]),
            node("Relu", [f"c{index}"], [f"r{index}"]),
            bn_node(f"r{index}", f"b{index}", f"n{index}"),
            node("Add", [value, f"b{index}"], [f"t{index + 1}"]),
        ]
        value = f"t{index + 1}"
    held["last"] = weights(9, 4, 4, 1, 1)
    nodes += [node("ReduceMean", [value], ["g"], axes=[2, 3]), node("Conv", ["g", "last"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 8, 8])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan).count("folds") >= count // 2
    assert_equivalent(model, folded, 32.0)


def test_what_the_original_rounds_anyway_is_no_cost():
    """A BatchNorm that subtracts a large mean rounds at the size of that mean, before the fold and behind it."""
    held = {**batch_norm("bn", 4, 1), "v": weights(2, 4, 4, 1, 1)}
    held |= {"bn_scale": np.ones(4, "f4"), "bn_bias": np.zeros(4, "f4"), "bn_var": np.ones(4, "f4")}
    held["bn_mean"] = np.full(4, 100.0, "f4")
    nodes = [node("Softsign", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Conv", ["b", "v"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", None)], held))
    assert reasons(plan) == ["folds"]


@pytest.mark.parametrize("moves", [["Flatten"], ["Flatten", "Identity"], ["Identity", "Flatten"]])
def test_what_is_only_moved_keeps_the_errors_that_it_arrives_with(moves):
    """The original rounds what the BatchNorm reads at the size of its mean, wherever the result is moved to."""
    held = {**batch_norm("bn", 3, 1), "w": weights(4, 12, 4), "k": weights(5, 4)}
    held |= {"bn_scale": np.ones(3, "f4"), "bn_bias": np.zeros(3, "f4"), "bn_var": np.ones(3, "f4")}
    held["bn_mean"] = np.full(3, 30.0, "f4")
    nodes = [node("Softsign", ["x"], ["p"]), bn_node("p", "b0", "bn")]
    nodes += [node(op, [f"b{at}"], [f"b{at + 1}"]) for at, op in enumerate(moves)]
    nodes.append(node("Gemm", [f"b{len(moves)}", "w", "k"], ["y"]))
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 2, 2])], [tensor("y", [1, 4])], held))
    assert reasons(plan) == ["folds"]


@pytest.mark.parametrize(("start", "reason"), [(2, "folds"), (1, "conditioning")])
def test_slices_apart_are_rounded_apart(start, reason):
    """What the original makes of a slice excuses the offset of that slice; a slice that overlaps has to undo it."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4 - start, 1, 1)}
    held |= {"s": np.array([0]), "e": np.array([2]), "o": np.array([start]), "z": np.array([4]), "a": np.array([1])}
    held |= {"bn_scale": np.ones(2, "f4"), "bn_bias": np.full(2, 100.0, "f4")}
    held |= {"bn_mean": np.zeros(2, "f4"), "bn_var": np.ones(2, "f4")}
    graph = """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
        c = Conv (x, w)
        p = Slice (c, s, e, a)
        q = Slice (c, o, z, a)
        b = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
        t = Sigmoid (b)
        g = Conv (q, v)
        u = Sigmoid (g)
        y = Mul (t, u)
    }"""
    _, (plan,) = fold_proto(parse(graph, held))
    assert reasons(plan) == [reason]
