"""Random networks out of the whole table of rules: fold, then compare with what the original computes.

``python -m tests.fuzz.fold_fuzz COUNT [SEED]`` folds so many and prints what it found. Each network is compared in
float64 (the arithmetic of the fold) and on onnxruntime with all optimisation off (what people run); some are also
folded twice, renamed, rewritten with Constant nodes. Used with hypothesis too, which shrinks a failure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, version_converter

from bnfold.api import FoldOptions, fold
from bnfold.io.load import load
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from tests.fuzz.networks import Draw, network
from tests.fuzz.runner import run_cases

RELATIVE = 1e-3
"""Of the largest output: no right fold is off by that much, a wrong one nearly always by more."""


def folded(model: ModelProto, folder: Path, options: FoldOptions) -> int:
    """Fold a model, and say how many changes there were; where there were none, not a byte may differ."""
    original, target = folder / "original.onnx", folder / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    result = fold(original, target, options, force=True)
    removed = sum(row.status == "folded" for row in result.inspection.rows)
    differs = target.read_bytes() != original.read_bytes()
    assert removed or options.merge or not differs, "nothing was folded, and yet the bytes differ"
    return removed or int(differs)


def compared(model: ModelProto, folder: Path, seed: int = 0) -> str:
    """``equal``, or ``skipped`` where no reference can run it. Raises AssertionError."""
    original, folded = folder / "original.onnx", folder / "folded.onnx"
    half = model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    x = input_of(model, seed)
    try:
        true = Float64Model(load(original)).run({"x": x})
        made = Float64Model(load(folded)).run({"x": x})
    except NotInFloat64:
        return "skipped"
    limit = 64 * RELATIVE if half else RELATIVE
    _compare("in float64", true, made, limit)
    try:
        first = run(original, x)
    except Exception:  # onnxruntime has no kernel for the original: there is nothing to compare with
        return "equal"
    _compare("on onnxruntime", first, run(folded, x), limit)
    return "equal"


def input_of(model: ModelProto, seed: int) -> Any:
    """A random input of the shape that a model wants; two where it says nothing."""
    tensor = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else 2 for dim in tensor.shape.dim]
    array = np.random.default_rng(seed).standard_normal(shape)
    return array.astype("f2" if tensor.elem_type == TensorProto.FLOAT16 else "f4")


def run(path: Path, x: Any) -> dict[str, Any]:
    """What onnxruntime makes of an input, with all optimisation off."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def _compare(where: str, true: dict[str, Any], made: dict[str, Any], limit: float) -> None:
    for name, expected in true.items():
        actual = made[name]
        assert expected.shape == actual.shape, f"{where}: {name} has another shape"
        expected, actual = expected.astype(np.float64), actual.astype(np.float64)
        finite = np.isfinite(expected)
        assert (finite == np.isfinite(actual)).all(), f"{where}: {name} is not finite at other places"
        size = np.abs(expected[finite]).max(initial=0) + 1e-6
        error = np.abs(expected[finite] - actual[finite]).max(initial=0)
        assert error <= limit * size, f"{where}: {name} is off by {error / size:.3g} of its largest entry"


def folded_again(folder: Path, options: FoldOptions) -> None:
    """Folding the folded model changes nothing more."""
    again = fold(folder / "folded.onnx", folder / "again.onnx", options, force=True)
    more = [row.name for row in again.inspection.rows if row.status == "folded"]
    assert not more, f"folding again folds {more}"


def has_dead_ends(model: ModelProto) -> bool:
    """True if a node makes what nobody reads: it may go with its neighbour, and what it held back folds next time."""
    read = {name for node in model.graph.node for name in node.input} | {info.name for info in model.graph.output}
    read |= {n for node in model.graph.node for a in node.attribute for inner in a.g.node for n in inner.input}
    return any(not read.intersection(node.output) for node in model.graph.node)


def renamed(model: ModelProto, draw: Draw) -> ModelProto:
    """The same network under other names."""
    copy = ModelProto()
    copy.CopyFrom(model)
    names: dict[str, str] = {}

    def other(name: str) -> str:
        if not name or name == "x":
            return name
        return names.setdefault(name, f"t{len(names)}_{draw(1000)}/é")

    pending = [copy.graph]
    while pending:
        graph = pending.pop()
        for node in graph.node:
            node.input[:] = map(other, node.input)
            node.output[:] = map(other, node.output)
            node.name = ""
            pending += [a.g for a in node.attribute if a.HasField("g")]
        for entry in (*graph.initializer, *graph.output):
            entry.name = other(entry.name)
    return copy


def with_constants(model: ModelProto) -> ModelProto:
    """The same network with its initializers as Constant nodes."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in copy.graph.initializer]
    del copy.graph.initializer[:]
    rest = list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend([*nodes, *rest])
    return copy


def converted(model: ModelProto, draw: Draw) -> ModelProto | None:
    """The same network in a later opset; None where onnx cannot convert it."""
    later = model.opset_import[0].version + 1 + draw(6)
    try:
        return version_converter.convert_version(model, min(later, 23))
    except Exception:  # the converter of onnx knows not every operator, and raises what it likes
        return None


def folds_of(model: ModelProto, folder: Path) -> int:
    """How many operators go."""
    path = folder / "variant.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, folder / "variant.folded.onnx", FoldOptions(verify=None), force=True)
    return sum(row.status == "folded" for row in result.inspection.rows)


def check(draw: Draw, folder: Path, *, metamorphic: bool) -> tuple[str, int]:
    """One network, from generation to judgement. Raises AssertionError."""
    model = network(draw)
    options = FoldOptions(verify=None, threshold=draw(3) == 0, merge=draw(4) == 0)
    removed, seed = folded(model, folder, options), draw(2**16)
    outcome = compared(model, folder, seed) if removed else "kept"
    if metamorphic:
        if not has_dead_ends(model):
            folded_again(folder, options)
        count = folds_of(model, folder)
        assert folds_of(renamed(model, draw), folder) == count, "other names, other folds"
        assert folds_of(with_constants(model), folder) == count, "Constant nodes, other folds"
        if (later := converted(model, draw)) is not None:
            assert folds_of(later, folder) == count, "another opset, other folds"
    return outcome, removed


def main() -> None:
    """Run what the command line asks for."""

    def one(draw: Draw, folder: Path, index: int) -> dict[str, int]:
        outcome, removed = check(draw, folder, metamorphic=index % 10 == 0)
        return {outcome: 1, "folds": removed}

    run_cases(one)


if __name__ == "__main__":
    main()
