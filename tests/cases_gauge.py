"""Cases of the gauge planner: maps that travel. Each rule has one where it folds and one where it must not."""

from __future__ import annotations

import numpy as np
from build import ANY, IMAGE, batch_norm, bn_node, make, node, tensor, weights
from cases import case
from onnx import TensorProto, helper


def positive(prefix, channels, seed=7):
    """A BatchNorm all of whose scales are positive."""
    bn = batch_norm(prefix, channels, seed)
    bn[f"{prefix}_scale"] = np.abs(bn[f"{prefix}_scale"])
    return bn


def unshifted(prefix, channels, seed=7):
    """A BatchNorm with positive scales and no shift: bias = mean * gain."""
    bn = positive(prefix, channels, seed)
    bn[f"{prefix}_bias"][:] = 0
    bn[f"{prefix}_mean"][:] = 0
    return bn


def output(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def between(*nodes, bn=None, held=None, x=None, w=None, group=1, opset=17, last="t2"):
    """Conv → the given nodes (from ``t`` to ``t2``) → BatchNormalization."""
    conv = node("Conv", ["x", "w"], ["t"], name="conv", group=group)
    tensors = {
        "w": weights(1, 4, 3, 3, 3) if w is None else w,
        **(batch_norm("bn", 4) if bn is None else bn),
        **(held or {}),
    }
    return make([conv, *nodes, bn_node(last, "y", "bn")], [x or IMAGE], [ANY], tensors, opset=opset)


def ahead(*nodes, bn=None, held=None, x=None, opset=17, channels=3):
    """BatchNormalization of the input → the given nodes (from ``b`` to ``y``)."""
    tensors = {**(batch_norm("bn", channels) if bn is None else bn), **(held or {})}
    return make([bn_node("x", "b", "bn"), *nodes], [x or IMAGE], [ANY], tensors, opset=opset)


# --- into what follows


@case(nodes=1)
def before_an_unpadded_conv():
    return ahead(node("Conv", ["b", "w"], ["y"], name="conv"), held={"w": weights(1, 4, 3, 3, 3)})


@case(nodes=1)
def before_a_grouped_conv_with_bias():
    held = {"w": weights(1, 6, 2, 3, 3), "c": weights(2, 6)}
    conv = node("Conv", ["b", "w", "c"], ["y"], name="conv", group=2, strides=[2, 2])
    return ahead(conv, held=held, channels=4, x=tensor("x", ["N", 4, 9, 9]))


@case(nodes=1)
def before_a_padded_conv_without_shift():
    conv = node("Conv", ["b", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    return ahead(conv, held={"w": weights(1, 4, 3, 3, 3)}, bn=unshifted("bn", 3))


@case(0, ("padding",))
def before_a_padded_conv():
    return ahead(node("Conv", ["b", "w"], ["y"], name="conv", pads=[1, 1, 1, 1]), held={"w": weights(1, 4, 3, 3, 3)})


@case(0, ("padding",))
def before_a_conv_that_pads_by_itself():
    return ahead(
        node("Conv", ["b", "w"], ["y"], name="conv", auto_pad="SAME_LOWER"), held={"w": weights(1, 4, 3, 3, 3)}
    )


@case(nodes=1)
def before_a_conv_whose_auto_pad_comes_to_nothing():
    conv = node("Conv", ["b", "w"], ["y"], name="conv", auto_pad="SAME_UPPER", strides=[2, 2])
    return ahead(conv, held={"w": weights(1, 4, 3, 2, 2)})


@case(0, ("padding",))
def before_a_conv_transpose():
    return ahead(node("ConvTranspose", ["b", "w"], ["y"], name="up"), held={"w": weights(1, 3, 4, 2, 2)})


@case(nodes=1)
def before_a_conv_transpose_without_shift():
    up = node("ConvTranspose", ["b", "w"], ["y"], name="up", group=3)
    return ahead(up, held={"w": weights(1, 3, 2, 2, 2)}, bn=unshifted("bn", 3))


@case(nodes=1)
def before_a_gemm():
    held = {"w": weights(1, 5, 6), "c": weights(2, 5)}
    gemm = node("Gemm", ["b", "w", "c"], ["y"], name="dense", transB=1, alpha=0.5, beta=2.0)
    return ahead(gemm, held=held, channels=6, x=tensor("x", ["N", 6]))


@case(0, ("channel-axis",))
def before_a_gemm_that_transposes():
    gemm = node("Gemm", ["b", "w"], ["y"], name="dense", transA=1)
    return ahead(gemm, held={"w": weights(1, 3, 5)}, channels=6, x=tensor("x", [3, 6]))


@case(nodes=2)
def before_matmul_and_add():
    nodes = [node("MatMul", ["b", "w"], ["m"], name="dense"), node("Add", ["m", "c"], ["y"], name="bias")]
    return ahead(*nodes, held={"w": weights(1, 6, 5), "c": weights(2, 5)}, channels=6, x=tensor("x", ["N", 6]))


@case(nodes=2)
def before_matmul_alone_becomes_an_add():
    return ahead(
        node("MatMul", ["b", "w"], ["y"], name="dense"),
        held={"w": weights(1, 6, 5)},
        channels=6,
        x=tensor("x", ["N", 6]),
    )


@case(nodes=1)
def gemm_mul_add():
    nodes = [
        node("Gemm", ["x", "w", "c"], ["g"], name="dense"),
        node("Mul", ["g", "m"], ["p"]),
        node("Add", ["p", "k"], ["y"], name="bn"),
    ]
    held = {"w": weights(1, 6, 5), "c": weights(2, 5), "m": weights(3, 5), "k": weights(4, 1, 5)}
    return make(nodes, [tensor("x", ["N", 6])], [ANY], held)


@case(nodes=4)
def matmul_of_rank_3_between_transposes():
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="dense"),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        bn_node("t", "b", "bn"),
        node("Transpose", ["b"], ["y"], perm=[0, 2, 1]),
    ]
    return make(nodes, [tensor("x", ["N", 7, 6])], [ANY], {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(nodes=2)
def a_dead_channel_goes_to_the_producer():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][1] = 0
    held = {"w2": weights(2, 5, 4, 1, 1)}
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    nodes = [conv, bn_node("t", "b", "bn"), node("Conv", ["b", "w2"], ["y"], name="conv2")]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **bn, **held})


