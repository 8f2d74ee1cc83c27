"""JUnit XML, as the schema of Jenkins' xUnit plugin (``junit-10.xsd``) has it, which pytest keeps to as well.

That schema allows no ``properties`` in a test case. Its figures are therefore lines ``[[PROPERTY|name=value]]`` in its
``system-out``, the convention that test managers read there; what holds for the whole run is in the suite's properties.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree as ET

from bnfold.report.escaping import visible
from bnfold.report.formats.common import Entry, entries, finite, headline, relative
from bnfold.results.verification import Comparison


def render(comparison: Comparison, root: str | None = None) -> str:
    """Return one suite, a test case for each check, fold and output; what is inconclusive is skipped. Pure ASCII."""
    judged = entries(comparison.verification)
    counts = Counter(entry.verdict for entry in judged)
    totals = {"tests": str(len(judged)), "failures": str(counts["fail"]), "errors": "0"}
    suites = ET.Element("testsuites", {"name": "bnfold", **totals})
    name = visible(f"bnfold verify {relative(comparison.folded.path, root)}")
    suite = ET.SubElement(suites, "testsuite", {"name": name, **totals, "skipped": str(counts["inconclusive"])})
    properties = ET.SubElement(suite, "properties")
    for key, value in _about(comparison, root):
        ET.SubElement(properties, "property", {"name": visible(key), "value": _text(value)})
    for entry in judged:
        _add(suite, entry, _class(comparison, entry))
    ET.indent(suites)
    data: bytes = ET.tostring(suites, encoding="us-ascii", xml_declaration=True)
    return data.decode("ascii") + "\n"


def _about(comparison: Comparison, root: str | None) -> list[tuple[str, Any]]:
    """Return what holds for the whole run."""
    found: list[tuple[str, Any]] = [("verdict", comparison.verdict), ("summary", headline(comparison, root))]
    for role, model in (("original", comparison.original), ("folded", comparison.folded)):
        found += [(f"{role}.path", relative(model.path, root)), (f"{role}.sha256", model.sha256)]
    verification = comparison.verification
    for part in ("device", "inputs", "versions"):
        found += [(f"{part}.{key}", value) for key, value in getattr(verification, part).items() if value is not None]
    return found


def _class(comparison: Comparison, entry: Entry) -> str:
    """Return ``bnfold.MODEL.DEVICE.PART``; the dots are those of a Java class, so the words have none."""
    model = PurePath(comparison.folded.path).name
    device = comparison.verification.device.get("used") or "not_run"
    part = "checks" if entry.subject == "check" else entry.check
    return ".".join(["bnfold", *(visible(str(word)).replace(".", "_") for word in (model, device, part))])


def _add(suite: ET.Element, entry: Entry, classname: str) -> None:
    case = ET.SubElement(suite, "testcase", {"name": visible(entry.title), "classname": classname})
    message = visible(entry.message)
    if entry.verdict == "fail":
        failure = ET.SubElement(case, "failure", {"message": message, "type": f"bnfold.{visible(entry.check)}"})
        failure.text = message
    elif entry.verdict == "inconclusive":
        ET.SubElement(case, "skipped", {"message": message, "type": "inconclusive"})
    figures = {**entry.figures, "node": entry.node}
    lines = [f"[[PROPERTY|{visible(name)}={_text(value)}]]" for name, value in figures.items() if value is not None]
    if lines:
        ET.SubElement(case, "system-out").text = "\n".join(lines)


def _text(value: Any) -> str:
    """Return a value on one line: numbers as they are (``nan`` and ``inf`` too), lists and objects as JSON."""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(finite(value))
    return visible(str(value))
