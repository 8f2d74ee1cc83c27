"""The reports for machines: parsed again, held to the published schemas, given names that strangers could choose."""

import json
import math
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import bnfold
from bnfold.report.escaping import harmless, visible
from bnfold.report.formats.common import entries, relative, uri
from bnfold.report.formats.github import step_summary
from bnfold.report.formats.registry import FORMATS, render
from bnfold.results.model import ModelInfo
from bnfold.results.verification import CheckResult, Comparison, LayerResult, OutputResult, Verification
from tests.support import ROOT, SCHEMA

SCHEMAS = ROOT / "tests" / "data" / "report_schemas"
XS = "{http://www.w3.org/2001/XMLSchema}"
HOSTILE = (
    "a|b`c`\n::error title=x,y::%0A<script>alert('x')</script>&amp;]]>\x00\x1b[31m[l](https://e) {0} ü漢😀\u202e\ufffe"
)


def schema(name):
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def comparison(checks=(), layers=(), outputs=(), used="cpu", folded="models/net.folded.onnx", **inputs):
    device = {"asked": "cpu", "used": used, "nodes_on_cpu": [], "provider_options": {}}
    fed = {"source": "generated", "seed": 7, "samples": 2, **inputs}
    found = Verification(list(checks), list(layers), list(outputs), device, fed, {"bnfold": "0.1.0", "numpy": "2.4.6"})
    first, second = (ModelInfo(p, d * 64, "onnx", 10, 20) for p, d in (("models/net.onnx", "a"), (folded, "b")))
    return Comparison(first, second, found)


def output(name, verdict="pass", ratio=1.75, **more):
    return OutputResult(name, "all", ratio, 1e-6, 2e-7, 3e-8, verdict=verdict, **more)


PASSING = comparison(
    [
        CheckResult("weights", "pass", "2 folded tensors", {"max_ulp": 0.5}),
        CheckResult("outputs", "pass", "1.75 times"),
    ],
    [LayerResult("Conv 'c' input 1", None, 1e-9, 0.5, []), LayerResult("Conv 'c'", 1.2, 0.0, None, [], "layers")],
    [output("logits"), output("logits", tf32=True, kind="normal")],
)
FAILING = comparison(
    [
        CheckResult("weights", "fail", "off by inf ulps", {"max_ulp": math.inf}),
        CheckResult("outputs", "inconclusive", "?"),
    ],
    [LayerResult("fine", None, 0.0, 0.5, []), LayerResult("bad", None, math.nan, math.inf, [1, 2], verdict="fail")],
    [output("logits", "inconclusive", math.nan)],
)
UNDECIDED = comparison([CheckResult("outputs", "inconclusive", "nothing was run")], used=None, source=None, samples=0)
EMPTY = comparison(used=None)


def hostile(name):
    """The same name wherever a model or a user could put one."""
    bad = LayerResult(name, math.inf, math.nan, None, [0], "layers", "fail", name)
    checks = [CheckResult("outputs", "fail", f"in output {name}"), CheckResult("weights", "inconclusive", name)]
    return replace(comparison(checks, [bad, bad], [output(name, "inconclusive")], folded=f"m/{name}"), notes=[name])


ALL = {"passing": PASSING, "failing": FAILING, "inconclusive": UNDECIDED, "empty": EMPTY, "hostile": hostile(HOSTILE)}
every = pytest.mark.parametrize("result", ALL.values(), ids=ALL)
names = st.text(st.characters(codec=None) | st.sampled_from("|`\n\r:%,<&]{[\x00\u2028\ud800"), max_size=30)


def assert_junit_schema(root):
    """The vendored XSD's element and attribute declarations (every content model in it that we use is a choice)."""
    declared = {node.get("name"): node for node in ET.parse(SCHEMAS / "junit-10.xsd").getroot().iter(f"{XS}element")}
    for node in root.iter():
        rule = declared[node.tag]
        attributes = {a.get("name"): a.get("use") == "required" for a in rule.iter(f"{XS}attribute")}
        assert set(node.attrib) <= set(attributes), node.tag
        assert {name for name, needed in attributes.items() if needed} <= set(node.attrib), node.tag
        assert {child.tag for child in node} <= {child.get("ref") for child in rule.iter(f"{XS}element")}, node.tag
        kind = rule.find(f"{XS}complexType")
        mixed = kind is None or kind.get("mixed") == "true"
        assert mixed or not (node.text or "").strip(), node.tag


