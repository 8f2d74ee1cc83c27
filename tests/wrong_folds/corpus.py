"""The table of all faults, and every case that it makes with the networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module

from onnx import ModelProto

from tests.wrong_folds.networks import NETWORKS
from tests.wrong_folds.registry import FAULTS, Fault

__all__ = ["FAULTS", "Case", "Fault", "cases", "network"]

FILES = ("formulas", "layouts", "places", "numbers", "dead_channels", "graphs", "insertions", "interfaces")
for file in FILES:
    import_module(f"tests.wrong_folds.wrong_{file}")

Case = tuple[str, ModelProto, ModelProto, ModelProto, Fault]


@cache
def network(name: str, dtype: str, seed: int = 0) -> tuple[ModelProto, ModelProto]:
    """A network and its correct fold; neither may be changed."""
    from tests.support import fold_proto

    original = NETWORKS[name](seed, dtype)
    return original, fold_proto(original)[0]


def cases(dtypes: tuple[str, ...] = ("float32", "float16"), seed: int = 0) -> Iterator[Case]:
    """Every fault in every network that has a place for it: (id, original, correct fold, wrong fold, fault)."""
    for dtype in dtypes:
        for name in NETWORKS:
            original, correct = network(name, dtype, seed)
            for fault in FAULTS.values():
                wrong = fault(original, correct)
                if wrong is not None:
                    yield f"{fault.name}-{name}-{dtype}", original, correct, wrong, fault
