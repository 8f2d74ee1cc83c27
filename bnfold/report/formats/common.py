"""What the report formats share: the verification as one flat list, and text that is safe for machines.

Names in models are untrusted. Here is what every format needs to be safe from them, besides
:mod:`bnfold.report.escaping`: JSON with finite figures (:func:`dumps`), paths and URIs, fingerprints. :func:`checks` is
the verification as one flat list.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from bnfold.wording import figure

if TYPE_CHECKING:
    from bnfold.results.verification import CheckResult, Comparison, Judgement, LayerResult, OutputResult, Verification

SHOWN_CHANNELS = 8
"""Channels that a sentence names before it counts the rest."""


@dataclass(frozen=True)
class Entry:
    """One thing that was judged: a check, a fold (as one check sees it), or an output of one run.

    ``name`` and ``node`` are as the model has them; ``title`` distinguishes runs of the same output. ``occurrence``
    counts checks of the same title, from 0.
    """

    subject: Literal["check", "fold", "output"]
    check: str
    name: str
    title: str
    verdict: Judgement
    message: str
    figures: dict[str, Any] = field(default_factory=dict)
    node: str | None = None
    occurrence: int = 0


def entries(verification: Verification) -> list[Entry]:
    """Return everything that was judged: the checks, then the folds, then the outputs, each in its given order.

    Where those that were run are not enough for a verdict, that is a check too, and it is inconclusive.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for entry in _all(verification):
        key = (entry.subject, entry.check, entry.title)
        found.append(replace(entry, occurrence=seen[key]))
        seen[key] += 1
    return found


def problems(verification: Verification) -> list[Entry]:
    """Return the checks that did not pass: failures before what is inconclusive, checks before their parts."""
    return sorted(
        (entry for entry in entries(verification) if entry.verdict != "pass"), key=lambda entry: entry.verdict != "fail"
    )


def _all(verification: Verification) -> Iterator[Entry]:
    if verification.verdict == "inconclusive" and (left := verification.left_open):
        yield Entry("check", "verification", "verification", "verification", "inconclusive", left)
    yield from map(_check, verification.checks)
    yield from map(_fold, verification.layers)
    yield from map(_output, verification.outputs)


def _check(check: CheckResult) -> Entry:
    return Entry("check", check.check, check.check, check.check, check.verdict, check.detail, check.figures)


def _fold(layer: LayerResult) -> Entry:
    figures = {
        "error_ratio": layer.error_ratio,
        "max_abs": layer.max_abs,
        "max_ulp": layer.max_ulp,
        "channels": layer.channels,
    }
    return Entry("fold", layer.check, layer.name, layer.name, layer.verdict, _sentence(figures), figures, layer.node)


def _output(output: OutputResult) -> Entry:
    run = [f"level {output.level}", "TF32" if output.tf32 else None, output.kind]
    figures = {
        "error_ratio": output.error_ratio,
        "max_abs": output.max_abs,
        "max_rel": output.max_rel,
        "max_ulp": output.max_ulp,
        "detection_limit": output.detection_limit,
        "channels": output.channels,
    }
    title = ", ".join([output.name, *filter(None, run)])
    return Entry("output", "outputs", output.name, title, output.verdict, _sentence(figures), figures)


def _sentence(figures: dict[str, Any]) -> str:
    """Return the figures of a fold or an output, for people."""
    parts = []
    if figures["error_ratio"] is not None:
        parts.append(f"error ratio {figure(figures['error_ratio'])}")
    if figures["max_ulp"] is not None:
        parts.append(f"max error {figure(figures['max_ulp'])} ulp")
    if figures["max_abs"] is not None:
        parts.append(f"max abs {figure(figures['max_abs'])}")
    if figures["channels"]:
        parts.append(f"channels that are off: {channels(figures['channels'])}")
    return "; ".join(parts) or "no figures"


def channels(indices: list[int]) -> str:
    """Return the first few channels, and how many more there are."""
    shown = ", ".join(map(str, indices[:SHOWN_CHANNELS]))
    more = len(indices) - SHOWN_CHANNELS
    return f"{shown} and {more} more" if more > 0 else shown


def number(value: float | None) -> str:
    """Return a figure for people in three digits; ``nan`` and ``inf`` by name, nothing where there is none."""
    return "" if value is None else f"{value:.3g}"


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def finite(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: infinity and NaN become null, unencodable characters U+FFFD."""
    if isinstance(value, dict):
        return {finite(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, *, line: bool = False) -> str:
    """Return ``value`` as JSON in ASCII, indented or on one ``line``, :func:`finite`; to a runner it is no command."""
    text = json.dumps(finite(value), indent=None if line else 2, allow_nan=False)
    return re.sub("#(?=#)", r"\\u0023", text) + "\n"


def relative(path: str, root: str | None = None) -> str:
    """Return ``path`` tidied, with forward slashes; relative to ``root`` if it lies beneath it."""
    pure = PurePath(posixpath.normpath(PurePath(path).as_posix()))
    if root is not None and pure.is_relative_to(root):
        pure = pure.relative_to(root)
    return pure.as_posix()


def uri(path: str, root: str | None = None) -> str:
    """Return a relative path as a relative URI, an absolute one (not beneath ``root``) as a file URI."""
    place = relative(path, root)
    try:
        data = place.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = str(finite(place)).encode()
    if PurePath(place).is_absolute():
        return "file:///" + quote(data.lstrip(b"/"))
    return quote(data)


def fingerprint(comparison: Comparison, entry: Entry, root: str | None = None) -> str:
    """Return a sha256 that names this check of this folded model from run to run, whatever its figures are."""
    key = [relative(comparison.folded.path, root), entry.subject, entry.check, entry.title, entry.occurrence]
    return hashlib.sha256(json.dumps(key).encode("ascii")).hexdigest()


def headline(comparison: Comparison, root: str | None = None) -> str:
    """Return the verdict as a sentence about the two files."""
    original, folded = (relative(model.path, root) for model in (comparison.original, comparison.folded))
    sentences = {
        "equivalent": f"{folded} is equivalent to {original}",
        "different": f"{folded} is different from {original}",
    }
    return sentences.get(comparison.verdict, f"inconclusive whether {folded} is equivalent to {original}")