@case(nodes=3)
def dropout_flatten_gemm():
    held = {"w": weights(1, 3 * 64, 5), "c": weights(2, 5)}
    return ahead(
        node("Dropout", ["b"], ["d"]),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "w", "c"], ["y"], name="dense"),
        held=held,
    )


@case(2, nodes=3)
def arcface_head():
    held = {"w": weights(1, 3 * 64, 5), "c": weights(2, 5), **batch_norm("bn2", 5, 9)}
    return ahead(
        node("Dropout", ["b"], ["d"]),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "w", "c"], ["g"], name="dense"),
        bn_node("g", "y", "bn2"),
        held=held,
    )


# --- recurrent


def recurrent(op, checks, with_bias):
    held = {"w": weights(1, 2, checks * 5, 4), "r": weights(2, 2, checks * 5, 5), "perm": np.array([2, 0, 1])}
    inputs = ["s", "w", "r"]
    if with_bias:
        held["c"] = weights(3, 2, 2 * checks * 5)
        inputs.append("c")
    nodes = [
        bn_node("x", "b", "bn"),
        node("Transpose", ["b"], ["s"], perm=[2, 0, 1]),
        node(op, inputs, ["y"], name="rnn", hidden_size=5, direction="bidirectional"),
    ]
    del held["perm"]
    return make(nodes, [tensor("x", [2, 4, 3])], [ANY], {**held, **batch_norm("bn", 4)})


@case(nodes=2)
def before_an_lstm():
    return recurrent("LSTM", 4, True)


@case(nodes=2)
def before_a_gru_without_bias():
    return recurrent("GRU", 3, False)


@case(nodes=2)
def before_an_rnn():
    return recurrent("RNN", 1, True)


@case(0, ("nonlinear",))
def behind_an_lstm():
    held = {"w": weights(1, 1, 20, 4), "r": weights(2, 1, 20, 5), **batch_norm("bn", 1)}
    nodes = [node("LSTM", ["x", "w", "r"], ["h"], name="rnn", hidden_size=5), bn_node("h", "y", "bn")]
    return make(nodes, [tensor("x", [3, 2, 4])], [ANY], held)


# --- normalization


@case(nodes=1)
def behind_an_instance_normalization():
    held = {"s": weights(1, 3), "c": weights(2, 3), **batch_norm("bn", 3)}
    nodes = [node("InstanceNormalization", ["x", "s", "c"], ["t"], name="inst"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], held)


