"""What other tools make of a network without changing it, each beside a wrong twin, which must not pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest

from bnfold.options import VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from sample_models.build import node, tensor, weights

Build = Callable[[bool], onnx.ModelProto]
"""Builds the rewritten network, right or wrong."""

REWRITES: dict[str, tuple[onnx.ModelProto, Build]] = {}


def network(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], /, opset: int = 17, **held: object
) -> onnx.ModelProto:
    used = [
        onnx.numpy_helper.from_array(np.asarray(data), name)
        for name, data in held.items()
        if any(name in made.input for made in nodes)
    ]
    graph = onnx.helper.make_graph(nodes, "g", [tensor("x", shape)], [tensor("y", None)], used)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def rewrite(name: str, original: onnx.ModelProto) -> Callable[[Build], Build]:
    def keep(build: Build) -> Build:
        REWRITES[name] = original, build
        return build

    return keep


W, B = weights(1, 8, 6), weights(2, 6)
V, C = weights(3, 6, 8), weights(4, 8)
DENSE = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["a"]), node("Relu", ["a"], ["r"])]
TWICE = [*DENSE, node("MatMul", ["r", "v"], ["n"]), node("Add", ["n", "c"], ["y"])]


@rewrite("MatMul and Add as Reshape, Gemm, Reshape", network(TWICE, [2, 5, 8], w=W, b=B, v=V, c=C))
def as_gemm(wrong: bool) -> onnx.ModelProto:
    """The Relu stays between the two; wrong: rows and columns are put back the wrong way round."""
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]), node("Gemm", ["f", "w", "b"], ["g"]), node("Relu", ["g"], ["r"]),
        node("Gemm", ["r", "v", "c"], ["h"]), node("Reshape", ["h", "back"], ["k"]),
        node("Transpose" if wrong else "Identity", ["k"], ["y"], **({"perm": [1, 0, 2]} if wrong else {})),
    ]  # fmt: skip
    return network(nodes, [2, 5, 8], w=W, b=B, v=V, c=C, flat=[-1, 8], back=[5, 2, 8] if wrong else [2, 5, 8])


@rewrite("a weight behind a view", network(TWICE, [2, 5, 8], w=W, b=B, v=V, c=C))
def weight_behind_view(wrong: bool) -> onnx.ModelProto:
    """The same with one row of the second weight off."""
    other = V.copy()
    other[:, 3] *= np.float32(1.001 if wrong else 1)
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]), node("Gemm", ["f", "w", "b"], ["g"]), node("Relu", ["g"], ["r"]),
        node("Gemm", ["r", "v", "c"], ["h"]), node("Reshape", ["h", "back"], ["y"]),
    ]  # fmt: skip
    return network(nodes, [2, 5, 8], w=W, b=B, v=other, c=C, flat=[-1, 8], back=[2, 5, 8])


SILU = [*DENSE[:2], node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["y"])]


@rewrite("a gate of views", network(SILU, [2, 5, 8], w=W, b=B))
def gate_of_views(wrong: bool) -> onnx.ModelProto:
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]), node("Gemm", ["f", "w", "b"], ["a"]), node("Sigmoid", ["a"], ["s"]),
        node("Mul", ["a", "a" if wrong else "s"], ["z"]), node("Reshape", ["z", "back"], ["y"]),
    ]  # fmt: skip
    return network(nodes, [2, 5, 8], w=W, b=B, flat=[10, 8], back=[2, 5, 6])


@rewrite(
    "Transpose, MatMul and Add as Gemm",
    network(
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("MatMul", ["t", "w"], ["m"]),
            node("Add", ["m", "b"], ["y"]),
        ],
        [8, 5],
        w=W,
        b=B,
    ),
)
def as_transposed_gemm(wrong: bool) -> onnx.ModelProto:
    held = {"w": W * np.float32(1.01 if wrong else 1), "b": B}
    return network([node("Gemm", ["x", "w", "b"], ["y"], transA=1)], [8, 5], **held)


@rewrite(
    "two Transposes as one, or as none",
    network(
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Relu", ["t"], ["r"]),
            node("Transpose", ["r"], ["u"], perm=[1, 0, 2]), node("Transpose", ["u"], ["y"], perm=[1, 2, 0]),
        ],
        [2, 3, 4],
    ),
)  # fmt: skip
def as_one_transpose(wrong: bool) -> onnx.ModelProto:
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Relu", ["t"], ["r"])]
    nodes.append(node("Transpose", ["r"], ["y"], perm=[0, 1, 2] if wrong else [0, 2, 1]))
    return network(nodes, [2, 3, 4])


@rewrite(
    "a Transpose that moves nothing as a Reshape",
    network([node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Erf", ["t"], ["y"])], [2, 1, 4]),
)
def as_reshape(wrong: bool) -> onnx.ModelProto:
    nodes = [node("Reshape", ["x", "s"], ["t"]), node("Erf", ["t"], ["y"])]
    return network(nodes, [2, 1, 4], s=[4, 2, 1] if wrong else [2, 4, 1])


@rewrite(
    "Reshapes to another order",
    network([node("Reshape", ["x", "s"], ["r"]), node("Transpose", ["r"], ["y"], perm=[1, 0])], [2, 3, 4], s=[6, 4]),
)
def reshape_to_other_order(wrong: bool) -> onnx.ModelProto:
    """Wrong: the shape is the one that the Transpose gives, the order is not."""
    if wrong:
        return network([node("Reshape", ["x", "s"], ["y"])], [2, 3, 4], s=[4, 6])
    nodes = [
        node("Reshape", ["x", "s"], ["a"]), node("Reshape", ["a", "t"], ["b"]), node("Reshape", ["b", "s"], ["r"]),
        node("Transpose", ["r"], ["y"], perm=[1, 0]),
    ]  # fmt: skip
    return network(nodes, [2, 3, 4], s=[6, 4], t=[3, 2, 4])


@rewrite(
    "Expand as Tile", network([node("Expand", ["x", "s"], ["e"]), node("Relu", ["e"], ["y"])], [2, 1, 4], s=[2, 3, 4])
)
def expand_as_tile(wrong: bool) -> onnx.ModelProto:
    nodes = [node("Tile", ["x", "n"], ["e"]), node("Relu", ["e"], ["y"])]
    return network(nodes, [2, 1, 4], n=[1, 4, 1] if wrong else [1, 3, 1])


@rewrite(
    "a Tile of longer axes", network([node("Tile", ["x", "n"], ["e"]), node("Erf", ["e"], ["y"])], [2, 3], n=[2, 1])
)
def other_repeats(wrong: bool) -> onnx.ModelProto:
    return network([node("Tile", ["x", "n"], ["e"]), node("Erf", ["e"], ["y"])], [2, 3], n=[1, 2] if wrong else [2, 1])


@rewrite("HardSwish taken apart", network([node("HardSwish", ["x"], ["y"])], [2, 3]))
def hard_swish(wrong: bool) -> onnx.ModelProto:
    sigmoid = node("HardSigmoid", ["x"], ["s"], alpha=0.2 if wrong else 1 / 6, beta=0.5)
    return network([sigmoid, node("Mul", ["x", "s"], ["y"])], [2, 3])


@rewrite(
    "Sigmoid and Mul as QuickGelu", network([node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])], [2, 3])
)
def quick_gelu(wrong: bool) -> onnx.ModelProto:
    return network([node("QuickGelu", ["x"], ["y"], domain="com.microsoft", alpha=1.702 if wrong else 1.0)], [2, 3])


@rewrite(
    "Mish taken apart",
    network([node("Mish", ["x"], ["y"])], [2, 3], opset=18),
)
def mish(wrong: bool) -> onnx.ModelProto:
    nodes = [node("Softplus", ["x"], ["p"]), node("Sigmoid" if wrong else "Tanh", ["p"], ["t"])]
    return network([*nodes, node("Mul", ["x", "t"], ["y"])], [2, 3], opset=18)


ATTENTION = [
    node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["x", "t"], ["m"]),
    node("Mul", ["m", "k"], ["s"]), node("Softmax", ["s"], ["y"]),
]  # fmt: skip


@rewrite("scores as FusedMatMul", network(ATTENTION, [1, 2, 3, 4], k=np.float32(0.5)))
def fused_matmul(wrong: bool) -> onnx.ModelProto:
    product = node(
        "FusedMatMul", ["x", "x"], ["s"], domain="com.microsoft", alpha=0.25 if wrong else 0.5, transA=0, transB=1
    )
    return network([product, node("Softmax", ["s"], ["y"])], [1, 2, 3, 4])


NORM = [node("Add", ["x", "z"], ["a"]), node("LayerNormalization", ["a", "g", "b"], ["y"], epsilon=1e-5)]


@rewrite(
    "a sum and its LayerNormalization as one",
    network([node("Relu", ["x"], ["z"]), *NORM], [2, 5, 6], g=weights(5, 6), b=B),
)
def skip_layer_norm(wrong: bool) -> onnx.ModelProto:
    norm = node(
        "SkipLayerNormalization", ["x", "z", "g", "b"], ["y"], domain="com.microsoft", epsilon=1e-3 if wrong else 1e-5
    )
    return network([node("Relu", ["x"], ["z"]), norm], [2, 5, 6], g=weights(5, 6), b=B)


POSITIONS = np.arange(5, dtype="f4").reshape(1, 5, 1)


@rewrite(
    "an encoding that is computed",
    network(
        [node("Sin", ["p"], ["s"]), node("Add", ["x", "s"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
        [2, 5, 8],
        p=POSITIONS,
        w=W,
    ),
)
def stored_encoding(wrong: bool) -> onnx.ModelProto:
    stored = np.sin(POSITIONS.astype("f8")).astype("f4") * np.float32(1.001 if wrong else 1)
    return network([node("Add", ["x", "s"], ["a"]), node("MatMul", ["a", "w"], ["y"])], [2, 5, 8], s=stored, w=W)


@rewrite("a Concat of one", network([node("Concat", ["x"], ["c"], axis=1), node("Relu", ["c"], ["y"])], [2, 3]))
def concat_of_one(wrong: bool) -> onnx.ModelProto:
    nodes = [node("Relu", ["x"], ["r"]), node("Neg", ["r"], ["y"])] if wrong else [node("Relu", ["x"], ["y"])]
    return network(nodes, [2, 3])


def verdict(original: onnx.ModelProto, rewritten: onnx.ModelProto, folder, checks=("structure", "weights")):
    paths = folder / "original.onnx", folder / "rewritten.onnx"
    for path, model in zip(paths, (original, rewritten), strict=True):
        path.write_bytes(model.SerializeToString())
    return verify_files(*paths, VerifyOptions(checks))[0]


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites_are_followed(name, tmp_path):
    original, build = REWRITES[name]
    found = verdict(original, build(False), tmp_path)
    assert found.verdict == "equivalent", found.checks


@pytest.mark.parametrize("name", REWRITES)
def test_their_wrong_twins_are_not(name, tmp_path):
    original, build = REWRITES[name]
    assert verdict(original, build(True), tmp_path).verdict != "equivalent"


class TestGuesses:
    """What is paired by its name, or by what its numbers are nearest to, proves nothing."""

    def test_three_layers_of_one_input_where_the_original_has_one(self, tmp_path):
        """Positions that are added at run time hide that q and k read what v reads: a fold may store them."""
        held = {f"w{name}": weights(seed, 8, 8) for seed, name in enumerate("qkv")}
        tail = [node("MatMul", ["q", "k"], ["qk"]), node("Add", ["qk", "v"], ["y"])]
        several = [node("MatMul", ["x", f"w{name}"], [name], name=name) for name in "qkv"]
        shifted = [node("Foo", ["x"], ["p"], domain="com.microsoft")]
        shifted += [node("MatMul", ["p" if name in "qk" else "x", f"w{name}"], [name], name=name) for name in "qkv"]
        original = network([*shifted, *tail], [8, 8], **held)
        assert verdict(original, network([*several, *tail], [8, 8], **held), tmp_path).verdict == "inconclusive"

    def test_a_layer_that_is_wrong_all_over_is_different(self, tmp_path):
        held = {f"w{name}": weights(seed, 8, 8) for seed, name in enumerate("qkv")}
        nodes = [node("MatMul", ["x", f"w{name}"], [name], name=name) for name in "qkv"]
        nodes += [node("MatMul", ["q", "k"], ["qk"]), node("Add", ["qk", "v"], ["y"])]
        for name in "qkv":
            wrong = {**held, f"w{name}": weights(9, 8, 8)}
            found = verdict(network(nodes, [8, 8], **held), network(nodes, [8, 8], **wrong), tmp_path)
            assert found.verdict == "different"
            assert f"worst: {name}," in found.checks[-1].detail

    def test_what_lies_behind_something_unknown_is_not_compared(self, tmp_path):
        """A Softmax that is written out, and a layer behind it of the same name with other numbers."""
        held = {"w": W, "v": V}
        tail = [node("MatMul", ["s", "v"], ["y"], name="last")]
        before = network([node("MatMul", ["x", "w"], ["m"]), node("Softmax", ["m"], ["s"]), *tail], [5, 8], **held)
        apart = [
            node("MatMul", ["x", "w"], ["m"]), node("Exp", ["m"], ["e"]),
            node("ReduceSum", ["e", "last_axis"], ["t"]), node("Div", ["e", "t"], ["s"]), *tail,
        ]  # fmt: skip
        for factor in (1.0, 2.0):
            after = network(apart, [5, 8], w=W, v=V * np.float32(factor), last_axis=[-1])
            assert verdict(before, after, tmp_path).verdict == "inconclusive"
            judged = verdict(before, after, tmp_path, ("structure", "weights", "outputs")).checks[-1].verdict
            assert judged == ("pass" if factor == 1 else "fail")


@pytest.mark.parametrize(("ulps", "expected"), [(0, "equivalent"), (6, "different")])
@pytest.mark.parametrize("shape", [[5, 8], [2, 5, 8], ["N", 5, 8], ["N", "T", 8]])
def test_weights_are_measured_in_every_rank(shape, ulps, expected, tmp_path):
    """Behind a scale that was folded in: the class allows for 8 ulps, the weights check for 4."""
    scale = np.linspace(0.5, 2, 6, dtype="f4")
    before = network(
        [node("MatMul", ["x", "w"], ["m"]), node("Mul", ["m", "s"], ["t"]), node("Relu", ["t"], ["y"])],
        shape,
        w=W,
        s=scale,
    )
    folded = (W.astype("f8") * scale).astype("f4")
    folded[2, 3] += np.float32(ulps) * np.spacing(folded[2, 3])
    after = network([node("MatMul", ["x", "w"], ["t"]), node("Relu", ["t"], ["y"])], shape, w=folded)
    assert verdict(before, after, tmp_path).verdict == expected


def test_a_cast_that_rounds_and_a_clip_that_binds_are_missed(tmp_path):
    """Where they are gone, the proof must not pass; where they do nothing, it does."""
    tail = [node("MatMul", ["a", "w"], ["y"])]
    plain = network([node("Relu", ["x"], ["a"]), *tail], [5, 8], w=W)
    narrow = [node("Relu", ["x"], ["r"]), node("Cast", ["r"], ["h"], to=10), node("Cast", ["h"], ["a"], to=1)]
    bound = [node("Relu", ["x"], ["r"]), node("Clip", ["r", "low", "high"], ["a"])]
    free = [node("Relu", ["x"], ["r"]), node("Clip", ["r", "low"], ["a"])]
    ends = {"low": np.float32(-1), "high": np.float32(6)}
    assert verdict(network([*narrow, *tail], [5, 8], w=W), plain, tmp_path).verdict == "inconclusive"
    assert verdict(network([*bound, *tail], [5, 8], w=W, **ends), plain, tmp_path).verdict != "equivalent"
    assert verdict(network([*free, *tail], [5, 8], w=W, **ends), plain, tmp_path).verdict == "equivalent"
