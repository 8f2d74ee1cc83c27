"""Tests run by pytest in forked processes: some of them, in a given order, each with a limit of time."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "affine",
        "batchnorm",
        "weights",
        "rules",
        "regressions",
        "constants",
        "contradictions",
        "corners",
        "corners_activations",
        "corners_conditions",
        "corners_constants",
        "corners_layers",
        "corners_measure",
        "corners_old",
        "corners_planner",
        "corners_positions",
        "corners_quantized",
        "corners_search",
        "corners_shapes",
        "merge",
        "variations",
        "placements",
        "campaigns",
    )
]
"""The quick ones, which know the mathematics and the rules."""

LIMIT = 25
"""Seconds for one test; more is a loop without end."""


def in_child(work: Callable[[], int]) -> int:
    """Start ``work`` in a forked process without output; its number."""
    if child := os.fork():
        return child
    code = 99
    try:
        os.setsid()
        quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        code = work()
    except BaseException as error:  # a change that breaks an import, say: noticed
        traceback.print_exc()
        code = 1 if not isinstance(error, KeyboardInterrupt) else 99
    os._exit(code)


class Told:
    """A plugin: writes which test has failed, and ends the process when one does not end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pytest_runtest_setup(self, item: Any) -> None:
        signal.alarm(LIMIT)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            (self.folder / str(os.getpid())).write_text(report.nodeid)


class Chosen:
    """A plugin: only these tests, in this order."""

    def __init__(self, order: dict[str, int] | None) -> None:
        self.order = order

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if "damaged" not in item.nodeid]  # which has an eye on the clock
        if self.order is not None:
            items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])


class Contexts:
    """A plugin: which lines each test reaches, and how long it takes."""

    def __init__(self, tracer: Any) -> None:
        self.tracer, self.seconds = tracer, {}

    def pytest_runtest_setup(self, item: Any) -> None:
        self.tracer.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration


def tests(order: dict[str, int] | None, *plugins: Any) -> int:
    """Run the tests that are named, or all; pytest's exit code."""
    files = sorted({name.split("::")[0] for name in order}) if order else TESTS
    options = ["-x", "-q", "-s", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options.append("--hypothesis-profile=ci")  # no luck, and no memory of what earlier changes did
    return int(pytest.main([*options, *files], plugins=[Chosen(order), *plugins]))