@case(0, ("nonlinear",))
def before_an_instance_normalization():
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    held = {"w": weights(1, 4, 3, 3, 3), "s": weights(1, 4), "c": weights(2, 4)}
    nodes = [
        conv,
        node("Abs", ["t"], ["a"]),
        bn_node("a", "b", "bn"),
        node("InstanceNormalization", ["b", "s", "c"], ["y"]),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **batch_norm("bn", 4)})


# --- sums and forks


@case(nodes=3)
def behind_a_sum_of_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Sum", ["t", "u"], ["s"], name="sum"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(0, ("graph-input",))
def behind_a_sum_with_an_input():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Add", ["t", "z"], ["s"], name="sum"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE, tensor("z", ["N", 4, 6, 6])], [ANY], held)


@case(nodes=3)
def behind_a_difference():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Sub", ["t", "u"], ["s"], name="difference"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def a_value_added_to_itself():
    return between(node("Add", ["t", "t"], ["t2"]))


@case(nodes=2)
def negated():
    return between(node("Neg", ["t"], ["t2"]))


@case(nodes=3)
def a_fork_whose_readers_all_absorb():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "b", "bn"),
        node("Conv", ["b", "w2"], ["y"], name="conv2", pads=[1, 1, 1, 1]),
        node("Conv", ["t", "w3"], ["z"], name="conv3"),
    ]
    held = {
        "w": weights(1, 4, 3, 3, 3),
        "w2": weights(2, 2, 4, 3, 3),
        "w3": weights(3, 2, 4, 3, 3),
        **batch_norm("bn", 4),
    }
    return make(nodes, [IMAGE], [ANY, output("z")], held)


@case(2, nodes=3)
def two_batch_norms_of_one_input():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "b1", "bn1"),
        bn_node("t", "b2", "bn2"),
        node("Conv", ["b1", "w2"], ["y"], name="conv2"),
        node("Conv", ["b2", "w3"], ["z"], name="conv3"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 2, 4, 3, 3), "w3": weights(3, 2, 4, 3, 3)}
    held |= {**batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return make(nodes, [IMAGE], [ANY, output("z")], held)


@case(4, nodes=10)
def pre_activation_residual_blocks():
    """ResNet v2: BatchNorm, ReLU, padded convolution, twice, around a sum; a BatchNorm and ReLU at the end."""
    nodes, held = [node("Conv", ["x", "w0"], ["s0"], name="stem", pads=[1, 1, 1, 1])], {"w0": weights(1, 4, 3, 3, 3)}
    for block in (1, 2):
        s, t = f"s{block - 1}", f"s{block}"
        nodes += [
            bn_node(s, f"b{block}", f"bn{block}"),
            node("Relu", [f"b{block}"], [f"r{block}"]),
            node("Conv", [f"r{block}", f"w{block}"], [f"c{block}"], name=f"conv{block}", pads=[1, 1, 1, 1]),
            *([bn_node("c2", "n2", "bn9")] if block == 2 else []),
            node("Add", [s, "n2" if block == 2 else f"c{block}"], [t], name=f"sum{block}"),
        ]
        held |= {f"w{block}": weights(10 + block, 4, 4, 3, 3), **positive(f"bn{block}", 4, block)}
    nodes += [bn_node("s2", "b3", "bn3"), node("Relu", ["b3"], ["r3"]), node("GlobalAveragePool", ["r3"], ["p"])]
    nodes += [node("Conv", ["p", "w3"], ["y"], name="head")]
    held |= {"w3": weights(13, 5, 4, 1, 1), **positive("bn3", 4, 3), **batch_norm("bn9", 4, 9)}
    return make(nodes, [IMAGE], [ANY], held)


@case(6, nodes=9)
def arcface_residual_blocks():
    """IResNet: BatchNorm, padded convolution, BatchNorm, PReLU, padded convolution, BatchNorm, around a sum."""
    nodes, held = [node("Conv", ["x", "w0"], ["s0"], name="stem", pads=[1, 1, 1, 1])], {"w0": weights(1, 4, 3, 3, 3)}
    for k in (1, 2):
        nodes += [
            bn_node(f"s{k - 1}", f"a{k}", f"bn{k}a"),
            node("Conv", [f"a{k}", f"w{k}a"], [f"c{k}"], name=f"conv{k}a", pads=[1, 1, 1, 1]),
            bn_node(f"c{k}", f"b{k}", f"bn{k}b"),
            node("PRelu", [f"b{k}", f"slope{k}"], [f"p{k}"]),
            node("Conv", [f"p{k}", f"w{k}b"], [f"d{k}"], name=f"conv{k}b", pads=[1, 1, 1, 1]),
            bn_node(f"d{k}", f"e{k}", f"bn{k}c"),
            node("Add", [f"s{k - 1}", f"e{k}"], [f"s{k}"], name=f"sum{k}"),
        ]
        held |= {f"w{k}{part}": weights(20 * k + i, 4, 4, 3, 3) for i, part in enumerate("ab")}
        held |= {f"slope{k}": np.abs(weights(30 + k, 4, 1, 1)) + np.float32(0.1)}
        for i, part in enumerate("abc"):
            held |= batch_norm(f"bn{k}{part}", 4, 40 * k + i)
    return make([*nodes[:-1], node("Add", ["s1", "e2"], ["y"], name="sum2")], [IMAGE], [ANY], held)


# --- layout


@case(nodes=3)
def behind_a_concat_of_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Concat", ["t", "u"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 2, 3, 3, 3), **batch_norm("bn", 6)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def behind_a_concat_with_a_constant():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Concat", ["t", "k"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 1, 2, 6, 6), **batch_norm("bn", 6)}
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held)


