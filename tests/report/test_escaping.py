"""Names from strangers: whatever a model, a path or an error says, terminals and workflow runners see plain text."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.report import bar
from bnfold.report.escaping import harmless, visible
from bnfold.report.formats.common import dumps
from bnfold.report.terminal import Terminal, redirect_warnings

NASTY = (
    "::error::a",
    "\n::stop-commands::b",
    "##[error]c",
    "###[group]d",
    "##vso[task.setvariable variable=e]f",
    "##teamcity[message text='g']",
    "\x1b]0;h\x07\x1b[31mi\x9b2J",
    "\u202ej\u2066k\u200bl\ufeffm\u2028n\xa0o\u3164p\ue000",
    "[bold red]q[/][link=https://e]r",
    " " * 130 + "::warning::s " + "##[debug]t",
    "\r::notice::u\x85v\x00w",
)
NAME = "".join(NASTY)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ORDINARY = "torch::nn::Conv [0] # ## a:b"


def assert_harmless(data, *, coloured=False, commands=False):
    """No byte of ``data`` that a terminal or a runner would obey, but for our colours and our own commands."""
    text = data.decode("utf-8")
    plain = COLOUR.sub("", text) if coloured else text
    for line in plain.removesuffix("\n").replace("\t", "").split("\n"):  # tabs part columns; names have none
        assert all(letter.isprintable() and unicodedata.category(letter) != "Cf" for letter in line), ascii(line)
        assert "\u3164" not in line
        assert not re.search(r"##[^\s\[]*\[", line), line
        if line.lstrip().startswith("::"):
            assert commands and re.match(r"::(error|warning|notice) title=bnfold", line), line


def named(text):
    """A name that says where it is, so that all of them differ."""
    return f"{NAME}{text}"


def conv_bn(source, target, at):
    """A convolution and its BatchNorm, with the constants."""
    names = [named(f"{at}{part}") for part in ("w", "s", "b", "m", "v")]
    values = [np.ones((2, 2, 1, 1), "f4"), *(np.full(2, 2.0, "f4") for _ in range(4))]
    held = [numpy_helper.from_array(value, name) for value, name in zip(values, names, strict=True)]
    nodes = [
        helper.make_node("Conv", [source, names[0]], [named(f"{at}c")], named(f"{at}conv"), doc_string=NAME),
        helper.make_node("BatchNormalization", [named(f"{at}c"), *names[1:]], [target], named(f"{at}bn")),
    ]
    return nodes, held


def hostile(path, domain=""):
    """A model in which everything that has a name has such a one: one BatchNorm folds, the others stay."""
    nodes, held = conv_bn(named("x"), named("n"), "0")
    both, more = conv_bn(named("n"), named("p"), "1")
    nodes += [*both, helper.make_node("Add", [named("p"), named("1c")], [named("y")], named("add"))]
    inner, kept = conv_bn(named("x"), named("z"), "2")
    inner.append(helper.make_node("Add", [named("z"), named("2c")], [named("i")], named("add2")))
    body = helper.make_graph(inner, NAME, [], [helper.make_tensor_value_info(named("i"), 1, None)], kept)
    nodes.append(helper.make_node("If", [named("q")], [named("o")], named("if"), then_branch=body, else_branch=body))
    if domain:
        nodes.append(helper.make_node(NAME, [named("y")], [named("u")], named("own"), domain=domain))
    held.append(numpy_helper.from_array(np.array(True), named("q")))
    infos = [helper.make_tensor_value_info(named("x"), TensorProto.FLOAT, [1, 2, 3, 3])]
    outputs = [helper.make_tensor_value_info(named(name), TensorProto.FLOAT, None) for name in ("y", "o")]
    graph = helper.make_graph(nodes, NAME, infos, outputs, held + more, doc_string=NAME)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=NAME, doc_string=NAME)
    model.metadata_props.add(key=NAME, value=NAME)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with hostile models, their folds, broken ones and data, under names of the same kind."""
    place = tmp_path_factory.mktemp("names")
    hostile(place / "m.onnx")
    hostile(place / "::error::a\n##[b]\x1b[1m\u202e.onnx")
    hostile(place / "own.onnx", domain=NAME)
    (place / "broken\n::error::c.onnx").write_bytes(b"no model")
    (place / "::d.onnx").write_bytes(onnx.load(place / "m.onnx").SerializeToString()[:400])
    np.savez(place / "data.npz", other=np.ones(3, "f4"))
    np.save(place / "data.npy", np.ones((1, 2, 3, 3), "f4"))
    run(place, "fold", "m.onnx", "-o", "f.onnx")
    return place


