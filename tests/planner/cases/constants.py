"""Cases of constants in all their forms: stored, computed, listed as inputs."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from tests.builders import ANY, IMAGE, batch_norm, behind_conv, bn_node, make, node, parse, tensor, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(nodes=1)
def weights_in_constant_nodes():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    nodes = [node("Constant", [], [name], value=numpy_helper.from_array(data)) for name, data in held.items()]
    nodes += [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], {})


@case(nodes=1)
def statistics_as_lists_of_floats():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    nodes = [
        node("Constant", [], [name], value_floats=[float(v) for v in held.pop(name)]) for name in ("bn_mean", "bn_var")
    ]
    nodes += [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def weights_behind_identity_cast_and_reshape():
    held = {"raw": weights(1, 4, 27, dtype="float64"), "shape": np.array([4, 3, 3, 3]), **batch_norm("bn", 4)}
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        cast = Cast <to = 1> (raw)
        shaped = Reshape (cast, shape)
        w = Identity (shaped)
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


@case(nodes=1)
def statistics_from_constant_of_shape():
    held = {"w": weights(1, 4, 3, 3, 3), "four": np.array([4]), **batch_norm("bn", 4)}
    del held["bn_var"]
    value = numpy_helper.from_array(np.array([2.5], np.float32))
    nodes = [
        node("ConstantOfShape", ["four"], ["bn_var"], value=value),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def variance_computed_from_a_constant_deviation():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    held["deviation"] = np.sqrt(held.pop("bn_var"))
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        bn_var = Mul (deviation, deviation)
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


@case(nodes=1)
def bias_that_torch_computes():
    """What torch.onnx.export(optimize=False) writes for a missing bias."""
    held = {"w": weights(1, 4, 3, 3, 3), "one": np.array([1]), "zero": np.float32(0), **batch_norm("bn", 4)}
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        channels = Shape <end = 1, start = 0> (w)
        shape = Expand (channels, one)
        cast = CastLike (zero, x)
        bias = Expand (cast, shape)
        t = Conv (x, w, bias)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


def _listed_as_inputs(ir_version):
    model = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=9, ir_version=ir_version)
    model.graph.input.extend(tensor(t.name, list(t.dims)) for t in model.graph.initializer)
    return model


@case(0, ("overridable",))
def initializers_listed_as_inputs():
    return _listed_as_inputs(4)


@case(1, nodes=1, freeze=True)
def initializers_listed_as_inputs_frozen():
    return _listed_as_inputs(4)


@case(1, nodes=1)
def initializers_listed_as_inputs_in_ir_3():
    return _listed_as_inputs(3)
