"""Mutation testing: small changes to the code, of which the tests must notice every one that matters.

``python -m tests.campaigns.mutants [--sample N] [--jobs N] FILE...`` makes each change that cosmic-ray
knows, and runs the tests that reach the changed statement, the quickest first, in a forked process where the libraries
are loaded already. Results go to a file of JSON lines; a campaign that was stopped goes on where it was, with
``--again`` it tries what was left once more, after tests have been added.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.changes import lines_around, mutants

ROOT = Path(__file__).parents[2]
TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "affine",
        "batchnorm",
        "weights",
        "rules",
        "regressions",
        "corners",
        "corners_quantized",
        "merge",
        "variations",
        "campaigns",
    )
]
"""The quick ones, which know the mathematics and the rules."""

LIMIT = 90
"""Seconds for the tests of one change; more is a loop without end."""


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module other code than its file has."""

    def __init__(self, module: str, path: Path, code: str) -> None:
        self.module, self.path, self.code = module, path, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        is_package = self.path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.code, str(self.path), "exec"), module.__dict__)


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
    """Run the tests that are named; pytest's exit code."""
    files = sorted({name.split("::")[0] for name in order}) if order else TESTS
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *files], plugins=[Chosen(order), *plugins]))


def reach(target: Path) -> None:
    """Write which tests reach which lines."""
    import coverage

    tracer = coverage.Coverage(data_file=None, source=["bnfold"])
    tracer.start()
    contexts = Contexts(tracer)
    code = tests(None, contexts)
    tracer.stop()
    data = tracer.get_data()
    lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    target.write_text(json.dumps({"lines": lines, "seconds": contexts.seconds, "code": code}))


class Campaign:
    """Changes waiting, running and judged."""

    def __init__(self, results: Path, jobs: int) -> None:
        self.results, self.jobs = results, jobs
        self.running: dict[int, tuple[float, dict[str, Any]]] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.folder = Path(tempfile.mkdtemp())

    def learn(self) -> None:
        """Which tests reach what, without a change."""
        map_ = self.folder / "reach.json"
        os.waitpid(in_child(lambda: reach(map_) or 0), 0)
        found = json.loads(map_.read_text())
        assert found["code"] == 0, "the tests fail without any change"
        self.lines, self.seconds = found["lines"], found["seconds"]

    def order(self, path: Path, line: int) -> dict[str, int] | None:
        """The tests that reach a line, by their time; None for all."""
        reached, around = self.lines.get(str(path), {}), lines_around(path, line)
        names = {name for number in around or () for name in reached.get(str(number), ())}
        if not names:
            return {name: index for index, name in enumerate(sorted(self.seconds, key=self.seconds.__getitem__))}
        known = sorted((name for name in names if name in self.seconds), key=self.seconds.__getitem__)
        return {name: index for index, name in enumerate(known)}

    def start(self, row: dict[str, Any], code: str) -> None:
        """Let the tests judge a change."""
        path = ROOT / row["file"]
        module = ".".join(Path(row["file"]).with_suffix("").parts).removesuffix(".__init__")
        order = self.order(path, row["line"])

        def work() -> int:
            sys.meta_path.insert(0, Changed(module, path, code))
            return tests(order)

        self.running[in_child(work)] = (time.time(), row)

    def settle(self) -> None:
        """Wait until one is done; kill those that take too long."""
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                break
            for number, (start, _) in self.running.items():
                if time.time() - start > LIMIT:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        _, row = self.running.pop(child)
        row["end"] = "noticed" if status else "left"
        self.counts[row["end"]] += 1
        with self.results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def run(self, work: list[tuple[dict[str, Any], str]]) -> None:
        """Judge them all."""
        for row, code in work:
            while len(self.running) >= self.jobs:
                self.settle()
            self.start(row, code)
        while self.running:
            self.settle()


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one change from another."""
    return row["file"], row["operator"], row["occurrence"], row["code"]


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    import hypothesis  # noqa: F401 - loaded once for all
    import onnx.reference  # noqa: F401
    import onnxruntime  # noqa: F401

    assert not [name for name in sys.modules if name.startswith("bnfold")], "the children import bnfold themselves"
    rows = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    ends = {key(row): row["end"] for row in rows}
    wanted_ends = ("left",) if arguments.again else (None,)
    work = []
    for path in arguments.files:
        texts = path.read_text().splitlines()
        for operator, occurrence, line, code in mutants(path):
            row = {"file": str(path), "line": line, "operator": operator, "occurrence": occurrence,
                   "code": texts[line - 1].strip()}  # fmt: skip
            work.append((row, code))
    random.Random(0).shuffle(work)
    work = [(row, code) for row, code in work[: arguments.sample] if ends.get(key(row)) in wanted_ends]
    print(f"{len(work)} changes", flush=True)
    campaign, start = Campaign(arguments.results, arguments.jobs), time.time()
    campaign.learn()
    print(f"{len(campaign.seconds)} tests, known after {time.time() - start:.0f} s", flush=True)
    campaign.run(work)
    print(dict(campaign.counts), f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
