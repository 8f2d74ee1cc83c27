"""Sums and products, with constants and without."""

import numpy as np
from build import node

from placements import add, one, some

for op in ("Add", "Sub", "Mul", "Div"):
    every = ((), (1,), (6,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 4, 1), (4, 6), (2, 8, 4, 6), (2, 1, 1, 1))
    for shape in every if op in ("Add", "Mul") else every[1:4]:
        add(f"{op} {shape}", one(op, "k"), k=some(*shape))
    add(f"{op} to a constant", node(op, ["k", "c"], ["d"]), k=some(8, 1, 1))
    add(f"{op} of more axes", one(op, "k"), k=some(1, 1, 1, 1, 1))
    add(f"{op} that enlarges", one(op, "k"), shape=(2, 8, 1, 6), k=some(4, 1))
    add(f"{op} of unknown batch", one(op, "k"), shape=("N", 8, 4, 6), k=some(8, 1, 1))
    add(f"{op} that may enlarge", one(op, "k"), shape=("N", 8, 4, 6), k=some(2, 8, 1, 1))
    add(f"{op} of itself", one(op, "c"))
    add(f"{op} stretched", node("ReduceMean", ["c"], ["m"], axes=[2]), one(op, "m"))
    add(f"{op} stretched, first", node("ReduceMean", ["c"], ["m"], axes=[1]), node(op, ["m", "c"], ["d"]))
    add(f"{op} of a branch", node("Sigmoid", ["c"], ["s"]), one(op, "s"))
for value in (0.0, np.inf):
    add(f"Mul by {value}", one("Mul", "k"), k=np.array([value, *[1.0] * 7], "f4").reshape(8, 1, 1))
add("Add of negatives", node("Neg", ["c"], ["n"]), one("Add", "n"))
add("Sub of negatives", node("Neg", ["c"], ["n"]), one("Sub", "n"))
add("Neg", one("Neg"))
add("Sum of one", one("Sum"))
add("Sum of two", one("Sum", "c"))
add("Sum with a constant", one("Sum", "k"), k=some(8, 1, 1))
add("Sum with two constants", one("Sum", "k", "l"), k=some(8, 1, 1), l=some(6))
add("Sum of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Sum", "p", "c"))