@case(nodes=3)
def behind_a_concat_along_the_height():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Concat", ["t", "u"], ["s"], name="concat", axis=2),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(0, ("graph-input",))
def behind_a_concat_with_an_input():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Concat", ["t", "z"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 6)}
    return make(nodes, [IMAGE, tensor("z", ["N", 2, 6, 6])], [ANY], held)


@case(2, nodes=2)
def two_halves_of_a_split():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Split", ["t", "sizes"], ["u", "v"], name="split", axis=1),
        bn_node("u", "y", "bn1"),
        bn_node("v", "z", "bn2"),
    ]
    held = {"w": weights(1, 6, 3, 3, 3), "sizes": np.array([4, 2]), **batch_norm("bn1", 4), **batch_norm("bn2", 2, 3)}
    return make(nodes, [IMAGE], [ANY, output("z")], held)


@case(nodes=3)
def behind_a_slice_of_the_channels():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Slice", ["t", "from", "to", "axis"], ["u"], name="slice"),
        bn_node("u", "y", "bn"),
        node("Slice", ["t", "to", "end", "axis"], ["z"], name="rest"),
    ]
    held = {"w": weights(1, 6, 3, 3, 3), "from": np.array([0]), "to": np.array([4]), "end": np.array([6])}
    return make(nodes, [IMAGE], [ANY, output("z")], {**held, "axis": np.array([1]), **batch_norm("bn", 4)})


@case(nodes=2)
def behind_a_slice_of_the_image():
    held = {"from": np.array([1, 1]), "to": np.array([4, -1]), "axes": np.array([2, 3]), "steps": np.array([1, 2])}
    return between(node("Slice", ["t", "from", "to", "axes", "steps"], ["t2"]), held=held)


@case(nodes=2)
def behind_a_slice_backwards():
    held = {"from": np.array([-1]), "to": np.array([-(2**31)]), "axes": np.array([1]), "steps": np.array([-1])}
    return between(node("Slice", ["t", "from", "to", "axes", "steps"], ["t2"]), held=held)


@case(nodes=2)
def behind_a_gather_of_channels():
    return between(node("Gather", ["t", "order"], ["t2"], axis=1), held={"order": np.array([2, 0, 3, 1])})


@case(0, ("channel-axis",))
def a_channel_gathered_twice():
    return between(node("Gather", ["t", "order"], ["t2"], axis=1), held={"order": np.array([2, 0, 2, 1])})


@case(0, ("per-activation",))
def transposed():
    bn = batch_norm("bn", 6)
    return between(node("Transpose", ["t"], ["t2"], perm=[0, 2, 1, 3]), bn=bn, w=weights(1, 1, 3, 3, 3))


@case(nodes=3)
def channels_last_in_between():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Transpose", ["t"], ["u"], perm=[0, 2, 3, 1]),
        node("Mul", ["u", "m"], ["v"]),
        node("Add", ["v", "k"], ["s"], name="bn"),
        node("Relu", ["s"], ["y"]),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "m": weights(2, 4), "k": weights(3, 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def squeezed():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Squeeze", ["t", "axes"], ["u"]),
        bn_node("u", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 1, 3), "axes": np.array([2]), **batch_norm("bn", 4)}
    return make(nodes, [tensor("x", ["N", 3, 1, 8])], [ANY], held)


