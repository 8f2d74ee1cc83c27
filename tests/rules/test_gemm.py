"""Gemm: alpha, beta, C of any shape, transposed inputs."""

import pytest

from tests.builders import batch_norm, bn_node, exact_batch_norm, make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto, fold_reasons
from tests.rules.cases.gemm import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestGemm(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gemm_that_transposes_its_input_absorbs_nothing_from_it(transposed, bias):
    """The channels of the input are the rows of its transpose: as many, by chance, but others."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 2), "k": weights(2, 2)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Gemm", ["b", "w", *(["k"] if bias else [])], ["y"], transA=int(transposed)),
    ]
    model = make(nodes, [tensor("x", [3, 3])], [tensor("y", [3, 2])], held)
    found, folded = fold_reasons(model)
    assert found == ["channel-axis" if transposed else "folds"]
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_gemm_keeps_alpha_beta_and_c_for_a_scale_alone(rows):
    """A scale in front goes into the matrix alone."""
    held, norm = exact_batch_norm(2.0, 0.0)
    held |= {"w": weights(1, 4, 3), "k": weights(2, rows, 3)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        norm,
        node("Gemm", ["b", "w", "k"], ["d"], beta=0.5, alpha=1.5),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 3])], held)
    folded, _ = fold_proto(model)
    gemm = next(n for n in folded.graph.node if n.op_type == "Gemm")
    assert gemm.input[2] == "k"
    assert {a.name: round(a.f, 6) for a in gemm.attribute} == {"alpha": 1.5, "beta": 0.5}
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("gain", [2.0, 0.5, -1.0])
def test_a_scale_behind_a_gemm_scales_its_c(gain):
    held, norm = exact_batch_norm(gain, 0.0)
    held |= {"w": weights(1, 3, 4), "k": weights(2, 2, 4)}
    nodes = [node("Gemm", ["x", "w", "k"], ["s"], beta=0.5, alpha=1.5), norm, node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3])], [tensor("y", [2, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    assert_equivalent(model, folded, 512.0)