def cases(result):
    root = ET.fromstring(render("junit", result))
    assert_junit_schema(root)
    return root, root.findall("testsuite/testcase")


def properties(case):
    lines = (case.findtext("system-out") or "").splitlines()
    return dict(line.removeprefix("[[PROPERTY|").removesuffix("]]").split("=", 1) for line in lines)


MARKDOWN = MarkdownIt("commonmark").enable("table")


def rows(markdown):
    """The tables, as a Markdown parser sees them: header cells and body cells with their visible text."""
    tables, row = [], None
    for token in MARKDOWN.parse(markdown):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "tr_close":
            row = None
        elif token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "html_inline", "strong_open", "strong_close"}, token.content
            raw = {child.content for child in token.children if child.type == "html_inline"}
            assert raw <= {"<code>", "</code>"}, raw
            if row is not None:
                row.append("".join(child.content for child in token.children if child.type != "html_inline"))
        else:
            assert token.type != "html_block"
    return tables


def test_the_check_of_the_xml_schema_can_fail():
    for wrong in ("<testcase/>", "<testcase name='x'><properties/></testcase>", "<testcase name='x' wrong='y'/>"):
        with pytest.raises(AssertionError):
            assert_junit_schema(ET.fromstring(wrong))


@every
def test_json_is_the_contract_without_infinities(result):
    rendered = json.loads(render("json", result), parse_constant=pytest.fail)
    jsonschema.validate(rendered, SCHEMA)
    assert rendered["verdict"] == result.verdict
    assert [check["check"] for check in rendered["checks"]] == [check.check for check in result.verification.checks]


@every
def test_junit_counts_what_it_lists(result):
    root, found = cases(result)
    suite = root.find("testsuite")
    counted = Counter(check.verdict for check in entries(result.verification))
    assert len(found) == int(suite.get("tests")) == int(root.get("tests")) == sum(counted.values())
    assert sum(case.find("failure") is not None for case in found) == int(suite.get("failures")) == counted["fail"]
    assert (
        sum(case.find("skipped") is not None for case in found) == int(suite.get("skipped")) == counted["inconclusive"]
    )


def test_junit_tells_figures_device_and_why():
    root, found = cases(FAILING)
    assert [case.get("name") for case in found] == ["weights", "outputs", "fine", "bad", "logits, level all"]
    assert found[0].find("failure").get("message") == "off by inf ulps"
    assert found[1].find("skipped").get("message") == "?"
    assert {case.get("classname").split(".")[2] for case in found} == {"cpu"}
    assert properties(found[3]) == {"max_abs": "nan", "max_ulp": "inf", "channels": "[1, 2]"}
    assert set(properties(found[4])) == {"error_ratio", "max_abs", "max_rel", "max_ulp", "detection_limit", "channels"}
    suite = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert suite["device.used"] == "cpu" and suite["folded.sha256"] == "b" * 64 and suite["inputs.seed"] == "7"
    assert "not_run" in cases(UNDECIDED)[1][0].get("classname")


def test_github_annotations_speak_of_what_is_wrong():
    assert render("github", PASSING).splitlines() == [
        "::notice title=bnfold%3A equivalent::models/net.folded.onnx is equivalent to models/net.onnx"
    ]
    lines = render("github", FAILING).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::error", "::warning", "::warning"]
    assert lines[1] == "::error title=bnfold%3A weights::off by inf ulps"
    assert lines[2].startswith("::error title=bnfold%3A weights%3A bad::max error inf ulp; max abs nan")
    assert "title=bnfold%3A outputs%3A logits%2C level all::error ratio nan" in lines[4]
    assert "::warning title=bnfold%3A verification::structure, weights, layers, outputs not run" in render(
        "github", EMPTY
    )


@every
def test_summary_leads_with_the_verdict_and_has_its_tables(result):
    rendered = step_summary(result)
    assert rendered.splitlines()[0] == f"## bnfold: {result.verdict}"
    checks, *others = rows(rendered)
    assert [row[0] for row in checks] == [
        "check",
        *(c.name for c in entries(result.verification) if c.subject == "check"),
    ]
    assert len(others) == bool(result.verification.layers) + bool(result.verification.outputs)
    assert "- versions: bnfold 0.1.0, numpy 2.4.6" in rendered
    assert "b" * 64 in rendered
    assert ("nothing was run" in rendered) == (result.verification.device["used"] is None)


