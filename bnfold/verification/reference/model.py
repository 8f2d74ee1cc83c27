"""Run an ONNX model in float64: the reference against which both models are measured.

onnx's reference implementation runs the operators, with bnfold's own where it is wrong or slow
(:mod:`bnfold.verification.reference.ops`). Every float, of whatever width, is float64 here. Weights are read when they
are needed and values are freed after their last use, so that memory holds a few activations and one weight.

What can't run: operators that onnx's reference does not know (other domains, some of older opsets), random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bnfold.errors import one_line
from bnfold.frontends.onnx.functions import expandable, with_defaults
from bnfold.frontends.onnx.graph import dense
from bnfold.frontends.onnx.nested import bodies, reads
from bnfold.io.load import LoadedModel
from bnfold.ir.random_operators import RANDOM
from bnfold.progress import report
from bnfold.verification.reference.ops import OPERATORS

Observer = Callable[[str, NDArray[Any]], None]

Amendment = Callable[[NodeProto, list[Any], tuple[Any, ...]], tuple[Any, ...]]
"""Takes a node of the main graph, its inputs and what it has made; returns what is to stand in its place."""


Amend = Callable[[int], Amendment | None]
"""The amendment of a sample."""

TOGETHER = 2**27
"""Bytes of activations that samples which run together may hold."""


class NotInFloat64(Exception):
    """The model, or one of its operators, can't run in float64; the message says which and why."""


