"""Convolutions, products and normalisations: what holds weights."""

from __future__ import annotations

import numpy as np

from bnfold.frontends.torch.aten.call import Call, OnnxView, Operand, Translation


def _conv(call: Call) -> OnnxView | None:
    rank = call.rank("weight")
    if rank is None or call.rank("input") != rank:
        return None
    axes = rank - 2
    strides, dilations = call.integers("stride", axes), call.integers("dilation", axes)
    transposed = bool(call["transposed"]) or "transpose" in str(call.node.target)
    pads = _conv_pads(call, axes, dilations)
    if strides is None or dilations is None or pads is None or type(call["groups"]) is not int:
        return None
    attrs = {"strides": strides, "dilations": dilations, "pads": pads, "group": call["groups"]}
    if transposed:
        extra = call.integers("output_padding", axes)
        if extra is None:
            return None
        attrs["output_padding"] = extra
    inputs = [Operand("input"), Operand("weight"), Operand("bias")]
    return OnnxView("ConvTranspose" if transposed else "Conv", inputs, attrs)


def _conv_pads(call: Call, axes: int, dilations: list[int] | None) -> list[int] | None:
    """Begins and ends; ``same`` puts the odd one at the end, as ONNX's SAME_UPPER does."""
    if call["padding"] == "valid":
        return [0] * 2 * axes
    if call["padding"] == "same":
        shape = call.shape("weight")
        assert shape is not None
        totals = [d * (int(k) - 1) for d, k in zip(dilations or [], shape[2:], strict=False)]
        return [t // 2 for t in totals] + [t - t // 2 for t in totals]
    pads = call.integers("padding", axes)
    return None if pads is None else pads * 2


def _linear(call: Call) -> OnnxView | None:
    if call.rank("weight") != 2:
        return None
    return OnnxView("Linear", [Operand("input"), Operand("weight"), Operand("bias")])


def _addmm(call: Call) -> OnnxView | None:
    if not all(type(call[name]) in (int, float) for name in ("alpha", "beta")):
        return None
    attrs = {"alpha": float(call["alpha"]), "beta": float(call["beta"])}
    return OnnxView("Gemm", [Operand("mat1"), Operand("mat2"), Operand("self")], attrs, {"beta": "beta"})


def _product(first: str, second: str) -> Translation:
    """A product of the two arguments of these names."""

    def view(call: Call) -> OnnxView | None:
        return OnnxView("MatMul", [Operand(first), Operand(second)])

    return view


def _einsum(call: Call) -> OnnxView | None:
    """Two operands, each axis with a letter."""
    tensors, equation = call["tensors"], call["equation"]
    if not isinstance(tensors, list | tuple) or len(tensors) != 2 or call["path"] is not None:
        return None
    return OnnxView("Einsum", [Operand("tensors", index) for index in (0, 1)], {"equation": equation})


def _attention(call: Call) -> OnnxView | None:
    """Attention of heads, where nothing is dropped."""
    if call["dropout_p"] or call["enable_gqa"] or any(call.rank(name) != 4 for name in ("query", "key", "value")):
        return None
    inputs = [Operand("query"), Operand("key"), Operand("value"), Operand("attn_mask")]
    return OnnxView("Attention", inputs, {"is_causal": int(call["is_causal"])})


def _recurrent(kind: str) -> Translation:
    """Layers of LSTM, GRU or RNN of a whole tensor: the first one reads it, by a weight (and a bias) per direction."""

    def view(call: Call) -> OnnxView | None:
        biased, params = bool(call["has_biases"]), call["params"]
        directions = 2 if call["bidirectional"] else 1
        each = len(params) // (directions * call["num_layers"]) if call["num_layers"] else 0
        if (call["train"] and call["dropout"]) or each != (4 if biased else 2):
            return None  # with projections a direction has one more
        first = [Operand("params", direction * each) for direction in range(directions)]
        biases = [Operand("params", direction * each + 2) for direction in range(directions)] if biased else []
        read = {operand.index for operand in (*first, *biases)}
        others = [Operand("params", index) for index in range(len(params)) if index not in read]
        states = call["hx"] if isinstance(call["hx"], list | tuple) else None
        others += [Operand("hx")] if states is None else [Operand("hx", index) for index in range(len(states))]
        attrs = {"kind": kind, "directions": directions, "biased": int(biased)}
        return OnnxView("Recurrent", [Operand("input"), *first, *biases, *others], attrs)

    return view


def _layer_norm(op: str, *names: str) -> Translation:
    """Normalizations over the last axes; ``names`` are those of scale and bias. An absent scale is one of ones."""

    def view(call: Call) -> OnnxView | None:
        rank, axes = call.rank("input"), call["normalized_shape"]
        if rank is None or not all(type(n) is int for n in axes):
            return None
        scale = Operand(names[0], default=lambda: np.ones(axes, np.float32))
        inputs = [Operand("input"), scale, *map(Operand, names[1:])]
        return OnnxView(op, inputs, {"axis": rank - len(axes), "epsilon": call["eps"]})

    return view


def _group_norm(call: Call) -> OnnxView | None:
    shape = call.shape("input")
    if shape is None or len(shape) < 2 or type(shape[1]) is not int:
        return None
    groups = call["num_groups"] if "num_groups" in call.arguments else call["group"]
    inputs = [Operand("input"), *_per_channel(shape[1])]
    return OnnxView("GroupNormalization", inputs, {"num_groups": groups, "epsilon": call["eps"]})


def _per_channel(channels: int) -> list[Operand]:
    """Scale and bias, which are ones and zeros where they are absent."""
    return [
        Operand("weight", default=lambda: np.ones(channels, np.float32)),
        Operand("bias", default=lambda: np.zeros(channels, np.float32)),
    ]


def _batch_norm(call: Call) -> OnnxView | None:
    """``training`` and a BatchNorm without running statistics normalise by the batch."""
    shape = call.shape("input")
    if shape is None or len(shape) < 2 or type(shape[1]) is not int:
        return None
    channels = shape[1]
    kind = str(call.node.target)
    epsilon = call["eps"] if call["eps"] is not None else call["epsilon"]
    if type(epsilon) is not float:
        return None
    trains = call["training"] if "training" in call.arguments else "no_training" not in kind
    trains = bool(trains) or call["running_mean"] is None or call["running_var"] is None
    inputs = [
        Operand("input"),
        *_per_channel(channels),
        Operand("running_mean", default=lambda: np.zeros(channels, np.float32)),
        Operand("running_var", default=lambda: np.ones(channels, np.float32)),
    ]
    return OnnxView("BatchNormalization", inputs, {"epsilon": epsilon, "training_mode": int(trains)})


def _instance_norm(call: Call) -> OnnxView | None:
    """An instance norm of running statistics is none: it is a BatchNorm that nothing may recalibrate as one."""
    shape = call.shape("input")
    if not call["use_input_stats"] or shape is None or len(shape) < 3 or type(shape[1]) is not int:
        return None
    return OnnxView("InstanceNormalization", [Operand("input"), *_per_channel(shape[1])], {"epsilon": call["eps"]})


TABLE: dict[str, Translation] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv1d.padding", "conv2d.padding"), _conv),
    **dict.fromkeys(("conv3d.padding", "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"), _conv),
    "_convolution": _conv,
    "linear": _linear,
    "addmm": _addmm,
    "mm": _product("self", "mat2"),
    "matmul": _product("self", "other"),
    **dict.fromkeys(
        (
            "batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
            "_native_batch_norm_legit.no_stats", "_native_batch_norm_legit_functional", "native_batch_norm",
            "cudnn_batch_norm", "_batch_norm_with_update", "_batch_norm_with_update_functional",
        ),
        _batch_norm,
    ),
    "instance_norm": _instance_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm("LayerNormalization", "weight", "bias")),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), _layer_norm("RMSNormalization", "weight")),
    **dict.fromkeys(("group_norm", "native_group_norm"), _group_norm),
    "bmm": _product("self", "mat2"),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "lstm.input": _recurrent("LSTM"),
    "gru.input": _recurrent("GRU"),
    "rnn_tanh.input": _recurrent("RNN tanh"),
    "rnn_relu.input": _recurrent("RNN relu"),
}  # fmt: skip