def test_summary_puts_the_worst_first():
    layers = [LayerResult(f"l{i}", None, 0.0, u, []) for i, u in enumerate((0.1, 0.4, math.nan, 0.3))]
    many = [LayerResult(f"m{i}", None, 0.0, 0.0, []) for i in range(20)]
    bad = LayerResult("bad", 0.0, 0.0, None, list(range(12)), "layers", "fail")
    rendered = step_summary(comparison(layers=[*many, *layers, bad]))
    folds = rows(rendered)[1][1:]
    assert [row[0] for row in folds[:5]] == ["bad", "l2", "l1", "l3", "l0"]
    assert folds[0][-1] == "0, 1, 2, 3, 4, 5, 6, 7 and 4 more"
    assert len(folds) == 10 and "Worst folds (10 of 25)" in rendered
    assert "generated, seed 7, samples 2" in rendered


@every
def test_gitlab_lists_what_did_not_pass(result):
    rendered = json.loads(render("gitlab", result))
    jsonschema.validate(rendered, schema("gitlab-codequality.schema.json"))
    wrong = Counter(c.verdict for c in entries(result.verification) if c.verdict != "pass")
    severities = Counter(entry["severity"] for entry in rendered)
    assert severities == Counter(critical=wrong["fail"], minor=wrong["inconclusive"])
    assert len({entry["fingerprint"] for entry in rendered}) == len(rendered)
    assert (rendered == []) == (result.verdict == "equivalent")


def test_fingerprints_outlive_the_figures():
    moved = replace(FAILING.verification, layers=[replace(x, max_abs=9.0) for x in FAILING.verification.layers])
    for kind, path in (("gitlab", lambda t: [e["fingerprint"] for e in t]), ("sarif", lambda t: marks(t))):
        before, after = (json.loads(render(kind, x)) for x in (FAILING, replace(FAILING, verification=moved)))
        assert path(before) == path(after) and before != after
        elsewhere = replace(FAILING, folded=replace(FAILING.folded, path="other.onnx"))
        assert not set(path(before)) & set(path(json.loads(render(kind, elsewhere))))


def marks(rendered):
    return [result["fingerprints"]["bnfold/v1"] for result in rendered["runs"][0]["results"]]


@every
def test_sarif_keeps_to_its_schema(result):
    rendered = json.loads(render("sarif", result), parse_constant=pytest.fail)
    jsonschema.validate(rendered, schema("sarif-2.1.0-rtm.5.json"), jsonschema.Draft4Validator)
    (run,) = rendered["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules[:4] == ["bnfold/structure", "bnfold/weights", "bnfold/layers", "bnfold/outputs"]
    assert run["tool"]["driver"]["version"] == bnfold.__version__ and run["invocations"][0]["executionSuccessful"]
    wrong = sorted((c for c in entries(result.verification) if c.verdict != "pass"), key=lambda c: c.verdict != "fail")
    assert [r["level"] for r in run["results"]] == ["error" if c.verdict == "fail" else "warning" for c in wrong]
    for check, found in zip(wrong, run["results"], strict=True):
        assert rules[found["ruleIndex"]] == found["ruleId"] == f"bnfold/{check.check}"
        (location,) = found["locations"]
        assert unquote(location["physicalLocation"]["artifactLocation"]["uri"]) == relative(result.folded.path)
        logical = [where["name"] for where in location.get("logicalLocations", [])]
        assert logical == ([] if check.subject == "check" else [check.node or check.name])


def test_sarif_messages_hold_no_placeholder_and_no_link():
    texts = [r["message"]["text"] for r in json.loads(render("sarif", hostile(HOSTILE)))["runs"][0]["results"]]
    assert texts and all("{{0}}" in text and "](" not in text for text in texts)


@every
def test_intoto_is_a_statement_about_the_folded_model(result):
    rendered = json.loads(render("intoto", result), parse_constant=pytest.fail)
    jsonschema.validate(rendered, schema("intoto-test-result.schema.json"))
    assert rendered["subject"][0]["digest"] == {"sha256": "b" * 64}
    predicate = rendered["predicate"]
    original, tool = predicate["configuration"]
    assert original == {"name": "net.onnx", "digest": {"sha256": "a" * 64}}
    assert tool["annotations"]["bnfold_verdict"] == result.verdict
    lists = {"pass": "passedTests", "inconclusive": "warnedTests", "fail": "failedTests"}
    for verdict, name in lists.items():
        expected = [c for c in entries(result.verification) if c.verdict == verdict]
        assert len(predicate[name]) == len(expected)
        assert all(told_name.endswith(check.title) for told_name, check in zip(predicate[name], expected, strict=True))
    assert (
        predicate["result"] == {"equivalent": "PASSED", "different": "FAILED", "inconclusive": "WARNED"}[result.verdict]
    )


@pytest.mark.parametrize(
    ("path", "root", "plain", "encoded"),
    [
        ("a b/é%.onnx", None, "a b/é%.onnx", "a%20b/%C3%A9%25.onnx"),
        ("./a//x:y?#.onnx", None, "a/x:y?#.onnx", "a/x%3Ay%3F%23.onnx"),
        ("/repo/m/n.onnx", "/repo", "m/n.onnx", "m/n.onnx"),
        ("/repository/n.onnx", "/repo", "/repository/n.onnx", "file:///repository/n.onnx"),
        ("../n.onnx", "/repo", "../n.onnx", "../n.onnx"),
        ("raw\udcff.onnx", None, "raw\udcff.onnx", "raw%FF.onnx"),
    ],
)
def test_paths_and_uris(path, root, plain, encoded):
    assert (relative(path, root), uri(path, root)) == (plain, encoded)


def test_every_format_has_its_name_and_no_other():
    for kind in FORMATS:
        assert render(kind, PASSING, "/somewhere") == render(kind, PASSING) and render(kind, PASSING).endswith("\n")
    with pytest.raises(ValueError, match="yaml"):
        render("yaml", PASSING)


def unescape(text):
    for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, char)
    return text