def run(place, *arguments, coloured=False, **environment):
    """The bytes of both streams."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "SYSTEMROOT") if key in os.environ}
    colour = {"FORCE_COLOR": "1"} if coloured else {}
    done = subprocess.run(
        [sys.executable, "-m", "bnfold", *arguments],
        cwd=place,
        env={**kept, "PYTHONUTF8": "1", **colour, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode != 70, done.stderr.decode()
    return done


CALLS = [
    ("inspect", "m.onnx"),
    ("inspect", "m.onnx", "--verbose"),
    ("inspect", "own.onnx", "--json", "-"),
    ("inspect", "m.onnx", "own.onnx", "--json", "-"),
    ("inspect", ".", "--jobs", "2"),
    ("inspect", "m.onnx", "--data", "data.npz"),
    ("inspect", "m.onnx", "--data", "data.npy", "--verbose"),
    ("fold", "m.onnx", "--dry-run", "--skip", NAME.replace("\0", "")),
    ("fold", "m.onnx", "--force", "--verbose"),
    ("fold", "own.onnx", "--force", "--verbose", "--report", "github"),
    ("fold", "m.onnx", "::error::a\n##[b]\x1b[1m\u202e.onnx", "broken\n::error::c.onnx", "--force", "--json", "-"),
    ("fold", "::error::a\n##[b]\x1b[1m\u202e.onnx", "--force", "--json", "-", "--report", "github"),
    ("fold", "m.onnx", "-o", "::g\n##[h].onnx", "--force", "--external-data", "always"),
    ("verify", "m.onnx", "f.onnx", "--verbose", "--report", "github"),
    ("verify", "m.onnx", "own.onnx", "--checks", "structure,weights", "--verbose", "--report", "github"),
    ("verify", "m.onnx", "f.onnx", "--inputs", "data.npz", "--json", "-"),
    ("verify", "::d.onnx", "f.onnx"),
    ("calibrate", "m.onnx", "--data", "data.npy", "--dry-run", "--verbose"),
    ("bench", "m.onnx", "f.onnx", "--runs", "5"),
    ("doctor", "--verbose", "--report\n::error::x"),
    (NAME.replace("\0", ""),),
    ("fold", "--device", "::x\n##[y]", "m.onnx"),
    ("fold", "--checks", NAME.replace("\0", ""), "m.onnx"),
    ("fold", f"--{NAME}".replace("\0", "")),
    ("verify", "--tf32", "\n##[y]"),
]


WAYS = [
    pytest.param(call, coloured, id=f"{ascii('_'.join(call))[1:40]}-{'coloured' if coloured else 'pipe'}",
                 marks=pytest.mark.slow if coloured != (place % 4 == 0) else ())
    for place, call in enumerate(CALLS)
    for coloured in (False, True)
]  # fmt: skip
"""Every call once, a quarter of them in colours, the others into pipes; both ways with ``-m slow``."""


@pytest.mark.parametrize(("call", "coloured"), WAYS)
def test_no_name_is_obeyed(place, call, coloured):
    done = run(place, *call, coloured=coloured)
    for stream in (done.stdout, done.stderr):
        assert_harmless(stream, coloured=coloured, commands="github" in call)
    if "-" in call:
        found = [json.loads(line) for line in done.stdout.splitlines()] if b"\n{" in done.stdout else None
        assert done.stdout.isascii() and (found or not done.stdout or json.loads(done.stdout))


def test_json_says_names_as_they_are(place):
    found = json.loads(run(place, "inspect", "m.onnx", "--json", "-").stdout)
    assert {row["name"] for row in found["batch_norms"]} >= {named("0bn"), named("1bn")}
    assert json.loads(dumps({"##[a": "b##"})) == {"##[a": "b##"} and "##" not in dumps("###[a")


def test_what_a_project_sets_is_not_obeyed(place, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.bnfold.fold]\ngates = "\\u001b[31m##[error]x\\n::error::y"\n')
    for arguments in (("fold", "--help"), ("fold", str(place / "m.onnx")), ("doctor",)):
        done = run(tmp_path, *arguments)
        assert_harmless(done.stdout)
        assert_harmless(done.stderr)


def test_verbose_tracebacks_are_not_obeyed(place):
    code = (
        "import sys, bnfold.api, bnfold.cli.main\n"
        f"def inspect(*_, **__): raise RuntimeError({NAME!r})\n"
        "bnfold.api.inspect = inspect\n"
        "sys.argv = ['bnfold', 'inspect', 'm.onnx', '--verbose']\n"
        "bnfold.cli.main.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, check=False)
    assert done.returncode == 70 and b"Traceback" in done.stderr
    assert_harmless(done.stderr)


def test_warnings_are_not_obeyed(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    redirect_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(NAME, stacklevel=1)
    shown_text = capsys.readouterr().err
    assert "UserWarning" in shown_text
    assert_harmless(shown_text.encode())


def test_a_bar_takes_no_name_for_markup(monkeypatch):
    monkeypatch.setattr(bar, "PATIENCE", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    stream.isatty = lambda: True
    with bar.Bar(stream) as shown_text:
        shown_text(1, 2, "::[bold]x\x07[/bold]##[y]")
        shown_text._bar.refresh()
    assert r"\x3a:[bold]x\x07[/bold]\x23#[y]" in COLOUR.sub("", stream.getvalue())


def test_what_is_no_command_stays_readable():
    assert visible(ORDINARY) == ORDINARY and harmless(ORDINARY) == ORDINARY
    assert harmless("torch::nn::Conv") == "torch::nn::Conv"
    assert harmless("  ::error::a::b") == r"  \x3a:error::a::b"
    assert harmless("a ##[b] ###x[c] ## [d]") == r"a \x23#[b] \x23\x23#x[c] ## [d]"
    assert harmless("\x1b[1m\x1b[31m::a\x1b[0m ##\x1b[0m[b") == "\x1b[1m\x1b[31m\\x3a:a\x1b[0m \\x23#\x1b[0m[b"
    assert visible("\n\x1b\u202e") == r"\n\x1b\u202e"


def test_a_cell_that_is_broken_starts_no_command(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for color in (False, True):
        stream = io.StringIO()
        terminal = Terminal(stream, color=color)
        terminal.table(("a",), [[("x" * 115 + " ::error::y " + "z" * 110 + " ::error::v", "red")]])
        terminal.line(("x" * 118, "bold"), " ::error::y")
        assert_harmless(stream.getvalue().encode(), coloured=color)
        assert stream.getvalue().count(":error::") == 3


def test_what_an_encoding_lacks_is_written_too(place):
    done = run(place, "fold", "m.onnx", "-o", "ascii.onnx", "--no-verify", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii() and rb"\u2192" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="closes a stream by the shell")
def test_closed_streams_are_no_bug(place):
    unverified = ("inspect m.onnx", "fold m.onnx --no-verify --force", "inspect m.onnx own.onnx")
    for closed, commands in (
        (">&-", unverified),
        ("2>&-", unverified[1:]),
        (">&- 2>&-", ["fold m.onnx --force"]),
    ):
        for words in commands:
            shell = f'exec "$0" -m bnfold {words} {closed}'
            assert subprocess.run(["sh", "-c", shell, sys.executable], cwd=place, check=False).returncode == 0
