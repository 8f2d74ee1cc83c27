"""Networks with parts that contradict each other: what damage to bytes hardly ever makes of a model.

An operator becomes another, inputs and outputs come and go, attributes and shapes change, constants take other forms.
"""

from __future__ import annotations

import os
import resource
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

from bnfold.api import FoldOptions
from bnfold.errors import BnfoldError, Refused
from bnfold.options import VerifyOptions
from bnfold.rules.table import RULES
from tests.fuzz.child import in_child
from tests.fuzz.fold_fuzz import compared, folded, input_of, run
from tests.fuzz.networks import Draw, network
from tests.fuzz.runner import run_cases

MEMORY = 4 << 30
"""Bytes that no small model may take."""

SLOW = 10.0
"""Seconds that none may take to be folded."""

NUMBERS = (0, 1, -1, 2, 3, 5, -2, 7, -9, 2**31, 2**62)
NAMES = ("axis", "axes", "pads", "group", "perm", "auto_pad", "broadcast", "keepdims", "spatial", "mode", "strides",
         "dilations", "kernel_shape", "ceil_mode", "count_include_pad", "epsilon", "alpha", "beta", "transA", "transB",
         "min", "max", "to", "training_mode", "is_test", "value", "shape", "split", "scales")  # fmt: skip
WORDS = (b"", b"edge", b"reflect", b"SAME_UPPER", b"VALID", b"linear", b"CRD", b"\xff")


def contradicted(model: ModelProto, draw: Draw) -> ModelProto:
    """A copy of a model with one to four random changes to its structure."""
    changed = ModelProto()
    changed.CopyFrom(model)
    for _ in range((1, 1, 2, 4)[draw(4)]):
        CHANGES[draw(len(CHANGES))](changed, draw)
    return changed


def _node(model: ModelProto, draw: Draw) -> NodeProto:
    nodes = _nodes(model)
    return nodes[draw(len(nodes))]