@given(names)
@example(HOSTILE)
@example("a\u2028b\x85c%0A%25d")
def test_visible_text_is_one_line_and_keeps_what_can_be_seen(name):
    shown = visible(name)
    assert len(shown.splitlines()) <= 1 and shown.encode("utf-8").decode() == visible(shown)
    assert len(shown) >= len(name) and all(visible(letter) in shown for letter in name)
    assert name.isprintable() or shown != name


@given(names)
@example(HOSTILE)
@example("a\u2028b\x85c%0A%25d")
def test_no_name_breaks_the_xml(name):
    _, found = cases(hostile(name))
    assert [case.get("name") for case in found[2:4]] == [visible(name)] * 2
    assert found[0].find("failure").text == visible(f"in output {name}")
    assert properties(found[2])["node"] == visible(name)


@given(names)
@example(HOSTILE)
@example("a\u2028b\x85c%0A%25d")
def test_no_name_breaks_the_annotations(name):
    lines = render("github", hostile(name)).splitlines()
    assert len(lines) == 6
    for line in lines:
        level, title, message = line.removeprefix("::").split(" ", 1)[0], *line.split(" title=", 1)[1].split("::", 1)
        assert level in ("error", "warning") and "," not in title and ":" not in title
        assert line == f"::{level} title={title}::{message}"
    assert unescape(lines[1].split("::", 2)[2]) == harmless(visible(f"in output {name}"))
    title = unescape(lines[2].split("title=", 1)[1].split("::")[0])
    assert title == harmless(visible(f"bnfold: layers: {name}"))


@given(names)
@example("- x")
@example("    x")
def test_no_name_breaks_the_summary(name):
    rendered = step_summary(hostile(name))
    assert [t.type for t in MARKDOWN.parse(rendered)] == [t.type for t in MARKDOWN.parse(step_summary(hostile("x")))]
    tables = rows(rendered)
    assert [{len(row) for row in table} for table in tables] == [{3}, {7}, {8}]
    assert [row[0] for row in tables[1][1:]] == [visible(name)] * 2
    assert tables[0][1][2] == visible(f"in output {name}").strip()


@given(names)
def test_no_name_breaks_the_json(name):
    result = hostile(name)
    for kind in ("json", "gitlab", "sarif", "intoto"):
        rendered = render(kind, result)
        assert rendered.isascii() and json.loads(rendered, parse_constant=pytest.fail)
    place = json.loads(render("sarif", result))["runs"][0]["artifacts"][0]["location"]["uri"]
    assert urlsplit(place)[:2] == ("", "") and place.isascii() and place.isprintable() and " " not in place
