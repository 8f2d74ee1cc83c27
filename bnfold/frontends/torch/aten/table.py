"""Every ATen operator by name, and how a call is translated. An operator is one entry in its family's ``TABLE``."""

from __future__ import annotations

from torch import fx

from bnfold.frontends.torch.aten import elementwise, layout, linear, pooling
from bnfold.frontends.torch.aten.call import Call, OnnxView, Translation

OPERATORS: dict[str, Translation] = {**linear.TABLE, **elementwise.TABLE, **pooling.TABLE, **layout.TABLE}
"""How each operator is seen, by its name without the namespace and without ``.default``."""


def translate(node: fx.Node) -> OnnxView | None:
    """A call in ONNX's terms; None if it stays opaque."""
    name = str(node.target).removeprefix("aten.")
    found = OPERATORS.get(name.removesuffix(".default")) or OPERATORS.get(_functional(name))
    return None if found is None else found(Call(node))


def _functional(name: str) -> str:
    """``relu_.default`` as ``relu``: what an operator that works in place computes."""
    operator, _, overload = name.partition(".")
    plain = operator.removesuffix("_")
    return plain if overload in ("default", "") else f"{plain}.{overload}"
