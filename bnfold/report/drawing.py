"""Draw the neighbourhood of each affine operator as SVG: the operators around it, the affine transforms on the edges.

Layers from top to bottom by depth, a box an operator. Thick edges carry a transform in the folded network. The nodes
that a refusal names are red, with the path to them. The picture is text in boxes, so a small layered layout of our own
does; it needs no program beside Python. Colours are translucent or the page's own: they suit light and dark.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator
from xml.etree import ElementTree as Xml

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal

BOX = (160, 40)
GAP = (20, 40)
LABEL, LETTER, LINE = 200, 7, 16
"""Space for an edge's label beside the last box, for a letter of a title, and for a line of it, in pixels."""

NAME = 26
"""Letters of a node's name that fit into its box: the last ones, which differ most."""

REACH = 2
"""How many operators up and down a picture shows."""

FAR = 12
"""How far a node that a refusal names may be, for the path to it to be drawn."""

PATH = re.compile(r" \(through .*?\)(?=; next layer: |$)", re.DOTALL)
"""What a refusal says of the way to the node that refuses (:meth:`bnfold.rules.reasons.Refusal.located`)."""

MOST, MOST_IN_ROW = 40, 6
"""Operators in one picture, and beside each other: wide forks are cut."""

STYLE = """
.bnfold-graph text { font: 12px sans-serif; fill: currentColor } .bnfold-graph .small { font-size: 10px; opacity: .8 }
.bnfold-graph rect { fill: rgba(128,128,128,.12); stroke: #888; rx: 6 }
.bnfold-graph .self rect { fill: rgba(255,176,0,.28); stroke: #b07c00 }
.bnfold-graph .into rect { fill: rgba(46,160,67,.25); stroke: #2e7d32 }
.bnfold-graph .blocking rect { fill: rgba(229,57,53,.22); stroke: #d32f2f; stroke-width: 2 }
.bnfold-graph line { stroke: #888 } .bnfold-graph .map { stroke: #2e7d32; stroke-width: 3 }
"""


def svg(plans: list[Plan]) -> str:
    """Draw all neighbourhoods in one picture, one below the other, each under a title that says what becomes of it."""
    root = _root("")
    width, y = 200, 10
    for plan, op, outcome in _all(plans):
        picture, (wide, high) = _picture(plan, op, outcome)
        title = Xml.SubElement(root, "g", transform=f"translate(10,{y})")
        lines = textwrap.wrap(_printable(_title(op, outcome)), max(wide // LETTER, 60))
        for number, line in enumerate(lines):
            _text(title, 0, 12 + LINE * number, line)
        y += LINE * len(lines) + 8
        picture.set("transform", f"translate(10,{y})")
        root.append(picture)
        width, y = max(width, wide + 20, *(LETTER * len(line) + 20 for line in lines)), y + high + 30
    root.set("viewBox", f"0 0 {width} {y}")
    root.set("width", str(width))
    return Xml.tostring(root, encoding="unicode")


def one(plan: Plan, op: AffineOp, outcome: Fold | Refusal) -> str:
    """Draw one neighbourhood as a picture of its own, of the size that its letters need."""
    picture, (wide, high) = _picture(plan, op, outcome)
    root = _root(f"around {op.name}")
    root.set("viewBox", f"-2 -2 {wide + 4} {high + 4}")
    root.set("width", str(wide + 4))
    root.set("height", str(high + 4))
    root.append(picture)
    return Xml.tostring(root, encoding="unicode")


def _root(title: str) -> Xml.Element:
    root = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "bnfold-graph", "role": "img"})
    if title:
        Xml.SubElement(root, "title").text = _printable(title)
    Xml.SubElement(root, "style").text = STYLE
    return root


def _title(op: AffineOp, outcome: Fold | Refusal) -> str:
    if isinstance(outcome, Fold):
        return f"{op.name}: folds into the {'previous' if outcome.direction == 'upstream' else 'next'} layer"
    return f"{op.name}: kept, {outcome.reason}: {outcome.detail}"


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
    blocking = _blocking(op, outcome)
    layers, cut = _layers(op, blocking)
    place: dict[Node, tuple[int, int]] = {}
    wide = max(len(nodes) for nodes in layers.values())
    for row, depth in enumerate(sorted(layers)):
        indent = (wide - len(layers[depth])) * (BOX[0] + GAP[0]) // 2
        for column, node in enumerate(layers[depth]):
            place[node] = (indent + column * (BOX[0] + GAP[0]), row * (BOX[1] + GAP[1]))
    group = Xml.Element("g")
    labelled = False
    for node in place:
        for value in dict.fromkeys(node.inputs):
            if value is not None and value.producer in place:
                labelled |= _edge(group, place[value.producer], place[node], plan, value)
    for node, (x, y) in place.items():
        kind = "blocking" if node in blocking else ""
        kind = "into" if isinstance(outcome, Fold) and node in outcome.into else kind
        box = Xml.SubElement(group, "g", {"class": "self" if node in op.nodes else kind})
        Xml.SubElement(box, "rect", x=str(x), y=str(y), width=str(BOX[0]), height=str(BOX[1]))
        _text(box, x + 8, y + 17, node.op)
        _text(box, x + 8, y + 32, node.name if len(node.name) <= NAME else f"…{node.name[1 - NAME :]}", small=True)
    width, height = wide * (BOX[0] + GAP[0]) - GAP[0], len(layers) * (BOX[1] + GAP[1]) - GAP[1]
    if cut:
        _text(group, 0, height + LINE, f"{cut} more not drawn", small=True)
    return group, (width + LABEL * labelled, height + LINE * bool(cut))


