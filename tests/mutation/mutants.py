"""Mutation testing: small changes to the code, of which the tests must notice every one that matters.

``python -m tests.mutation.mutants [--sample N] [--jobs N] FILE...`` makes each change that cosmic-ray
knows, and runs the tests that reach the changed statement, the quickest first, in a forked process: of one that has
the tests already, where the change is in a function that no import runs, else of one that has the libraries alone.
Results go to a file of JSON lines; a campaign that was stopped goes on where it was, with ``--again`` it tries what was
left once more, after tests have been added. What is known to change nothing (``equivalents.txt``) is not tried, or with
``--known`` alone: a test that notices such a change is wrong, or what is said of the change is.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gc
import importlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.fuzz.child import in_child
from tests.mutation.changes import changed_line, functions, lines_around, mutants
from tests.mutation.code_patching import Changed, Place, living, patches
from tests.mutation.equivalents import equivalents
from tests.mutation.pytest_runs import TESTS, Contexts, FailureReport, tests

ROOT = Path(__file__).parents[2]


def module_of(file: str) -> str:
    """The module that a file is."""
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


def reach(target: Path, files: list[str]) -> None:
    """Write which tests reach which lines of these files."""
    import coverage

    tracer = coverage.Coverage(data_file=None, source=["bnfold"])
    tracer.start()
    for file in files:
        importlib.import_module(module_of(file))  # outside of any test
    contexts = Contexts(tracer)
    code = tests(None, contexts)
    tracer.stop()
    data = tracer.get_data()
    lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    target.write_text(json.dumps({"lines": lines, "seconds": contexts.seconds, "code": code}))


class Campaign:
    """Changes waiting, running and judged."""

    def __init__(self, results: Path, jobs: int, budget: float) -> None:
        self.results, self.jobs, self.budget = results, jobs, budget
        self.running: dict[int, dict[str, Any]] = {}
        self.noticed: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.folder = Path(tempfile.mkdtemp())

    def learn(self, files: list[str]) -> None:
        """Which tests reach what, without a change."""
        map_ = self.folder / "reach.json"
        os.waitpid(in_child(lambda: reach(map_, files) or 0), 0)
        found = json.loads(map_.read_text())
        assert found["code"] == 0, "the tests fail without any change"
        self.lines, self.seconds = found["lines"], found["seconds"]

    def learn_from(self, row: dict[str, Any]) -> None:
        """Remember which test noticed a change: of the same line, and of the same file."""
        if "by" in row:
            self.noticed[row["file"], row["code"]][row["by"]] += 1
            self.noticed[row["file"], ""][row["by"]] += 1

    def order(self, row: dict[str, Any]) -> dict[str, int]:
        """The tests that reach a line, or all, as far as the budget goes: first what noticed most changes here.

        Then one case of each test, the second of each, and so on: the cases of one are much alike.
        """
        path = ROOT / row["file"]
        reached, around = self.lines.get(str(path), {}), lines_around(path, row["line"])
        names = {name for number in around or () for name in reached.get(str(number), ()) if name in self.seconds}
        here, near = self.noticed[row["file"], row["code"]], self.noticed[row["file"], ""]
        quickest = sorted(names or self.seconds, key=lambda name: self.seconds[name])
        cases: collections.Counter[str] = collections.Counter()
        turn = {}
        for name in quickest:
            cases[name.split("[")[0]] += 1
            turn[name] = cases[name.split("[")[0]]
        known = sorted(quickest, key=lambda name: (-here[name], -near[name], turn[name], self.seconds[name]))
        spent = itertools.accumulate(self.seconds[name] for name in known)
        affordable = [name for name, seconds in zip(known, spent, strict=True) if seconds <= self.budget]
        return {name: index for index, name in enumerate(affordable or known[:1])}

    def imported(self, path: Path, line: int) -> bool:
        """True where an import runs a line."""
        reached, around = self.lines.get(str(path), {}), lines_around(path, line)
        return around is None or any("" in reached.get(str(number), ()) for number in around)

    def judge(self, row: dict[str, Any], work: Callable[[dict[str, int]], int]) -> None:
        """Let the tests judge a change, as soon as there is room."""
        while len(self.running) >= self.jobs:
            self.collect()
        order = self.order(row)
        self.running[in_child(lambda: work(order))] = row

    def collect(self) -> None:
        """Wait until one is done."""
        child, status = os.wait()
        row = self.running.pop(child)
        row["end"] = "noticed" if status else "left"
        if (report := self.folder / str(child)).exists():
            row["by"] = report.read_text()
            self.learn_from(row)
            report.unlink()
        with self.results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def run(self, work: list[tuple[dict[str, Any], str]]) -> None:
        """Judge them all, those last that need an import."""
        warm, cold = [], []
        for row, code in work:
            path = ROOT / row["file"]
            changed = None if self.imported(path, row["line"]) else patches(path, code)
            if changed is not None:
                warm.append((row, changed))
            else:
                cold.append((row, code))
        if child := os.fork():
            os.waitpid(child, 0)
        else:  # in another process: here nothing is imported before the change is
            try:
                tests(None, Warm(self, warm))
            finally:
                os._exit(0)
        for row, code in cold:
            self.judge(row, self.cold(row, code))
        while self.running:
            self.collect()

    def cold(self, row: dict[str, Any], code: str) -> Callable[[dict[str, int]], int]:
        """What judges a change that an import makes."""

        def work(order: dict[str, int]) -> int:
            sys.meta_path.insert(0, Changed(module_of(row["file"]), ROOT / row["file"], code))
            return tests(order, FailureReport(self.folder))

        return work


class Warm:
    """A plugin in place of pytest's loop: the tests are there, and each change is judged in a fork."""

    def __init__(self, campaign: Campaign, work: list[tuple[dict[str, Any], dict[Place, CodeType]]]) -> None:
        self.campaign, self.work = campaign, work

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for row, _ in self.work:
            importlib.import_module(module_of(row["file"]))
        self.living = living(ROOT / "bnfold")
        session.config.pluginmanager.register(FailureReport(self.campaign.folder))
        gc.freeze()
        for row, changed in self.work:
            self.campaign.judge(row, functools.partial(self.tests, session, row, changed))
        while self.campaign.running:
            self.campaign.collect()
        return True

    def tests(
        self, session: pytest.Session, row: dict[str, Any], changed: dict[Place, CodeType], order: dict[str, int]
    ) -> int:
        """Make a change and run the tests that reach it."""
        for place, code in changed.items():
            for function in self.living.get((str(ROOT / row["file"]), *place), ()):
                function.__code__ = code
        chosen = sorted((item for item in session.items if item.nodeid in order), key=lambda i: order[i.nodeid])
        for item, after in itertools.zip_longest(chosen, chosen[1:]):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return 1
        return 0


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one change from another."""
    return row["file"], row["operator"], row["occurrence"], row["code"]


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--known", action="store_true", help="the changes that are known to change nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", nargs="+", help="other files of tests than the quick ones")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds of tests for a change")
    parser.add_argument("--hints", nargs="+", type=Path, default=[], help="earlier results: what noticed goes first")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    return parser.parse_args()


def recorded(results: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def waiting(arguments: argparse.Namespace) -> list[tuple[dict[str, Any], str]]:
    """The changes that are asked for and not judged yet, or were left, each with the changed code; in random order."""
    ends = {key(row): row["end"] for row in recorded(arguments.results)}
    lefts = collections.defaultdict(set)
    for file, operator, occurrence, *_ in (known for known, end in ends.items() if end == "left"):
        lefts[file].add((operator, occurrence))
    work = []
    for path in arguments.files:
        text = path.read_text()
        for operator, occurrence, line, code in mutants(path, lefts[str(path)] if arguments.again else None):
            was, now = changed_line(text, code)
            inside = [name for name, lines in functions(path).items() if line in lines]
            row = {"file": str(path), "line": line, "operator": operator, "occurrence": occurrence,
                   "code": text.splitlines()[line - 1].strip(), "function": inside[-1],
                   "was": was, "now": now}  # fmt: skip
            work.append((row, code))
    random.Random(0).shuffle(work)
    known = equivalents()
    return [
        (row, code)
        for row, code in work[: arguments.sample]
        if ends.get(key(row)) == ("left" if arguments.again else None)
        and ((f"{row['file']} {row['function']}", row["was"], row["now"]) in known) == arguments.known
    ]


def main() -> None:
    """Run a campaign."""
    arguments = options()
    TESTS[:] = arguments.tests or TESTS
    os.chdir(ROOT)
    for name in ("hypothesis", "onnx.reference", "onnxruntime"):  # loaded once for all children
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.startswith("bnfold")], "the children import bnfold themselves"
    work = waiting(arguments)
    print(f"{len(work)} changes", flush=True)
    campaign, start = Campaign(arguments.results, arguments.jobs, arguments.budget), time.time()
    for row in itertools.chain.from_iterable(map(recorded, arguments.hints)):
        campaign.learn_from(row)
    campaign.learn([str(path) for path in arguments.files])
    print(f"{len(campaign.seconds)} tests, known after {time.time() - start:.0f} s", flush=True)
    campaign.run(work)
    ends = {key(row): row["end"] for row in recorded(arguments.results)}
    print(dict(collections.Counter(ends[key(row)] for row, _ in work)), f"{time.time() - start:.0f} s")
    for row in sorted((row for row, _ in work if ends[key(row)] == "left"), key=lambda r: (r["file"], r["line"])):
        print(f"{row['file']}:{row['line']}\n- {row['was']}\n+ {row['now']}")


if __name__ == "__main__":
    main()
