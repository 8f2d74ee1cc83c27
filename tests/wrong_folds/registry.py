"""What a fault is, and the table of them that the other files fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

Wrong = ModelProto | None
Apply = Callable[[ModelProto, ModelProto], Wrong]


@dataclass(frozen=True)
class Fault:
    """One way to be wrong: takes a network and its correct fold, returns the wrong one, or None where it has no place.

    ``silent``: the outputs can't show it, because a closed Relu hides it from all inputs of a sane size.
    ``interface``: it changes what a caller has to know: names, number, order, shapes or types of inputs and outputs.
    ``valid``: onnx.checker accepts the wrong model. ``runs``: onnxruntime runs it.
    ``benign_in``: the networks (``name`` or ``name/dtype``) that have a place for it where it changes nothing, and why;
    there it returns None too.
    """

    name: str
    description: str
    apply: Apply
    silent: bool = False
    interface: bool = False
    valid: bool = True
    runs: bool = True
    benign_in: tuple[tuple[str, str], ...] = ()

    def __call__(self, original: ModelProto, correct: ModelProto) -> Wrong:
        """The wrong fold; neither argument is changed."""
        wrong = self.apply(original, correct)
        same = wrong is not None and wrong.SerializeToString() == correct.SerializeToString()
        return None if same else wrong

    @property
    def where_benign(self) -> frozenset[str]:
        """The networks of ``benign_in``, without the reasons."""
        return frozenset(place for place, _ in self.benign_in)


FAULTS: dict[str, Fault] = {}


def register(fault: Fault) -> None:
    """Add a fault to the table."""
    assert fault.name not in FAULTS, fault.name
    FAULTS[fault.name] = fault


def fault(
    *,
    silent: bool = False,
    interface: bool = False,
    valid: bool = True,
    runs: bool = True,
    benign_in: tuple[tuple[str, str], ...] = (),
) -> Callable[[Apply], Apply]:
    """Register a function under its name; the first line of its docstring is the description."""

    def keep(apply: Apply) -> Apply:
        text = (apply.__doc__ or "").strip().splitlines()[0]
        register(Fault(apply.__name__, text, apply, silent, interface, valid, runs, benign_in))
        return apply

    return keep
