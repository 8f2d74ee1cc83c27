"""Each operator between a transform and a layer that could absorb it: what folds computes the same.

What folds, and why the rest does not, is kept in ``outcomes.json``: a rule that becomes stricter or laxer shows there.
``BNFOLD_UPDATE_GOLDEN=1`` writes it again (run without xdist); look at the difference.
"""

import collections
import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference

from bnfold.errors import InputError
from tests.builders import make, node, tensor
from tests.folding import assert_same, feeds_for, fold_proto, run

RECORD = Path(__file__).parent / "outcomes.json"
UPDATE = bool(os.environ.get("BNFOLD_UPDATE_GOLDEN"))


def read_record():
    """Return what is recorded: for each row, the models by outcome."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def shape_behind(row):
    """Return the shape of ``d`` as onnx infers it, with None for unknown sizes."""
    held = [onnx.numpy_helper.from_array(array, name) for name, array in row.held.items()]
    ends = [tensor("c", row.shape)], [onnx.ValueInfoProto(name="d")]
    graph = onnx.helper.make_graph(row.nodes, "g", *ends, held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", row.opset)])
    found = shape_inference.infer_shapes(model, data_prop=True).graph.output[0].type.tensor_type
    return [dim.dim_value or None for dim in found.shape.dim]


def norms(size):
    """Yield scales and offsets of BatchNorms: equal for all channels, of either sign, then one for each channel."""
    rng = np.random.default_rng(size)
    gain, shift = rng.uniform(0.5, 2, size), rng.uniform(-1, 1, size)
    signs = np.resize([1, -1, -1, 1], size)
    yield "alike", np.full(size, -1.5), np.full(size, 0.25)
    yield "positive", np.full(size, 2.0), np.full(size, 1.0)
    yield "channels", gain, shift
    yield "signs", gain * signs, shift
    yield "gains", gain, np.zeros(size)


def steps(shape, source, target):
    """Yield transforms of a tensor of ``shape``: name, nodes from ``source`` to ``target``, and constants."""
    if len(shape) > 1 and (shape[1] or 0) > 1:
        names = [source, "scale", "bias", "mean", "var"]
        for name, gain, shift in norms(shape[1]):
            zero, one = np.zeros(shape[1]), np.ones(shape[1])
            held = {"scale": gain * np.sqrt(1 + 1e-5), "bias": shift, "mean": zero, "var": one}
            yield name, [node("BatchNormalization", names, [target])], held
    if not any(shape):  # no size is known
        nodes = [node("Mul", [source, "scale"], ["between"]), node("Add", ["between", "bias"], [target])]
        yield "one number", nodes, {"scale": np.array(1.5), "bias": np.array(0.25)}
    for axis, size in enumerate(shape):
        if axis != 1 and (size or 0) > 1:
            along = [size if axis == other else 1 for other in range(len(shape))]
            gain = np.random.default_rng(axis).uniform(0.5, 2, along)
            nodes = [node("Mul", [source, "scale"], ["between"]), node("Add", ["between", "bias"], [target])]
            yield f"axis {axis}", nodes, {"scale": gain, "bias": 1 - gain}


def layers(shape, source, target):
    """Yield a layer that absorbs a transform per channel, and one along the last axis; none wider than 64."""
    rng = np.random.default_rng(1)
    if 2 < len(shape) <= 5 and (shape[1] or 99) <= 64:
        weight = rng.normal(size=(shape[1], shape[1], *[1] * (len(shape) - 2)))
        nodes = [node("Conv", [source, "weight", "offset"], [target])]
        yield "Conv", nodes, {"weight": weight, "offset": np.ones(shape[1])}
    if shape and (shape[-1] or 99) <= 64:
        nodes = [node("MatMul", [source, "weight"], ["product"]), node("Add", ["product", "offset"], [target])]
        yield "MatMul", nodes, {"weight": rng.normal(size=(shape[-1], shape[-1])), "offset": np.ones(shape[-1])}


def worthwhile(layer, step):
    """Whether the combination tests anything: MatMul is there for transforms along an axis alone."""
    return layer == "Conv" or step not in ("alike", "positive", "signs", "gains")


def placed(row):
    """Yield models with a transform in front of the row's nodes and a layer behind, and the other way round."""
    sizes = [dim if isinstance(dim, int) else None for dim in row.shape]
    behind = shape_behind(row)

    def model(front, back):
        nodes = [node("Sigmoid", ["x"], ["start"]), *front[1], *row.nodes, *back[1], node("Elu", ["end"], ["out"])]
        held = {**row.held, **{name: np.asarray(data, "f4") for name, data in (front[2] | back[2]).items()}}
        return make(nodes, [tensor("x", row.shape)], [tensor("out", None)], held, opset=row.opset)

    for layer in layers(behind, "d", "end"):
        for step in steps(sizes, "start", "c"):
            if worthwhile(layer[0], step[0]):
                yield f"{step[0]} to {layer[0]}", model(step, layer)
    for layer in layers(sizes, "start", "c"):
        for step in steps(behind, "d", "end"):
            if worthwhile(layer[0], step[0]):
                yield f"{layer[0]} from {step[0]}", model(layer, step)


def outcomes(model):
    """Return what becomes of each candidate; what folds is compared with the original."""
    try:
        folded, (plan,) = fold_proto(model, scales=not any(n.op_type == "BatchNormalization" for n in model.graph.node))
    except InputError as error:
        return str(error).split(":")[0]
    if plan.folds:
        feeds = feeds_for(model)
        expected = run(model, feeds)
        assert_same(expected, run(folded, feeds), 2048.0)
        assert all(np.isfinite(array).all() for array in expected)
    observed = []
    for _, outcome in plan.outcomes:
        if getattr(outcome, "reason", "") != "skipped":
            into = " and ".join(n.op for n in getattr(outcome, "into", ()))
            observed.append(getattr(outcome, "reason", None) or f"{outcome.direction} into {into}")
    return ", then ".join(observed)


def check_row(row, record):
    """Fold each model of the row and compare the outcomes with those recorded."""
    found = collections.defaultdict(list)
    for name, model in placed(row):
        found[outcomes(model)].append(name)
    if UPDATE:
        record[row.name] = {outcome: ", ".join(names) for outcome, names in found.items()}
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    assert found
    assert {outcome: ", ".join(names) for outcome, names in found.items()} == record[row.name]
