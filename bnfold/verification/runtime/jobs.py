"""What processes hand each other: frozen dataclasses, as JSON.

A parent writes ``job.json``, a worker leaves ``result.json`` beside it: its result, or a :class:`Failure`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
J = TypeVar("J")

JOB = "job.json"
RESULT = "result.json"


@dataclass(frozen=True)
class Failure:
    """Why a worker has no result; ``device_missing``: because the device that was asked for is not there."""

    error: str
    device_missing: bool = False


class DeviceUnavailable(Exception):
    """The device that a job asks for is not there; the message says what is there in its place."""


def to_json(job: Any) -> str:
    """Return a dataclass, and those in it, as JSON."""
    return json.dumps({"kind": type(job).__name__, "fields": asdict(job)})


def from_json(text: str, kind: type[T]) -> T:
    """Return the dataclass that :func:`to_json` wrote.

    Raises ValueError for another kind, for fields that are unknown or missing, and for values of another type.
    """
    data = json.loads(text)
    if data["kind"] != kind.__name__:
        raise ValueError(f"a {data['kind']}, not a {kind.__name__}")
    found: T = _dataclass(data["fields"], kind)
    return found


def result_from_json(text: str, kind: type[T]) -> T | Failure:
    """Return a worker's result, or the Failure that it left in its place. Raises ValueError."""
    if json.loads(text)["kind"] == Failure.__name__:
        return from_json(text, Failure)
    return from_json(text, kind)


def serve(job_path: str, kind: type[J], work: Callable[[J, Path], Any], *own: type[BaseException]) -> None:
    """Do the job in a file and leave the result beside it, or a Failure.

    The messages of the exceptions ``own`` say all; those of others are given with their type.
    """
    path = Path(job_path)
    try:
        result = work(from_json(path.read_text(), kind), path.parent)
    except DeviceUnavailable as error:
        result = Failure(str(error), device_missing=True)
    except MemoryError as error:
        result = Failure(str(error) or "it does not fit into memory")
    except own as error:
        result = Failure(str(error))
    except Exception as error:  # whatever onnxruntime or torch raises is the answer
        result = Failure(f"{type(error).__name__}: {error}")
    path.with_name(RESULT).write_text(to_json(result))


def _dataclass(data: Any, kind: Any) -> Any:
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} is not a {kind.__name__}")
    if data.keys() != set(known):
        raise ValueError(f"{kind.__name__} has the fields {sorted(known)}, not {sorted(data)}")
    return kind(**{name: _value(data[name], hints[name]) for name in known})


def _value(data: Any, hint: Any) -> Any:
    """Return JSON as a value of the type ``hint``. Raises ValueError."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _dataclass(data, hint)
    if origin in (Union, UnionType):
        if data is None and NoneType in inner:
            return None
        return _value(data, next(kind for kind in inner if kind is not NoneType))
    if origin is list and isinstance(data, list):
        return [_value(entry, inner[0]) for entry in data]
    if origin is tuple and isinstance(data, list):
        return tuple(_value(entry, inner[0]) for entry in data)
    if origin is not None and issubclass(origin, Mapping) and isinstance(data, dict):
        return {name: _value(entry, inner[1]) for name, entry in data.items()}
    accepted = (int, float) if hint is float else hint
    if origin is None and isinstance(data, accepted) and (hint is bool or not isinstance(data, bool)):
        return data
    raise ValueError(f"{data!r} is not a {hint}")
