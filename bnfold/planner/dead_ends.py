"""Dead ends: nodes on which no output depends. Whatever they read may change, so the planner does not see them read.

Else what blocks a fold would be gone once the fold of something else has removed it, and folding again would fold more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bnfold.ir.graph import Graph, Node


@contextmanager
def dead_ends_hidden(graph: Graph) -> Iterator[None]:
    """Take the nodes of dead ends out of the consumers of what they read, for as long as this lasts."""
    dead = dead_ends(graph)
    read = {value: value.consumers for node in dead for value in node.inputs if value is not None}
    for value, consumers in read.items():
        value.consumers = [node for node in consumers if node not in dead]
    try:
        yield
    finally:
        for value, consumers in read.items():
            value.consumers = consumers


def dead_ends(graph: Graph) -> set[Node]:
    """Return the nodes on which no output depends, and which do nothing else that is known."""
    dead: set[Node] = set()
    for node in reversed(graph.nodes):
        made = node.live_outputs
        if not made or not node.is_pure:
            continue
        if not any(v.is_output or v.captured or not dead.issuperset(v.consumers) for v in made):
            dead.add(node)
    return dead
