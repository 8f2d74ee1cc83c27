"""Folding a folded model changes nothing more: of random networks, with dead ends, with every option."""

import random

import onnx
import pytest
from onnx import helper

from bnfold.api import FoldOptions, fold
from tests.builders import batch_norm, parse, weights
from tests.folding import assert_equivalent
from tests.fuzz import kinds

FEW = list(kinds.keys_of())[5::38]

OPTIONS = [{}, {"scales": False}, {"threshold": True, "merge": True}]


def with_dead_ends(model, rng):
    """Add nodes that no output depends on: operators, chains of factors and terms, BatchNorms."""
    made = [name for node in model.graph.node for name in node.output if name and node.op_type != "Constant"]
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    for k in range(3):
        read, kind = rng.choice(made), rng.randrange(3)
        if kind == 0:
            model.graph.node.append(helper.make_node("Relu", [read], [f"dead{k}"]))
        elif kind == 1 or not norms:
            model.graph.initializer.append(helper.make_tensor(f"k{k}", 1, [], [1.5]))
            chain = ("Mul", [read, f"k{k}"], [f"chain{k}"]), ("Add", [f"chain{k}", f"k{k}"], [f"dead{k}"])
            model.graph.node.extend(helper.make_node(*step) for step in chain)
        else:
            norm = onnx.NodeProto.FromString(rng.choice(norms).SerializeToString())
            norm.name, norm.output[0] = f"dead{k}", f"dead{k}"
            model.graph.node.append(norm)
    return model


def assert_stable(model, **options):
    """Fold twice; what the first fold kept for the sizes of activations may fold when fewer sizes are known."""
    chosen = FoldOptions(verify=None, **options)
    once = fold(model, options=chosen)
    again = fold(once.model, options=chosen)
    if any(row.reason and row.reason["code"] == "conditioning" for row in once.inspection.rows):
        return once
    assert not [row.name for row in again.inspection.rows if row.status == "folded"]
    assert again.model.graph.SerializeToString() == once.model.graph.SerializeToString()
    return once


@pytest.mark.parametrize("key", FEW, ids=lambda key: "-".join(map(str, key)))
def test_random_networks(key):
    model = kinds.network_of(key, kinds.generator(key))
    model = with_dead_ends(model, random.Random(str(key)))
    assert_stable(model, **OPTIONS[FEW.index(key) % len(OPTIONS)])


def norms(*names):
    return {name: data for prefix in names for name, data in batch_norm(prefix, 4).items()}


def test_a_dead_end_blocks_no_fold():
    """The Sigmoid stays as long as something reads it, and nothing that counts does."""
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        c = Conv (x, w)
        n = BatchNormalization (c, n_scale, n_bias, n_mean, n_var)
        d = Sigmoid (c)
        e = BatchNormalization (d, e_scale, e_bias, e_mean, e_var)
        y = Elu (n)
    }"""
    model = parse(graph, {"w": weights(1, 4, 3, 1, 1), **norms("n", "e")})
    once = assert_stable(model)
    assert all(row.status == "folded" for row in once.inspection.rows)
    assert_equivalent(model, once.model)


def test_a_dead_end_within_a_chain_goes_with_it():
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        c = Conv (x, w)
        m = Mul (c, k)
        d = Sigmoid (m)
        e = BatchNormalization (m, e_scale, e_bias, e_mean, e_var)
        f = Relu (e)
        n = Add (m, k)
        y = Elu (n)
    }"""
    model = parse(graph, {"w": weights(1, 4, 3, 1, 1), "k": weights(2, 4, 1, 1), **norms("e")})
    once = assert_stable(model)
    assert [node.op_type for node in once.model.graph.node] == ["Conv", "Elu"]
    assert_equivalent(model, once.model)


def test_a_dead_end_does_not_go_on_a_chain():
    """The dead Mul reads what the Div makes, which the Conv reads too."""
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        c = Conv (x, w)
        n = BatchNormalization (c, n_scale, n_bias, n_mean, n_var)
        d = Div (n, k)
        e = Mul (d, k)
        y = Conv (d, u)
    }"""
    held = {"w": weights(1, 4, 3, 1, 1), "u": weights(3, 4, 4, 1, 1), "k": weights(2, 4, 1, 1)}
    model = parse(graph, {**held, **norms("n")})
    for options in OPTIONS:
        assert_equivalent(model, assert_stable(model, **options).model)


def test_control_flow_and_foreign_operators_are_no_dead_ends():
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        c = Conv (x, w)
        n = BatchNormalization (c, n_scale, n_bias, n_mean, n_var)
        y = Elu (n)
    }"""
    model = parse(graph, {"w": weights(1, 4, 3, 1, 1), **norms("n")})
    model.opset_import.append(helper.make_opsetid("watching", 1))
    model.graph.node.append(helper.make_node("Print", ["c"], ["d"], domain="watching"))
    once = assert_stable(model)
    assert [row.reason["code"] for row in once.inspection.rows] == ["consumers"]


@pytest.mark.parametrize("behind", ["y = MatMul (m, u)", "y = Elu (m)"])
def test_a_chain_that_becomes_a_batch_norm_is_folded_at_once(behind):
    """Without --only-batchnorm's scales: what a BatchNorm left beside a factor would be read as one, written out."""
    graph = f"""(float[N, 4] x) => (float[] y) {{
        a = MatMul (x, w)
        f = Mul (a, k)
        m = BatchNormalization (f, n_scale, n_bias, n_mean, n_var)
        {behind}
    }}"""
    held = {"w": weights(1, 4, 4), "u": weights(3, 4, 4), "k": weights(2)}
    model = parse(graph, {**held, **norms("n")})
    assert_equivalent(model, assert_stable(model, scales=False).model)


def test_the_factor_and_term_behind_a_batch_norm_that_goes():
    """As Caffe writes it; read again without the BatchNorm, they would be one written out."""
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        c = Conv (x, w)
        n = BatchNormalization (c, n_scale, n_bias, n_mean, n_var)
        f = Mul (n, k)
        t = Add (f, k)
        y = Elu (t)
    }"""
    model = parse(graph, {"w": weights(1, 4, 3, 1, 1), "k": weights(2, 4, 1, 1), **norms("n")})
    assert_equivalent(model, assert_stable(model, scales=False).model)