@case(nodes=2)
def unsqueezed():
    nodes = [
        node("Gemm", ["x", "w"], ["t"], name="dense"),
        node("Unsqueeze", ["t", "axes"], ["u"]),
        bn_node("u", "y", "bn"),
    ]
    held = {"w": weights(1, 3, 4), "axes": np.array([2, 3]), **batch_norm("bn", 4)}
    return make(nodes, [tensor("x", ["N", 3])], [ANY], held)


@case(nodes=2)
def flattened_positions():
    held = {"shape": np.array([0, 4, -1])}
    return between(node("Reshape", ["t", "shape"], ["t2"]), held=held)


@case(0, ("per-activation",))
def flattened_into_features():
    bn = batch_norm("bn", 4 * 36)
    return between(node("Flatten", ["t"], ["t2"]), bn=bn)


@case(nodes=2)
def per_feature_behind_gemm_and_reshape():
    nodes = [
        node("Gemm", ["x", "w"], ["t"], name="dense"),
        node("Reshape", ["t", "shape"], ["u"]),
        node("Mul", ["u", "m"], ["y"], name="bn"),
    ]
    held = {"w": weights(1, 3, 8), "shape": np.array([-1, 2, 4]), "m": weights(2, 2, 4)}
    return make(nodes, [tensor("x", ["N", 3])], [ANY], held)


@case(0, ("channel-axis",))
def matmul_reshape_batch_norm_on_another_axis():
    """onnxruntime folds this, wrongly: N and the number of channels merely agree."""
    nodes = [
        node("MatMul", ["x", "w"], ["t"], name="dense"),
        node("Reshape", ["t", "shape"], ["u"]),
        bn_node("u", "y", "bn"),
    ]
    held = {"w": weights(1, 6, 4), "shape": np.array([2, 4, 4]), **batch_norm("bn", 4)}
    return make(nodes, [tensor("x", [2, 4, 6])], [ANY], held)


@case(nodes=4)
def channel_shuffle():
    held = {"apart": np.array([0, 2, 2, 6, 6]), "together": np.array([0, 4, 6, 6])}
    return between(
        node("Reshape", ["t", "apart"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["b", "together"], ["t2"]),
        held=held,
    )


@case(nodes=8)
def channel_shuffle_by_computed_shapes():
    """As torch's TorchScript exporter writes it: the batch from Shape and Gather, a dimension left to inference."""
    held = {"first": np.array([0]), "rest": np.array([2, -1, 6, 6]), "back": np.array([4, 6, 6])}
    return between(
        node("Shape", ["t"], ["s"]),
        node("Gather", ["s", "first"], ["n"], axis=0),
        node("Concat", ["n", "rest"], ["apart"], axis=0),
        node("Concat", ["n", "back"], ["together"], axis=0),
        node("Reshape", ["t", "apart"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["b", "together"], ["t2"]),
        held=held,
    )


@case(nodes=5)
def readers_of_the_size_alone():
    model = between(
        node("Size", ["t"], ["n"]),
        node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        node("Identity", ["t"], ["t2"]),
        node("CastLike", ["f", "t"], ["z"]),
    )
    model.graph.output.append(tensor("z", []))
    return model


@case(nodes=2)
def expanded():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Expand", ["t", "shape"], ["u"]),
        bn_node("u", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 8, 8), "shape": np.array([1, 4, 5, 5]), **batch_norm("bn", 4)}
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held)


@case(nodes=2)
def depth_to_space():
    return between(node("DepthToSpace", ["t"], ["t2"], blocksize=2), bn=batch_norm("bn", 2), w=weights(1, 8, 3, 3, 3))


@case(nodes=2)
def depth_to_space_crd():
    shuffle = node("DepthToSpace", ["t"], ["t2"], blocksize=2, mode="CRD")
    return between(shuffle, bn=batch_norm("bn", 2), w=weights(1, 8, 3, 3, 3))


@case(nodes=2)
def space_to_depth_with_equal_maps():
    bn = {name: np.tile(data, 4) for name, data in batch_norm("bn", 4).items()}
    return between(node("SpaceToDepth", ["t"], ["t2"], blocksize=2), bn=bn)


