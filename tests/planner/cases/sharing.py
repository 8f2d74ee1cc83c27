"""Cases of weights and tensors with several consumers."""

from __future__ import annotations

from onnx import helper

from tests.builders import ANY, IMAGE, batch_norm, bn_node, make, node, parse, tensor, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(2, nodes=2)
def one_weight_in_two_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        bn_node("t", "u", "bn1"),
        node("Conv", ["z", "w"], ["v"], name="conv2"),
        bn_node("v", "y", "bn2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    u = helper.make_tensor_value_info("u", 1, None)
    return make(nodes, [IMAGE, tensor("z", ["N", 3, 8, 8])], [ANY, u], held)


@case(1, nodes=2)
def weight_shared_with_a_convolution_without_batch_norm():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w, c)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        z = Conv (x, w, c)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(2, 4), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(2, nodes=2)
def one_batch_norms_statistics_for_two_layers():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        s = Conv (u, v)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "v": weights(2, 4, 4, 1, 1), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(1, nodes=1)
def new_names_avoid_those_in_use():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    held |= {"w_bnfold": weights(2, 1), "t_bias_bnfold": weights(3, 1)}
    return parse(graph, held)


@case(nodes=3)
def a_fork_whose_consumers_all_absorb():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w)
        b = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        y = Conv <pads = [1, 1, 1, 1]> (b, w2)
        z = Conv (t, w3)
    }"""
    held = {
        "w": weights(1, 4, 3, 3, 3),
        "w2": weights(2, 2, 4, 3, 3),
        "w3": weights(3, 2, 4, 3, 3),
        **batch_norm("bn", 4),
    }
    return parse(graph, held)


@case(2, nodes=3)
def two_batch_norms_of_one_input():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w)
        b1 = BatchNormalization (t, bn1_scale, bn1_bias, bn1_mean, bn1_var)
        b2 = BatchNormalization (t, bn2_scale, bn2_bias, bn2_mean, bn2_var)
        y = Conv (b1, w2)
        z = Conv (b2, w3)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 2, 4, 3, 3), "w3": weights(3, 2, 4, 3, 3)}
    held |= {**batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return parse(graph, held)
