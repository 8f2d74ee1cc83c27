"""Draw the neighbourhood of each affine operator as SVG: the operators around it, the affine transforms on the edges.

Layers from top to bottom by depth, a box an operator. Thick edges carry a transform in the folded network. The
picture is text in boxes, so a small layered layout of our own does; it needs no program beside Python.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from xml.etree import ElementTree as Xml

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal

BOX = (190, 40)
GAP = (30, 56)
LABEL, LETTER = 200, 7
"""Space for an edge's label beside the last box, and for a letter of a title, in pixels."""

REACH = 2
"""How many operators up and down a picture shows."""

MOST = 40
"""Operators in one picture: wide forks are cut."""

STYLE = """
text { font: 12px sans-serif; fill: #1a1a1a } .small { font-size: 10px; fill: #555 }
rect { fill: #f4f4f4; stroke: #888; rx: 6 } .self rect { fill: #ffe9b8; stroke: #b07c00 }
.into rect { fill: #d8f0d8; stroke: #2e7d32 } line { stroke: #999 } .map { stroke: #2e7d32; stroke-width: 3 }
"""


def svg(plans: list[Plan]) -> str:
    """Draw all neighbourhoods in one picture, one below the other."""
    root = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg")
    Xml.SubElement(root, "style").text = STYLE
    width, y = 0, 10
    for plan, op, outcome in _all(plans):
        picture, (wide, high) = _picture(plan, op, outcome)
        picture.set("transform", f"translate(10,{y})")
        root.append(picture)
        width, y = max(width, wide + 20), y + high + 30
    root.set("viewBox", f"0 0 {max(width, 200)} {y}")
    root.set("width", str(max(width, 200)))
    return Xml.tostring(root, encoding="unicode")


def one(plan: Plan, op: AffineOp, outcome: Fold | Refusal) -> str:
    """Draw one neighbourhood as a picture of its own."""
    picture, (wide, high) = _picture(plan, op, outcome)
    root = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"-10 -4 {wide + 20} {high + 10}", role="img")
    root.set("width", str(wide + 20))
    Xml.SubElement(root, "title").text = _printable(f"around {op.name}")
    Xml.SubElement(root, "style").text = STYLE
    root.append(picture)
    return Xml.tostring(root, encoding="unicode")


def page(plans: list[Plan], title: str) -> str:
    """Return a self-contained HTML page with the pictures."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<body><h1>{html.escape(title)}</h1>{svg(plans)}</body></html>\n"
    )


def _all(plans: list[Plan]) -> Iterator[tuple[Plan, AffineOp, Fold | Refusal]]:
    for plan in plans:
        for op, outcome in plan.outcomes:
            yield plan, op, outcome


def _picture(plan: Plan, op: AffineOp, outcome: Fold | Refusal) -> tuple[Xml.Element, tuple[int, int]]:
    layers = _layers(op)
    place: dict[Node, tuple[int, int]] = {}
    wide = max(len(nodes) for nodes in layers.values())
    for row, depth in enumerate(sorted(layers)):
        indent = (wide - len(layers[depth])) * (BOX[0] + GAP[0]) // 2
        for column, node in enumerate(layers[depth]):
            place[node] = (indent + column * (BOX[0] + GAP[0]), 24 + row * (BOX[1] + GAP[1]))
    group = Xml.Element("g")
    if isinstance(outcome, Fold):
        title = f"{op.name}: folds into the {'previous' if outcome.direction == 'upstream' else 'next'} layer"
    else:
        title = f"{op.name}: kept, {outcome.reason}: {outcome.detail}"
    _text(group, 0, 12, title)
    for node in place:
        for value in dict.fromkeys(node.inputs):
            if value is not None and value.producer in place:
                _edge(group, place[value.producer], place[node], plan, value)
    for node, (x, y) in place.items():
        kind = "self" if node in op.nodes else "into" if isinstance(outcome, Fold) and node in outcome.into else ""
        box = Xml.SubElement(group, "g", {"class": kind})
        Xml.SubElement(box, "rect", x=str(x), y=str(y), width=str(BOX[0]), height=str(BOX[1]))
        _text(box, x + 8, y + 17, node.op)
        _text(box, x + 8, y + 32, node.name[-32:], small=True)
    size = max(wide * (BOX[0] + GAP[0]) + LABEL, LETTER * len(title)), 24 + len(layers) * (BOX[1] + GAP[1])
    return group, size


def _layers(op: AffineOp) -> dict[int, list[Node]]:
    """Return the operators around ``op`` by their distance from it, producers negative."""
    depth = {node: index for index, node in enumerate(op.nodes)}
    for start, step in ((op.nodes[0], -1), (op.nodes[-1], 1)):
        front = [start]
        for _ in range(REACH):
            found = [other for node in front for other in _next(node, step) if other not in depth]
            for node in found[: MOST - len(depth)]:
                depth.setdefault(node, depth[front[0]] + step)
            front = [node for node in dict.fromkeys(found) if node in depth]
            if not front:
                break
    layers: dict[int, list[Node]] = {}
    for node, level in depth.items():
        layers.setdefault(level, []).append(node)
    return layers


def _next(node: Node, step: int) -> list[Node]:
    constants = node.graph.constants
    if step < 0:
        return [v.producer for v in node.inputs if v is not None and v.producer and not constants.is_constant(v)]
    return [consumer for value in node.live_outputs for consumer in dict.fromkeys(value.consumers)]


def _edge(group: Xml.Element, start: tuple[int, int], end: tuple[int, int], plan: Plan, value: Value) -> None:
    transform = plan.current(value)
    x1, y1, x2, y2 = start[0] + BOX[0] // 2, start[1] + BOX[1], end[0] + BOX[0] // 2, end[1]
    line = {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2)}
    Xml.SubElement(group, "line", {**line, "class": "" if transform.is_identity else "map"})
    if not transform.is_identity:
        _text(group, (x1 + x2) // 2 + 6, (y1 + y2) // 2, _summary(transform), small=True)


def _summary(transform: Affine) -> str:
    """Return the ranges of scales and offsets."""
    arrays = (("scale", transform.gain), ("offset", transform.shift))
    return ", ".join(f"{name} {array.min():.3g} … {array.max():.3g}" for name, array in arrays)


def _text(group: Xml.Element, x: int, y: int, text: str, *, small: bool = False) -> None:
    element = Xml.SubElement(group, "text", {"x": str(x), "y": str(y), "class": "small" if small else ""})
    element.text = _printable(text)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
