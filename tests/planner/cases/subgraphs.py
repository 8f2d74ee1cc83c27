"""Cases of If, Loop and model-local functions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.builders import ANY, IMAGE, SAMPLES, batch_norm, bn_node, make, node, tensor, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(2)
def if_branches():
    return SAMPLES["if_branches"]()


@case(1, nodes=1)
def function_call():
    return SAMPLES["function"]()


@case(1)
def loop_body_with_weights_outside():
    body = helper.make_graph(
        [
            node("Conv", ["state", "w"], ["t"], name="conv", pads=[1, 1, 1, 1]),
            bn_node("t", "next", "bn"),
            node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("state", [1, 3, 8, 8])],
        [tensor("go_on", [], TensorProto.BOOL), tensor("next", [1, 3, 8, 8])],
    )
    nodes = [node("Loop", ["trips", "", "x"], ["y"], name="loop", body=body)]
    held = {"w": weights(1, 3, 3, 3, 3), "trips": np.array(2), **batch_norm("bn", 3)}
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held)


@case(0, ("control-flow",))
def conv_output_used_by_a_subgraph():
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_y", 1, None)
        return helper.make_graph([node(op, ["t"], [f"{name}_y"])], name, [], [out])

    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
        node(
            "If", ["flag"], ["z"], name="choice", then_branch=branch("then", "Abs"), else_branch=branch("else", "Neg")
        ),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    outputs = [ANY, helper.make_tensor_value_info("z", 1, None)]
    return make(nodes, [IMAGE, tensor("flag", [], TensorProto.BOOL)], outputs, held)


@case(1, nodes=2)
def batch_norm_output_used_by_a_subgraph():
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_y", 1, None)
        return helper.make_graph([node(op, ["b"], [f"{name}_y"])], name, [], [out])

    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "b", "bn"),
        node(
            "If", ["flag"], ["y"], name="choice", then_branch=branch("then", "Abs"), else_branch=branch("else", "Neg")
        ),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE, tensor("flag", [], TensorProto.BOOL)], [ANY], held)
