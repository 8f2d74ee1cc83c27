"""Cases of weights and tensors with several consumers."""

from __future__ import annotations

from onnx import helper

from tests.builders import (
    ANY,
    IMAGE,
    batch_norm,
    bn_node,
    make,
    node,
    output,
    tensor,
    weights,
)
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
    nodes = [
        node("Conv", ["x", "w", "c"], ["t"], name="conv1"),
        bn_node("t", "y", "bn"),
        node("Conv", ["x", "w", "c"], ["z"], name="conv2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(2, 4), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY, helper.make_tensor_value_info("z", 1, None)], held)


@case(2, nodes=2)
def one_batch_norms_statistics_for_two_layers():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        bn_node("t", "u", "bn"),
        node("Conv", ["u", "v"], ["s"], name="conv2"),
        bn_node("s", "y", "bn", name="bn_again"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "v": weights(2, 4, 4, 1, 1), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(1, nodes=1)
def new_names_avoid_those_in_use():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    held |= {"w_bnfold": weights(2, 1), "t_bias_bnfold": weights(3, 1)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=3)
def a_fork_whose_consumers_all_absorb():
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