def _blocking(op: AffineOp, outcome: Fold | Refusal) -> list[Node]:
    """Return the nodes that the reason of a refusal names, but for those on the path to them."""
    if isinstance(outcome, Fold):
        return []
    named = PATH.sub("", outcome.detail)
    return [node for node in op.nodes[0].graph.nodes if node not in op.nodes and node.label in named]


def _layers(op: AffineOp, blocking: list[Node]) -> tuple[dict[int, list[Node]], int]:
    """Return the operators around ``op`` by their distance from it, producers negative, and how many were cut.

    The nodes of ``blocking`` and the paths to them come first.
    """
    depth = {node: index for index, node in enumerate(op.nodes)}
    for node, level in _paths(op, blocking).items():
        depth.setdefault(node, level)
    first = list(depth)
    for start, step in ((op.nodes[0], -1), (op.nodes[-1], 1)):
        front = [start]
        for distance in range(1, REACH + 1):
            front = list(dict.fromkeys(other for node in front for other in _next(node, step)))
            for node in front:
                depth.setdefault(node, depth[start] + step * distance)
    layers: dict[int, list[Node]] = {}
    for node in [*first, *(node for node in depth if node not in first)]:
        layers.setdefault(depth[node], []).append(node)
    room, cut = MOST, 0
    for level in sorted(layers, key=abs):
        shown = layers[level][: min(MOST_IN_ROW, max(room, 0))]
        cut += len(layers[level]) - len(shown)
        room -= len(shown)
        layers[level] = sorted(shown, key=list(depth).index)
    return {level: nodes for level, nodes in layers.items() if nodes}, cut


def _paths(op: AffineOp, targets: list[Node]) -> dict[Node, int]:
    """Return the nodes on a shortest path to each target, by their level; a path may go up and down."""
    came: dict[Node, tuple[Node | None, int]] = {node: (None, index) for index, node in enumerate(op.nodes)}
    front = list(op.nodes)
    for _ in range(FAR):
        following = []
        for node in front:
            for step in (-1, 1):
                for other in _next(node, step):
                    if other not in came:
                        came[other] = node, came[node][1] + step
                        following.append(other)
        front = following
    found = {}
    for target in targets:
        step_back: Node | None = target if target in came else None
        while step_back is not None:
            before, found[step_back] = came[step_back]
            step_back = before
    return found


def _next(node: Node, step: int) -> list[Node]:
    constants = node.graph.constants
    if step < 0:
        return [v.producer for v in node.inputs if v is not None and v.producer and not constants.is_constant(v)]
    return [consumer for value in node.live_outputs for consumer in dict.fromkeys(value.consumers)]


def _edge(group: Xml.Element, start: tuple[int, int], end: tuple[int, int], plan: Plan, value: Value) -> bool:
    """Draw the edge from one box to another; return True if it has a label."""
    transform = plan.current(value)
    x1, y1, x2, y2 = start[0] + BOX[0] // 2, start[1] + BOX[1], end[0] + BOX[0] // 2, end[1]
    line = {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2)}
    Xml.SubElement(group, "line", {**line, "class": "" if transform.is_identity else "map"})
    if not transform.is_identity:
        _text(group, (x1 + x2) // 2 + 6, (y1 + y2) // 2 + 4, _summary(transform), small=True)
    return not transform.is_identity


def _summary(transform: Affine) -> str:
    """Return the ranges of scales and offsets."""
    arrays = (("scale", transform.gain), ("offset", transform.shift))
    return ", ".join(f"{name} {array.min():.3g} … {array.max():.3g}" for name, array in arrays)


def _text(group: Xml.Element, x: int, y: int, text: str, *, small: bool = False) -> None:
    element = Xml.SubElement(group, "text", {"x": str(x), "y": str(y), "class": "small" if small else ""})
    element.text = _printable(text)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
