"""What the alignment of two models has found: mismatches, values that are the same, folded tensors, wrong outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.matcher import Matcher
from bnfold.verification.equivalence.mismatch import Mismatch
from bnfold.verification.equivalence.multiples import Array


@dataclass(frozen=True)
class Tensor:
    """A linear layer of the folded model beside the exact fold of the original's: ulps and differences per channel.

    ``plain`` says that nothing was to be folded into it: its numbers should be the original's to the last bit.
    ``in_bias``: the bias is farther off than the weights.
    """

    node: Node
    ulps: Array
    differences: Array
    matched: bool
    plain: bool
    in_bias: bool = False


@dataclass
class Alignment:
    """Two models that were read. ``matched`` pairs values of the folded model with equal ones of the original.

    ``wrong_outputs`` are those that are no value of the original (None), or another transform of it in these channels.
    """

    original: Interpreter
    folded: Matcher
    mismatches: list[Mismatch] = field(default_factory=list)
    matched: dict[Value, Value] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    wrong_outputs: dict[str, list[int] | None] = field(default_factory=dict)


def outputs_side_by_side(original: Graphs, folded: Graphs) -> list[tuple[Value, Value]]:
    """Return the outputs that correspond: of one name, or of one place where callers go by that."""
    first, second = original.scopes[0].outputs, folded.scopes[0].outputs
    if not original.outputs_are_named:
        return list(zip(first, second, strict=False))
    made = {value.name: value for value in second}
    return [(value, made[value.name]) for value in first if value.name in made]


def suspect_layers(found: Alignment) -> set[Node]:
    """Return the layers whose numbers may have caused what is wrong."""
    suspected = {layer for p in found.mismatches if p.kind == "numbers" for layer in layers_before(p.node)}
    sides = outputs_side_by_side(found.original.graphs, found.folded.graphs)
    outputs = {value.name: mine for value, mine in sides}
    for name, channels in found.wrong_outputs.items():
        if channels is not None and (producer := outputs[name].producer) is not None:
            suspected.update(layers_before(producer))
    return suspected


LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LSTM", "GRU", "RNN"})


def layers_before(node: Node) -> Iterator[Node]:
    """Yield the node itself if it holds weights, else the nearest layers with weights before it."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op.removeprefix("com.microsoft::Fused") in LAYERS:
            yield current
        else:
            pending.extend(
                value.producer for value in current.inputs if value is not None and value.producer is not None
            )
