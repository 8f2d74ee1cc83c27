"""Tests run by pytest in forked processes: some of them, in a given order, each with a limit of time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

TESTS = [
    "tests/numerics",
    "tests/ir",
    "tests/rules",
    "tests/planner",
    "tests/matrix",
    "tests/frontends/onnx/test_inconsistent_models.py",
    "tests/frontends/onnx/test_invalid_models.py",
    "tests/frontends/onnx/test_known_shapes.py",
    "tests/fuzz",
]
"""The quick ones, which know the mathematics and the rules."""

LIMIT = 25
"""Seconds for one test; more is a loop without end."""


class FailureReport:
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
