"""What processes hand each other: typed, and nothing else."""

import json
from dataclasses import dataclass

import pytest

from bnfold.verification.equivalence.subgraph import End, Subgraph
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.jobs import (
    DeviceUnavailable,
    Failure,
    from_json,
    result_from_json,
    serve,
    to_json,
)
from bnfold.verification.runtime.worker import RunJob


@dataclass(frozen=True)
class Job:
    subgraphs: list[Subgraph]
    mode: RunMode
    limits: dict[str, float]
    folded: str | None
    seed: int | None
    exact: bool


@dataclass(frozen=True)
class Result:
    ratio: float


SUBGRAPH = Subgraph("conv", "c", [End("x", "x", 1, 1)], [End("y", "z", 1, 10)], 1, [0.5], [], [], sure=True)
JOB = Job([SUBGRAPH], RunMode("all", {"use_tf32": "1"}, tf32=True), {"a": float("inf"), "b": 1}, None, 3, exact=False)


def changed(**fields):
    data = json.loads(to_json(JOB))
    data["fields"] |= fields
    return json.dumps(data)


def test_nested_dataclasses_come_back_as_they_were():
    assert from_json(to_json(JOB), Job) == JOB


@pytest.mark.parametrize(
    "fields",
    [
        {"more": 1},
        {"exact": 1},
        {"seed": True},
        {"seed": 0.5},
        {"folded": 1},
        {"subgraphs": {}},
        {"subgraphs": [{"name": "conv"}]},
        {"limits": {"a": "1"}},
        {"mode": None},
    ],
    ids=str,
)
def test_unknown_fields_and_other_types_are_errors(fields):
    with pytest.raises(ValueError, match=r"has the fields|is not a"):
        from_json(changed(**fields), Job)


def test_missing_fields_are_errors():
    data = json.loads(to_json(JOB))
    del data["fields"]["seed"]
    with pytest.raises(ValueError, match="has the fields"):
        from_json(json.dumps(data), Job)


def test_another_kind_is_an_error():
    with pytest.raises(ValueError, match="a Job, not a RunJob"):
        from_json(to_json(JOB), RunJob)


def result_of(tmp_path, work):
    path = tmp_path / "job.json"
    path.write_text(to_json(JOB))
    serve(str(path), Job, work, KeyError)
    return result_from_json((tmp_path / "result.json").read_text(), Result)


def fails(error):
    def work(_job, _folder):
        raise error

    return work


def test_a_worker_leaves_its_result(tmp_path):
    assert result_of(tmp_path, lambda job, folder: Result(job.seed + (folder == tmp_path))) == Result(4)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DeviceUnavailable("no CUDA"), Failure("no CUDA", device_missing=True)),
        (MemoryError(), Failure("it does not fit into memory")),
        (KeyError("known"), Failure("'known'")),
        (TypeError("other"), Failure("TypeError: other")),
    ],
    ids=str,
)
def test_a_worker_leaves_why_it_has_none(tmp_path, error, failure):
    assert result_of(tmp_path, fails(error)) == failure