def _nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of the graph, and of those nested in it."""
    nodes, graphs = [], [model.graph]
    while graphs:
        graph = graphs.pop()
        nodes += graph.node
        graphs += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return nodes


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in _nodes(model) for name in node.output]
    return ["", *made, *(tensor.name for tensor in graph.initializer), *(info.name for info in graph.input)]


def _other_operator(model: ModelProto, draw: Draw) -> None:
    operators = [*sorted(RULES), "BatchNormalization", "Softmax", "Loop"]
    _node(model, draw).op_type = operators[draw(len(operators))]


def _other_input(model: ModelProto, draw: Draw) -> None:
    node, names = _node(model, draw), _names(model)
    if node.input and draw(3):
        node.input[draw(len(node.input))] = names[draw(len(names))]
    elif node.input and draw(2):
        del node.input[draw(len(node.input))]
    else:
        node.input.append(names[draw(len(names))])


def _other_output(model: ModelProto, draw: Draw) -> None:
    node = _node(model, draw)
    if node.output and draw(3) == 0:
        del node.output[draw(len(node.output))]
    else:
        node.output.insert(draw(len(node.output) + 1), ("", f"more{draw(1000)}")[draw(2)])


def _other_attribute(model: ModelProto, draw: Draw) -> None:
    nodes = [node for node in _nodes(model) if node.attribute]
    if not nodes:
        return
    node = nodes[draw(len(nodes))]
    attribute = node.attribute[draw(len(node.attribute))]
    if draw(4) == 0:
        node.attribute.remove(attribute)
    elif attribute.type == AttributeProto.INT:
        attribute.i = NUMBERS[draw(len(NUMBERS))]
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = (0.0, -1.0, 1e30, np.inf, np.nan)[draw(5)]
    elif attribute.type == AttributeProto.STRING:
        attribute.s = WORDS[draw(len(WORDS))]
    elif attribute.type == AttributeProto.INTS:
        _other_numbers(attribute.ints, draw)


def _other_numbers(numbers: Any, draw: Draw) -> None:
    if numbers and draw(2):
        numbers[draw(len(numbers))] = NUMBERS[draw(len(NUMBERS))]
    elif numbers and draw(2):
        del numbers[draw(len(numbers))]
    else:
        numbers.insert(draw(len(numbers) + 1), NUMBERS[draw(len(NUMBERS))])


def _one_more_attribute(model: ModelProto, draw: Draw) -> None:
    number = NUMBERS[draw(len(NUMBERS))]
    value = (number, float(number), [number] * draw(9), WORDS[draw(len(WORDS))], [0.5] * (1 + draw(3)))[draw(5)]
    name = NAMES[draw(len(NAMES))]
    if value == []:
        attribute = AttributeProto(name=name, type=AttributeProto.INTS)
    else:
        attribute = helper.make_attribute(name, value)
    _node(model, draw).attribute.append(attribute)


def _other_constant(model: ModelProto, draw: Draw) -> None:
    if not model.graph.initializer:
        return
    tensor = model.graph.initializer[draw(len(model.graph.initializer))]
    array = numpy_helper.to_array(tensor)
    kind = draw(8)
    if kind == 0:
        array = array.T
    elif kind == 1:
        array = array.reshape(-1)
    elif kind == 2:
        array = array[..., None] if draw(2) else array[None]
    elif kind == 3:
        array = array[: draw(3)] if array.ndim else array
    elif kind == 4:
        array = array.astype(("f2", "f4", "f8", "i8", "i4", "u1")[draw(6)])
    elif kind == 5:
        array = np.full(array.shape, (0, 1, -1, 2**20)[draw(4)]).astype(array.dtype)
    elif kind == 6 and array.dtype.kind == "f" and array.size:
        array = array.copy()
        array.flat[draw(array.size)] = (np.nan, np.inf, -np.inf, 0.0)[draw(4)]
    else:
        array = array.reshape(array.shape[::-1])
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name))


def _other_shape(model: ModelProto, draw: Draw) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    kind = draw(4)
    if kind == 0 and dims:
        dims[draw(len(dims))].dim_param = "n"
    elif kind == 1 and dims:
        dims[draw(len(dims))].dim_value = NUMBERS[draw(len(NUMBERS))]
    elif kind == 2 and dims:
        del dims[draw(len(dims))]
    else:
        dims.add().dim_value = 1 + draw(3)


def _other_opset(model: ModelProto, draw: Draw) -> None:
    model.opset_import[0].version = 1 + draw(onnx.defs.onnx_opset_version())


def _other_results(model: ModelProto, draw: Draw) -> None:
    names = _names(model)
    model.graph.output.append(helper.make_empty_tensor_value_info(names[draw(len(names))]))


def _other_order(model: ModelProto, draw: Draw) -> None:
    nodes = list(model.graph.node)
    node = nodes.pop(draw(len(nodes)))
    if draw(2) or not nodes:
        nodes.insert(draw(len(nodes) + 1), node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


CHANGES = (
    _other_operator,
    _other_input,
    _other_output,
    _other_attribute,
    _one_more_attribute,
    _other_constant,
    _other_shape,
    _other_opset,
    _other_results,
    _other_order,
)


def check(draw: Draw, folder: Path) -> tuple[str, int]:
    """One changed network: how folding it ends, and how many folds. Raises AssertionError for a wrong one."""
    model = contradicted(network(draw), draw)
    static = VerifyOptions(checks=("structure", "weights"))
    options = FoldOptions(verify=(static, None)[draw(2)], threshold=draw(3) == 0, merge=draw(4) == 0)
    start = time.perf_counter()
    try:
        removed = folded(model, folder, options)
    except Refused:
        assert not _runs(model, folder, draw(2**16)), "a fold that the proof does not follow"
        return "refused by the proof, no model to onnxruntime", 0
    except BnfoldError as error:
        assert "\n" not in str(error), "not one line"
        return f"exit code {error.exit_code}", 0
    assert time.perf_counter() - start < SLOW, "slow"
    return judged(model, folder, draw(2**16)) if removed else "kept", removed


def _runs(model: ModelProto, folder: Path, seed: int) -> bool:
    """Whether onnxruntime takes a network for a model, in a process that it may bring down."""
    said = folder / "said.txt"
    said.write_text("no")
    path = folder / "alone.onnx"
    path.write_bytes(model.SerializeToString())

    def work() -> int:
        run(path, input_of(model, seed))
        said.write_text("yes")
        return 0

    os.waitpid(in_child(work), 0)
    return said.read_text() == "yes"


def judged(model: ModelProto, folder: Path, seed: int) -> str:
    """``equal``, or why there is nothing to compare with. In another process, which onnxruntime may bring down."""
    said = folder / "said.txt"
    said.write_text("onnxruntime crashes")

    def work() -> int:
        try:
            run(folder / "original.onnx", input_of(model, seed))
            said.write_text("FAILED")
        except Exception:  # of the many kinds that onnxruntime has
            said.write_text("no model to onnxruntime")
            return 0
        try:
            said.write_text(compared(model, folder, seed))
        except Exception:
            said.write_text(traceback.format_exc(limit=-3))
        return 0

    os.waitpid(in_child(work), 0)
    outcome = said.read_text()
    assert "Traceback" not in outcome, outcome
    assert outcome != "FAILED", "a crash that the original did not make"
    return outcome


def main() -> None:
    """Run what the command line asks for."""

    def one(draw: Draw, folder: Path, _: int) -> dict[str, int]:
        outcome, removed = check(draw, folder)
        return {outcome: 1, "folds": removed}

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    run_cases(one)


if __name__ == "__main__":
    main()
