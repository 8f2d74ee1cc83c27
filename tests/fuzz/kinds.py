"""Random networks of two kinds of operators, each network drawn from its kinds and its own seed.

What is recorded of them (``tests/golden/networks.json``) tells which kind of operator folds otherwise than before: a
new kind, or one whose generator grows, changes no network of other kinds. For the same reason the layers and
BatchNorms around the two kinds (:func:`layer`, :func:`norm`) take no option that might grow.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from onnx import ModelProto

from tests.fuzz.networks import IMAGES, ROWS, SEQUENCES, Network

Grow = Callable[[Network, str, tuple[int, ...]], None]
"""Adds operators behind a value of a known shape, or nothing where they don't fit."""

OF_RANK = {4: IMAGES, 2: ROWS, 3: SEQUENCES}
KINDS: dict[str, Grow] = {grow.__name__: grow for grows in OF_RANK.values() for grow in grows}
"""Every kind of operator that the generator has, by name."""

RANKS = {name: frozenset(rank for rank in OF_RANK if grow in OF_RANK[rank]) for name, grow in KINDS.items()}
"""The ranks of the values that each kind takes: 4 for images, 2 for rows, 3 for sequences of rows."""

ANY_RANK = frozenset(OF_RANK)

SEEDS = 2
"""Networks of each pair of kinds."""

Key = tuple[str, str, int]
"""Two kinds, by name and in alphabetical order (twice the same for one alone), and a seed."""


def keys_of(kinds: Iterable[str] = KINDS) -> Iterator[Key]:
    """Yield the key of every network that is made of these kinds."""
    for first, second in itertools.combinations_with_replacement(sorted(kinds), 2):
        yield from ((first, second, seed) for seed in range(SEEDS))


def generator(key: Key) -> random.Random:
    """Return the generator of random numbers that belongs to a key, and to no other."""
    return random.Random("/".join(map(str, key)))  # seeded by the text's SHA-512: the same in every Python


def network_of(key: Key, rng: random.Random) -> ModelProto:
    """Return a network with each of the two kinds twice, between layers and BatchNorms, in random order."""
    n = Network(rng.randrange, "float16" if rng.randrange(8) == 0 else "float32")
    ranks = [RANKS[name] for name in key[:2]]
    steps = [(KINDS[name], RANKS[name]) for name in key[:2] * 2] + [(norm, ANY_RANK)] * 3 + [(layer, ANY_RANK)] * 2
    rng.shuffle(steps)
    if not all(4 in each for each in ranks):  # the input is an image, which such a kind does not take
        change = to_sequence if all(each & {3, 4} for each in ranks) and rng.randrange(2) else to_rows
        steps.insert(rng.randrange(4), (change, frozenset({4})))
    for grow, taken in steps:
        fitting = [name for name in n.live if len(n.shapes[name]) in taken][-3:]
        if fitting:
            x = fitting[rng.randrange(len(fitting))]
            grow(n, x, n.shapes[x])
    return n.model()


def norm(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """Add a BatchNorm."""
    size = shape[1]
    parts = [
        n.rng.uniform(0.5, 1.5, size),
        n.rng.normal(size=size),
        n.rng.normal(size=size),
        n.rng.uniform(0.3, 2, size),
    ]
    n.add("BatchNormalization", [x, *map(n.hold, parts)], shape)


def layer(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """Add a linear layer without bias: 4 channels from a Conv, or 4 columns from a MatMul."""
    if len(shape) == 4:
        n.add("Conv", [x, n.weight(4, shape[1], 1, 1)], (shape[0], 4, *shape[2:]))
    else:
        n.add("MatMul", [x, n.weight(shape[-1], 4)], (*shape[:-1], 4))


def to_rows(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """Add a mean over the positions of an image."""
    n.add("ReduceMean", [x], shape[:2], axes=[2, 3], keepdims=0)


def to_sequence(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """Add a Reshape of an image to one row of positions for each channel."""
    n.add("Reshape", [x, n.hold(np.array([0, 0, -1], np.int64))], (*shape[:2], shape[2] * shape[3]))
