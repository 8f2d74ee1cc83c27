"""``docs/reasons.md``: a section for each code, whose model is run, and whose report is what ``inspect`` prints.

``BNFOLD_UPDATE_GOLDEN=1`` writes causes and reports again.
"""

import os
import re
import textwrap

import onnx
import onnx.parser
import pytest

from bnfold.rules.reasons import REASONS
from tests.support import ROOT, call
from tests.transcripts import differences

PAGE = ROOT / "docs" / "reasons.md"
HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
TENSORS = """<float[2,2,1,1] w = {1, 2, 3, 4}, float[2] s = {2, -1}, float[2] b = {1, 0.5},
float[2] m = {0.5, 1}, float[2] v = {1, 2}>
"""
"""What the page says that an example has where it shows nothing else."""

SECTION = re.compile(r"^## ([a-z-]+)\n\n(.*?)(?=^## |\Z)", re.S | re.M)
MODEL = re.compile(r"```onnx\n(.*?)```", re.S)
REPORT = re.compile(r"```console\n\$ bnfold (.*?)\n(.*?)```", re.S)
WITHOUT_EXAMPLE = {"verification"}
"""A check that fails: only a fault of bnfold or of the runtime shows it (tests/test_dropped_folds.py)."""


def sections():
    return dict(SECTION.findall(PAGE.read_text()))


def build(text):
    """Return the model that an example of the page stands for."""
    if text.startswith("<ir_version"):
        return onnx.parser.parse_model(text)
    if not text.startswith("net ("):
        text = f"net (float[1,2,4,4] x) => (float[1,2,4,4] y)\n{{\n{text}}}"
    head, brace, body = text.partition("{")
    tensors = "" if "<" in head else TENSORS
    return onnx.parser.parse_model(HEADER + (text if "<" in head else head + tensors + brace + body))


def example(code):
    return MODEL.search(sections()[code])[1]


def reported(words):
    """Return what a command prints, as a page shows it."""
    result = call(*words.split())
    assert result.exit_code == 0, result.output
    return "".join(f"{line.rstrip()}\n" for line in result.output.splitlines())


def test_each_code_has_a_section_with_its_cause():
    found = sections()
    assert list(found) == list(REASONS)
    if os.environ.get("BNFOLD_UPDATE_GOLDEN"):
        text = PAGE.read_text()
        for code, (why, _) in REASONS.items():
            cause, _, rest = found[code].partition("\n\n")
            text = text.replace(f"## {code}\n\n{cause}\n\n{rest}", f"## {code}\n\n{textwrap.fill(why, 99)}\n\n{rest}")
        PAGE.write_text(text)
    causes = {code: " ".join(text.partition("\n\n")[0].split()) for code, text in sections().items()}
    assert causes == {code: why for code, (why, _) in REASONS.items()}


@pytest.mark.parametrize("code", [code for code in REASONS if code not in WITHOUT_EXAMPLE])
def test_an_example_is_kept_for_its_reason(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = sections()[code]
    onnx.save(build(MODEL.search(section)[1]), f"{code}.onnx")
    words, expected = REPORT.search(section).groups()
    printed = reported(words)
    assert f"kept[{code}] bn" in printed
    if os.environ.get("BNFOLD_UPDATE_GOLDEN"):
        old, new = (f"```console\n$ bnfold {words}\n{output}```" for output in (expected, printed))
        PAGE.write_text(PAGE.read_text().replace(old, new))
        expected = printed
    assert differences(printed, expected) == []


def one_copy_more(text):
    """Give the BatchNorm a Conv of its own."""
    own = text.replace("[bn] n = BatchNormalization (t,", "[own] o = Conv (x, w)\n[bn] n = BatchNormalization (o,")
    assert own != text
    return own


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [
        ("consumers", one_copy_more, ()),
        ("conditioning", one_copy_more, ()),
        ("graph-output", lambda text: text.replace(", float[1,2,4,4] t", ""), ()),
        ("padding", lambda text: text.replace("<pads = [1, 1, 1, 1]>", ""), ()),
        ("training-mode", lambda text: text.replace(", m1, v1", "").replace("training_mode = 1", "epsilon = 1e-3"), ()),
        ("dynamic-weights", lambda text: text.replace(", float[2,2,1,1] kernel", "").replace("kernel", "w"), ()),
        ("dynamic-statistics", lambda text: text.replace(", float[2] mean", "").replace("mean", "m"), ()),
        ("overridable", str, ("--freeze-initializers",)),
        ("unknown-shape", lambda text: text.replace("H,W", "8,8"), ()),
        ("skipped", str, ()),
    ],
)
def test_what_the_page_proposes_folds(code, change, words, tmp_path):
    onnx.save(build(change(example(code))), tmp_path / "m.onnx")
    result = call("inspect", tmp_path / "m.onnx", *words)
    assert "1 of 1 BatchNorm" in result.output