@case(0, ("channel-axis",))
def space_to_depth():
    return between(node("SpaceToDepth", ["t"], ["t2"], blocksize=2), bn=batch_norm("bn", 16))


# --- pools and borders


@case(nodes=2)
def behind_an_average_pool():
    return between(node("AveragePool", ["t"], ["t2"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1))


@case(0, ("padding",))
def behind_an_average_pool_that_counts_its_padding():
    pool = node("AveragePool", ["t"], ["t2"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    return between(pool)


@case(nodes=2)
def behind_a_global_average_pool():
    return between(node("GlobalAveragePool", ["t"], ["t2"]))


@case(nodes=2)
def behind_a_mean_over_space():
    return between(node("ReduceMean", ["t"], ["t2"], axes=[2, 3], keepdims=0))


@case(nodes=2)
def behind_a_sum_over_space():
    return between(node("ReduceSum", ["t", "axes"], ["t2"], keepdims=1), held={"axes": np.array([2, 3])})


@case(nodes=2)
def behind_a_mean_over_channels():
    return between(node("ReduceMean", ["t"], ["t2"], axes=[1]), bn=batch_norm("bn", 1))


@case(nodes=2)
def behind_a_max_pool():
    return between(node("MaxPool", ["t"], ["t2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), bn=positive("bn", 4))


@case(0, ("nonlinear",))
def behind_a_max_pool_with_a_negative_gain():
    bn = positive("bn", 4)
    bn["bn_scale"][2] *= -1
    return between(node("MaxPool", ["t"], ["t2"], kernel_shape=[3, 3]), bn=bn)


@case(nodes=2)
def behind_a_global_max_pool():
    return between(node("GlobalMaxPool", ["t"], ["t2"]), bn=positive("bn", 4))


@case(nodes=2)
def behind_a_maximum():
    return between(node("ReduceMax", ["t"], ["t2"], axes=[2, 3], keepdims=0), bn=positive("bn", 4))


@case(nodes=2)
def behind_a_minimum():
    return between(node("ReduceMin", ["t"], ["t2"], axes=[2, 3]), bn=positive("bn", 4))


@case(nodes=2)
def behind_a_resize():
    resize = node("Resize", ["t", "", "scales"], ["t2"], mode="cubic")
    return between(resize, held={"scales": np.array([1, 1, 2, 1.5], np.float32)})


@case(nodes=2)
def behind_an_upsample():
    up = node("Upsample", ["t", "scales"], ["t2"], mode="nearest")
    return between(up, held={"scales": np.array([1, 1, 2, 2], np.float32)}, opset=9)


@case(nodes=2)
def behind_a_pad_that_reflects():
    return between(
        node("Pad", ["t", "pads"], ["t2"], mode="reflect"), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    )


@case(0, ("padding",))
def behind_a_pad_with_zeros():
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])})


@case(nodes=2)
def behind_a_pad_with_zeros_without_shift():
    bn = unshifted("bn", 4)
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


@case(nodes=2)
def behind_a_pad_one_map_for_all_channels():
    bn = {name: np.full(4, data[0]) for name, data in positive("bn", 4).items()}
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


# --- activations


@case(nodes=2)
def behind_a_relu_without_shift():
    return between(node("Relu", ["t"], ["t2"]), bn=unshifted("bn", 4))


@case(nodes=2)
def behind_a_leaky_relu_without_shift():
    return between(node("LeakyRelu", ["t"], ["t2"], alpha=0.2), bn=unshifted("bn", 4))


@case(nodes=3)
def relu_batch_norm_conv():
    conv = node("Conv", ["b", "w2"], ["y"], name="conv2")
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), node("Relu", ["t"], ["r"]), bn_node("r", "b", "bn"), conv]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 5, 4, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def behind_a_prelu_with_mixed_signs():
    bn = unshifted("bn", 4)
    bn["bn_scale"] *= np.array([1, -1, 1, -1], np.float32)
    slope = np.abs(weights(3, 4, 1, 1)) + np.float32(0.1)
    return between(node("PRelu", ["t", "slope"], ["t2"]), bn=bn, held={"slope": slope})


@case(0, ("nonlinear",))
def behind_a_prelu_with_a_negative_slope():
    bn = unshifted("bn", 4)
    bn["bn_scale"] *= np.array([1, -1, 1, -1], np.float32)
    return between(node("PRelu", ["t", "slope"], ["t2"]), bn=bn, held={"slope": np.full((4, 1, 1), -0.5, np.float32)})


