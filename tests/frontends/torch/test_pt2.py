"""The static check of a .pt2: whatever a file holds, nothing of it runs; what torch writes passes."""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.api import fold
from bnfold.errors import InputError
from bnfold.frontends.torch.load import load_program
from bnfold.io.expressions import symbolic
from bnfold.io.load import load
from bnfold.io.pt2 import checked
from bnfold.io.sniff import kind_of
from tests.frontends.torch.malicious_programs import ATTACKS, HARMLESS_AFTER_CHECK, harmless, packed
from tests.fuzz import byte_fuzz

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def members():
    return harmless()


def opened(path):
    """As a user's file is opened: what is no archive any more is tried as ONNX."""
    return load_program(path) if kind_of(path.read_bytes(), str(path)) == "pt2" else load(path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_file_runs(members, tmp_path, attack):
    marker, path = tmp_path / "marker", tmp_path / "model.pt2"
    path.write_bytes(ATTACKS[attack](members, marker))
    if attack in HARMLESS_AFTER_CHECK:
        assert load_program(path).program.example_inputs is None or not marker.exists()
    else:
        with pytest.raises(InputError, match=r"model\.pt2: ") as caught:
            opened(path)
        assert caught.value.hint
    assert not marker.exists()


def test_the_attacks_are_real(members, tmp_path):
    """Torch itself runs them: a check that keeps out what can do no harm would prove nothing."""
    code = "import torch, torch.export\n"
    markers = []
    for attack in ("sample inputs", "scripted sample", "pickled weights", "symbolic shapes", "name of an input"):
        path = tmp_path / f"{attack.replace(' ', '_')}.pt2"
        markers.append(path.with_suffix(".marker"))
        path.write_bytes(ATTACKS[attack](members, markers[-1]))
        code += f"try: torch.export.load({str(path)!r}).module()\nexcept Exception: pass\n"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True, env=os.environ)
    assert [marker.name for marker in markers if not marker.exists()] == []


def test_what_torch_writes_passes(members, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(packed(members))
    assert kind_of(path.read_bytes(), "model") == "pt2"
    program = load_program(path).program
    assert program.module()(torch.ones(3, 3, 8, 8)).shape == (3, 4, 6, 6)


def test_every_truncation_is_refused(members, tmp_path):
    data = packed(members)
    path = tmp_path / "cut.pt2"
    for length in [*range(1, 200, 7), *range(200, len(data), len(data) // 60)]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            opened(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_an_input_error_or_harmless(members, data):
    """Flipped bytes anywhere in the program's JSON: refused with a sentence, or read as something that can't run."""
    name = next(name for name in members if name.startswith("models/"))
    changed = bytearray(members[name])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        checked(packed({**members, name: bytes(changed)}), "damaged")
    except InputError as error:
        assert str(error).startswith("damaged: ")


def test_damaged_programs_end_with_a_line(members, tmp_path):
    """Members cut, changed and doubled, parts of their JSON moved about: read whole, inspected and folded."""
    data, rng, found = packed(members), random.Random(0), collections.Counter()
    for _ in range(150):
        byte_fuzz.attempt(byte_fuzz.damaged_archive(data, rng), tmp_path / "model.pt2", found)
    assert not {"TRACEBACK", "NOT ONE LINE"} & found.keys(), found
    assert found["exit code 4"] > 50
    assert found["read"] > 10


@pytest.mark.parametrize(
    "text",
    ["s0", "2*s0 + 1", "Symbol('s77', positive=True, integer=True)", "Max(1, s0//2)", "Pow(Symbol('s0'), Integer(2))"],
)
def test_sizes_are_arithmetic(text):
    symbolic(text)


@pytest.mark.parametrize(
    "text",
    [
        "exec('1')",
        "s0.__class__",
        "(lambda: 0)()",
        "[0][0]",
        "9**9**9",
        "((((9)**8)**8)**8)**8",
        "Pow(Pow(Pow(Pow(9, 8), 8), 8), 8)",
        "Rational('1e3000000000')",
        "Float('1e3000000000')",
        "1e3000000000",
        "Pow(Integer(2), Symbol('s0'))",
        "f'{s0}'",
        "x" * 5000,
        "s0 +",
    ],
)
def test_nothing_else_is(text):
    with pytest.raises(Exception, match=r"size|expression|text"):
        symbolic(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"serialized_exported_program.json": b"{}"}, "older torch"),
        ({"data/aotinductor/m/x.so": b"", "archive_format": b"pt2"}, "compiled package"),
        ({"readme.txt": b"hello"}, "no model"),
    ],
)
def test_other_archives_are_named(content, message):
    with pytest.raises(InputError, match=message):
        kind_of(packed(content), "file")


def test_torch_files_are_told_apart(tmp_path):
    module = torch.nn.Linear(2, 2)
    for name, saved, legacy in (
        ("weights", module.state_dict(), False),
        ("old weights", module.state_dict(), True),
        ("module", module, False),
        ("old module", module, True),
    ):
        path = tmp_path / "file"
        torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
        if "weights" in name:
            with pytest.raises(InputError, match="no graph"):
                kind_of(path.read_bytes(), "file")
        else:
            assert kind_of(path.read_bytes(), "file") == "pickle"
    torch.jit.script(module).save(tmp_path / "script")
    assert kind_of((tmp_path / "script").read_bytes(), "file") == "torchscript"


def test_sizes_that_follow_from_others(tmp_path):
    """Multiples of 8, as networks that halve their maps three times ask for."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4)).eval()
    height = torch.export.Dim("h", min=1, max=16)
    program = torch.export.export(module, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({2: 8 * height},))
    torch.export.save(program, tmp_path / "p.pt2")
    result = fold(tmp_path / "p.pt2")
    assert (result.inspection.kept, result.verdict) == (0, "equivalent")