class Float64Model:
    """A model ready to run in float64 on any number of samples. Raises NotInFloat64.

    ``others`` are operators in place of those of the same name. ``peak`` is how many bytes of activations one sample
    has held, 0 until one has run.
    """

    def __init__(self, model: LoadedModel, others: Sequence[type[OpRun]] = ()) -> None:
        proto = without_functions(model.proto)
        self.peak = 0
        self._read = model.external.read
        self._graph = proto.graph
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._sparse = {sparse.values.name: sparse for sparse in proto.graph.sparse_initializer}
        held = self._tensors.keys() | self._sparse.keys()
        self.inputs = [info.name for info in proto.graph.input if info.name not in held]
        self.outputs = [info.name for info in proto.graph.output]
        skeleton = GraphProto(name="float64")
        skeleton.node.extend(_sorted(proto.graph))
        model.external.fill(skeleton)
        for node in skeleton.node:
            _refuse(node)
        opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}
        self._reads = [list(dict.fromkeys(reads(node))) for node in skeleton.node]
        self._last = {name: index for index, names in enumerate(self._reads) for name in names}
        try:
            named = {operator.__name__: operator for operator in (*OPERATORS, *others)}
            self._steps: list[OpRun] = _Evaluator(skeleton, opsets=opsets, new_ops=list(named.values())).rt_nodes_
        except Exception as error:  # onnx's reference raises many kinds for operators that it does not know
            raise NotInFloat64(one_line(error, 300)) from error

    def run(
        self,
        feeds: Mapping[str, NDArray[Any]],
        observe: Observer | None = None,
        amend: Amendment | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return the float64 outputs for one sample. Raises NotInFloat64.

        ``observe`` gets each value as it is made; ``amend`` replaces what nodes have made.
        """
        return self.run_together([feeds], observe, [amend])[0]

    def run_all(
        self,
        samples: int,
        feed: Callable[[int], Mapping[str, NDArray[Any]]],
        amend: Amend | None = None,
        *,
        observe: Observer | None = None,
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the float64 outputs for each of ``samples``: the first, then as many at a time as memory allows.

        ``observe`` gets the values of the first. Raises NotInFloat64.
        """
        done = 0
        while done < samples:
            count = min(samples - done, max(1, TOGETHER // self.peak) if self.peak else 1)
            some = range(done, done + count)
            amends = [amend(sample) for sample in some] if amend is not None else ()
            yield from self.run_together([feed(sample) for sample in some], None if done else observe, amends)
            done += count

    def run_together(
        self,
        feeds: Sequence[Mapping[str, NDArray[Any]]],
        observe: Observer | None = None,
        amends: Sequence[Amendment | None] = (),
    ) -> list[dict[str, NDArray[Any]]]:
        """Return the float64 outputs for some samples, node by node: each weight is read once. Raises NotInFloat64."""
        weights: dict[str, Any] = {"": None}
        values: list[dict[str, Any]] = [
            {name: promoted(np.asarray(feed[name])) for name in self.inputs} for feed in feeds
        ]
        for name in self.inputs if observe else ():
            assert observe is not None
            observe(name, values[0][name])
        wanted = set(self.outputs)
        kept = [self._outputs_without_a_node(known) for known in values]
        held = sum(value.nbytes for value in values[0].values())
        for index, step in enumerate(self._steps):
            report(index, len(self._steps), step.op_type)
            for name in self._reads[index]:
                if name not in weights and name not in values[0]:
                    weights[name] = self._weight(name)
            for place, made in enumerate(_outcomes(step, weights, values)):
                known = values[place]
                if amends and (amend := amends[place]) is not None:
                    read = [weights[name] if name in weights else known[name] for name in step.input]
                    made = amend(step.onnx_node, read, tuple(made))
                for name, value in zip(step.output, made, strict=False):
                    if not name:
                        continue
                    if observe is not None:
                        observe(name, value)
                    if name in wanted:
                        kept[place][name] = value
                    if self._last.get(name, -1) > index:
                        known[name] = value
                        held += value.nbytes if place == 0 and isinstance(value, np.ndarray) else 0
            self.peak = max(self.peak, held)
            for name in self._reads[index]:
                if name in weights and name and (self._last[name] <= index or name in self._tensors):
                    del weights[name]
                elif name in values[0] and self._last[name] <= index:
                    gone = [known.pop(name) for known in values]
                    held -= gone[0].nbytes if isinstance(gone[0], np.ndarray) else 0
        return [{name: np.asarray(outputs[name]) for name in self.outputs} for outputs in kept]

    def _outputs_without_a_node(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs that are inputs or weights themselves."""
        held = (self._tensors.keys() | self._sparse.keys()) - known.keys()
        given = {name: known[name] for name in self.outputs if name in known}
        return given | {name: self._weight(name) for name in self.outputs if name in held}

    def _weight(self, name: str) -> Any:
        if name in self._tensors:
            return promoted(self._read(self._tensors[name]))
        if name in self._sparse:
            return promoted(dense(self._sparse[name]))
        raise NotInFloat64(f"nothing makes {name!r}")


class _Evaluator(ReferenceEvaluator):
    """onnx's evaluator, for subgraphs too, with every float that it holds or makes in float64."""

    def _init(self) -> None:
        super()._init()
        self.rt_inits_ = {name: promoted(value) for name, value in self.rt_inits_.items()}
        for node in self.rt_nodes_:
            _widen(node)


def _widen(node: OpRun) -> None:
    """Let a node's results be promoted, inside subgraphs as well."""
    plain: Callable[..., Any] = node.run

    def run(*args: Any, **kwargs: Any) -> Any:
        return tuple(promoted(value) for value in plain(*args, **kwargs))

    node.run = run  # type: ignore[method-assign]


def _outcomes(step: OpRun, weights: Mapping[str, Any], values: list[dict[str, Any]]) -> Iterator[Any]:
    """What a node makes of each sample; a convolution does all of one shape at once."""
    if step.op_type == "Conv" and len(values) > 1 and all(name in weights for name in step.input[1:]):
        sources = [known[step.input[0]] for known in values if step.input[0] in known]
        if len(sources) == len(values) and len({source.shape for source in sources}) == 1:
            (made,) = _outcome(step, {**weights, step.input[0]: np.concatenate(sources)})
            yield from ((part,) for part in np.split(made, len(sources)))
            return
    for known in values:
        yield _outcome(step, {**weights, **known})


def _outcome(step: OpRun, known: dict[str, Any]) -> Any:
    inputs = [known[name] for name in step.input]
    try:
        with np.errstate(all="ignore"):
            run: Callable[..., Any] = step.run
            return run(*inputs, context=known) if step.need_context() else run(*inputs)
    except MemoryError:
        raise
    except Exception as error:  # an operator may raise any exception
        name = step.onnx_node.name or next(iter(step.output), "")
        raise NotInFloat64(f"{step.op_type} {name!r}: {one_line(error, 300)}") from error


def promoted(value: Any) -> Any:
    """Return floats of any width as float64; sequences entry by entry; everything else as it is."""
    if isinstance(value, list):
        return [promoted(entry) for entry in value]
    if isinstance(value, np.ndarray) and (value.dtype.kind == "f" or value.dtype.name == "bfloat16"):
        return value.astype(np.float64, copy=False)
    return value


def without_functions(model: ModelProto) -> ModelProto:
    """Return the model with its own functions inlined. Raises NotInFloat64."""
    if not model.functions:
        return model
    if not expandable(model):
        raise NotInFloat64("its functions call each other too often")
    from onnx import inliner

    try:
        return inliner.inline_local_functions(with_defaults(model))
    except Exception as error:  # onnx raises several kinds
        raise NotInFloat64(f"its functions can't be inlined: {one_line(error, 300)}") from error


def _sorted(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes in topological order. Raises NotInFloat64 for a cycle."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    if all(made.get(name, -1) < index for index, node in enumerate(graph.node) for name in reads(node)):
        return list(graph.node)
    from graphlib import CycleError, TopologicalSorter

    needs = {index: [made[name] for name in reads(node) if name in made] for index, node in enumerate(graph.node)}
    try:
        return [graph.node[index] for index in TopologicalSorter(needs).static_order()]
    except CycleError:
        raise NotInFloat64("its nodes form a cycle") from None


def _refuse(node: NodeProto) -> None:
    if node.domain == "ai.onnx":
        node.domain = ""
    if node.op_type in RANDOM:
        raise NotInFloat64(f"{node.op_type} {node.name!r} is random")
    for _, body in bodies(node):
        for child in body.node:
            _refuse(child)