def _uniform(gain, shift):
    """Every channel with one gain and shift: variance 1 - epsilon, mean 0."""
    ones = np.ones(4, np.float32)
    return {"bn_scale": ones * gain, "bn_bias": ones * shift, "bn_mean": ones * 0, "bn_var": ones}


@case(nodes=2)
def behind_a_clip_one_map_for_all():
    held = {"low": np.float32(-0.2), "high": np.float32(0.3)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=_uniform(1.5, 0.2), held=held)


@case(nodes=2)
def behind_a_clip_turned_over():
    held = {"low": np.float32(-0.2), "high": np.float32(0.3)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=_uniform(-1.5, 0.2), held=held)


@case(nodes=2)
def behind_a_clip_with_attributes():
    return between(node("Clip", ["t"], ["t2"], min=-0.2, max=0.3), bn=_uniform(1.5, 0.2), opset=9)


@case(0, ("nonlinear",))
def behind_a_clip():
    held = {"low": np.float32(0), "high": np.float32(6)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=unshifted("bn", 4), held=held)


@case(nodes=2)
def behind_a_clip_that_is_a_relu():
    return between(node("Clip", ["t", "low"], ["t2"]), bn=unshifted("bn", 4), held={"low": np.float32(0)})


@case(0, ("nonlinear",))
def behind_a_sigmoid():
    return between(node("Sigmoid", ["t"], ["t2"]))


@case(0, ("unsupported-dtype",))
def behind_a_cast():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Cast", ["t"], ["d"], to=TensorProto.DOUBLE),
        bn_node("d", "y", "bn"),
    ]
    bn = {name: data.astype("float64") for name, data in batch_norm("bn", 4).items()}
    outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)]
    return make(nodes, [IMAGE], outputs, {"w": weights(1, 4, 3, 3, 3), **bn})


# --- integers


def quantized(bn, low=-127, scale=None, **attributes):
    rng = np.random.default_rng(1)
    held = {"q": rng.integers(low, 127, (4, 3, 3, 3)).astype("int8")}
    held["q"][0, 0, 0, 0] = low
    held["s"] = rng.uniform(0.01, 0.1, 4).astype("float32") if scale is None else scale
    held["z"] = np.zeros(held["s"].shape, np.int8)
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dq", **attributes),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **bn})


@case(nodes=2)
def integer_weights_with_one_scale_for_all():
    return quantized(positive("bn", 4), scale=np.float32(0.05))


@case(nodes=2)
def integer_weights_turned_over():
    return quantized(batch_norm("bn", 4), axis=0)


@case(0, ("overflow",))
def integer_weights_that_can_not_be_turned_over():
    bn = positive("bn", 4)
    bn["bn_scale"][0] *= -1
    return quantized(bn, low=-128, axis=0)


@case(0, ("quantized-activation",))
def behind_quantized_activations():
    held = {"s": np.float32(0.05), "z": np.int8(0)}
    return between(
        node("QuantizeLinear", ["t", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["t2"]), held=held
    )


# --- on request


def _before_relu_and_conv(bn, **conv):
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Relu", ["b"], ["r"]),
        node("Conv", ["r", "w"], ["y"], name="conv", **conv),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **bn})


@case(nodes=3, threshold=True)
def threshold_before_an_unpadded_conv():
    return _before_relu_and_conv(positive("bn", 3))


@case(0, ("nonlinear",))
def no_threshold_unless_asked_for():
    return _before_relu_and_conv(positive("bn", 3))


@case(0, ("nonlinear",), threshold=True)
def no_threshold_with_a_negative_gain():
    return _before_relu_and_conv(batch_norm("bn", 3, 5))


@case(0, ("nonlinear",), threshold=True)
def no_threshold_before_a_padded_conv():
    return _before_relu_and_conv(positive("bn", 3), pads=[1, 1, 1, 1])


@case(2, nodes=3, threshold=True)
def threshold_under_a_scale():
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Relu", ["b"], ["r"]),
        node("Mul", ["r", "k"], ["m"], name="scale"),
        node("Conv", ["m", "w"], ["y"], name="conv"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "k": np.abs(weights(2, 3, 1, 1)), **positive("bn", 3)}
    return make(nodes, [IMAGE], [ANY], held)


@case(1, ("skipped",), scales=False)
def scale_chains_left_alone():
    return between(node("Mul", ["t", "k"], ["t2"]), held={"k": weights(2, 4, 1, 1)})
