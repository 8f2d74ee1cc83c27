"""The command line as its users and other programs see it: transcripts, exit codes, JSON."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import onnx
import pytest

from bnfold.verification.runtime import runner as runtime
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights
from tests.support import GOLDEN, ROOT, SCHEMA, call
from tests.transcripts import differences, shown

TRANSCRIPTS = sorted(GOLDEN.glob("*.txt"))


@pytest.fixture
def here(tmp_path, monkeypatch, samples):
    """A folder with copies of the samples, as the working directory."""
    for path in samples.iterdir():
        if path.suffix in (".onnx", ".data", ".npz", ".pt2") and ".folded" not in path.name:
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcripts(path, here):
    """A golden file holds commands behind ``$`` and what each prints, its exit code last if it is not 0."""
    expected = path.read_text()
    if ".pt2" in expected:
        pytest.importorskip("torch")
    shown_text = []
    for line in expected.splitlines():
        if line.startswith("$ bnfold "):
            result = call(*line.removeprefix("$ bnfold ").split())
            output = "".join(f"{row.rstrip()}\n" for row in result.output.splitlines())
            shown_text.append(f"{line}\n{output}" + (f"[{result.exit_code}]\n" if result.exit_code else ""))
    if os.environ.get("BNFOLD_UPDATE_GOLDEN"):
        path.write_text(shown("\n".join(shown_text)))
    assert differences("\n".join(shown_text), expected) == []
    assert shown(expected) == expected, "a figure that depends on the processor"


@pytest.mark.parametrize("name", ["conv", "gemm_beta", "training_mode", "if_branches", "external_data"])
def test_json_follows_the_schema(name, here):
    for words in (
        ("inspect", f"{name}.onnx"),
        ("fold", f"{name}.onnx", "--range", "flag:0,1") if name == "if_branches" else ("fold", f"{name}.onnx"),
    ):
        result = call(*words, "--json", "-")
        assert result.exit_code == 0, result.output
        jsonschema.validate(json.loads(result.stdout), SCHEMA)
    if name != "training_mode":
        extra = ("--range", "flag:0,1") if name == "if_branches" else ()
        result = call("verify", f"{name}.onnx", f"{name}.folded.onnx", "--json", "-", *extra)
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        jsonschema.validate(data, SCHEMA)
        assert data["verdict"] == "equivalent"


def test_json_of_inspect_says_where_and_why(here):
    data = json.loads(call("inspect", "padded_conv_behind.onnx", "--json", "-").stdout)
    (row,) = data["batch_norms"]
    assert row["status"] == "kept"
    assert row["reason"]["code"] == "padding"
    assert data["summary"]["by_reason"] == {"padding": 1}
    data = json.loads(call("inspect", "conv.onnx", "--json", "-").stdout)
    (row,) = data["batch_norms"]
    assert (row["status"], row["direction"], row["into"]) == ("foldable", "upstream", ["conv"])


def test_several_models_go_to_a_folder_and_to_json_lines(here):
    pytest.importorskip("torch")
    result = call("fold", "conv.onnx", "half.onnx", "--output-dir", "out", "--json", "-", "--no-verify")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["output"]["path"] for line in lines] == ["out/conv.onnx", "out/half.onnx"]
    assert call("inspect", ".").exit_code == 0
    assert call("inspect", "conv*.onnx").exit_code == 0


def test_standard_input_and_output(here):
    data = (here / "conv.onnx").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "bnfold", "fold", "-"], input=data, capture_output=True, check=True, cwd=ROOT
    )
    assert [node.op_type for node in onnx.load_model_from_string(done.stdout).graph.node] == ["Conv", "Relu"]
    assert b"equivalent" in done.stderr


def test_verify_finds_the_original_by_provenance(here):
    assert call("fold", "conv.onnx").exit_code == 0
    result = call("verify", "conv.folded.onnx")
    assert result.exit_code == 0
    assert "found by the provenance" in result.output
    (here / "conv.onnx").write_bytes((here / "half.onnx").read_bytes())
    result = call("verify", "conv.folded.onnx")
    assert result.exit_code == 4
    assert "changed" in result.stderr
    (here / "conv.onnx").unlink()
    assert call("verify", "conv.folded.onnx").exit_code == 4
    assert "does not record which model" in call("verify", "half.onnx").stderr


def test_in_place_and_force(here):
    before = (here / "conv.onnx").read_bytes()
    assert call("fold", "conv.onnx", "-o", "conv.onnx").exit_code == 2
    assert call("fold", "conv.onnx", "-o", "conv.onnx", "--force").exit_code == 2
    assert (here / "conv.onnx").read_bytes() == before
    assert call("fold", "conv.onnx", "--in-place").exit_code == 0
    assert (here / "conv.onnx").read_bytes() != before


def test_dry_run_writes_nothing(here):
    files = sorted(os.listdir(here))
    result = call("fold", "conv.onnx", "--dry-run", "--json", "-")
    assert json.loads(result.stdout)["output"] is None
    assert sorted(os.listdir(here)) == files


def test_strict_only_and_skip(here):
    assert call("fold", "two_consumers.onnx", "--strict").exit_code == 1
    assert call("fold", "shared_weight.onnx", "--only", "bn1_bn", "--json", "one.json").exit_code == 0
    statuses = {row["name"]: row["status"] for row in json.loads(Path("one.json").read_text())["batch_norms"]}
    assert statuses == {"bn1_bn": "folded", "bn2_bn": "kept"}
    result = call("fold", "shared_weight.onnx", "--skip", "b1", "--json", "-", "--force")
    assert json.loads(result.stdout)["summary"]["by_reason"] == {"skipped": 1}


def test_a_model_that_can_not_be_fed_is_inconclusive(here):
    nodes = [node("Cast", ["s"], ["x"], to=1), node("Conv", ["x", "w"], ["c"]), bn_node("c", "y", "bn")]
    held = {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4)}
    model = make(nodes, [tensor("s", [1, 3, 8, 8], onnx.TensorProto.STRING)], [ANY], held)
    Path("strings.onnx").write_bytes(model.SerializeToString())
    assert call("fold", "strings.onnx", "-o", "out.onnx").exit_code == 0
    strict = ("--strict", "--checks", "outputs")
    assert call("fold", "strings.onnx", "-o", "strict.onnx", *strict).exit_code == 3
    assert call("fold", "strings.onnx", "conv.onnx", "--output-dir", "many", *strict).exit_code == 3
    result = call("verify", "strings.onnx", "out.onnx", "--checks", "outputs")
    assert result.exit_code == 3
    assert "can't be run" in result.output
    result = call("verify", "strings.onnx", "out.onnx")
    assert result.exit_code == 0 and "not required: the proof holds for all inputs" in result.output


def test_without_onnxruntime_the_weights_are_proved_and_it_says_so(here, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda: False)
    result = call("fold", "conv.onnx")
    assert result.exit_code == 0
    assert "pass  weights" in result.output
    assert "nothing was run" in result.output
    assert call("verify", "conv.onnx", "conv.folded.onnx").exit_code == 3


def test_a_bug_is_one_line_and_exit_code_70(here, monkeypatch):
    import bnfold.api

    def broken(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(bnfold.api, "inspect", broken)
    result = call("inspect", "conv.onnx")
    assert result.exit_code == 70
    assert result.stderr.startswith("error: a bug in bnfold: RuntimeError: two lines\n")
    assert "Traceback" not in result.stderr


def test_interrupting_exits_with_130(here, monkeypatch):
    import bnfold.api

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bnfold.api, "inspect", interrupted)
    assert call("inspect", "conv.onnx").exit_code == 130


@pytest.mark.parametrize(
    "words",
    [
        ("--shape", "x"),
        ("--shape", "x:a,b"),
        ("--range", "x:2,1"),
        ("--gen", "odd"),
        ("--checks", "all"),
        ("--device", "tpu"),
    ],
)
def test_wrong_options_exit_with_2(words, here):
    result = call("verify", "conv.onnx", "conv.onnx", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("fold", "conv.onnx", "--output-dir", "half.onnx"), 5),
        (("fold", "conv.onnx", "--output-dir", "half.onnx/sub"), 5),
        (("fold", "conv.onnx", "-o", "x" * 300), 5),
        (("fold", "x" * 300), 4),
        (("inspect", ""), 2),
        (("inspect", "conv.onnx", "--json", "half.onnx"), 2),
        (("fold", "conv.onnx", "--json", "conv.onnx"), 2),
        (("fold", "external_data.onnx", "-o", "external_data.data", "--force"), 2),
        (("fold", "conv.onnx", "-o", "new.onnx", "--json", "new.onnx"), 2),
        (("fold", "conv.onnx", "-o", "-", "--json", "-"), 2),
        (("fold", "conv.onnx", "--json", "nowhere/x.json"), 5),
        (("fold", "conv.onnx", "-o", "fifo", "--force"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--seed", "-1"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--gen", ""), 2),
        (("verify", "conv.onnx", "conv.onnx", "--range", "x:-inf,inf"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--range", "x:-1e308,1e308"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--rtol", "nan"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--k", "-1"), 2),
        (("verify", "conv.onnx", "conv.onnx", "--samples", "0"), 2),
        (("verify",), 2),
        (("verify", "conv.onnx", "conv.onnx", "--shape", "x:0,3,8,8"), 3),
        (("verify", "conv.onnx", "conv.onnx", "--inputs", "bad.npz"), 4),
        (("verify", "conv.onnx", "conv.onnx", "--inputs", "empty.npz"), 4),
        (("verify", "conv.onnx", "conv.onnx", "--inputs", "folder"), 4),
    ],
)
def test_wrong_calls_end_in_a_line_and_their_code(words, code, here):
    os.mkfifo("fifo")
    Path("bad.npz").write_bytes(b"PK\3\4garbage")
    Path("empty.npz").write_bytes(b"")
    Path("folder").mkdir()
    Path("folder/input_0.pb").write_bytes(b"\xff\xff\xff")
    before = {name: Path(name).read_bytes() for name in ("conv.onnx", "half.onnx", "external_data.data")}
    result = call(*words)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ") or code == 3
    assert {name: Path(name).read_bytes() for name in before} == before


def test_a_full_device_is_an_output_error(here):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bnfold", "inspect", str(here / "conv.onnx")], stdout=full, stderr=subprocess.PIPE,
            check=False, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 5
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["picture.svg", "picture.html"])
def test_the_neighbourhood_is_drawn_with_the_transforms(name, here):
    from xml.etree import ElementTree

    assert call("inspect", "two_consumers.onnx", "--graph", name).exit_code == 0
    text = Path(name).read_text()
    assert "kept, consumers" in text
    assert "Sigmoid" in text
    assert call("inspect", "digits.onnx", "--graph", name).exit_code == 0
    text = Path(name).read_text()
    assert text.count("folds into the previous layer") == 3
    assert 'class="map"' in text
    if name.endswith("svg"):
        ElementTree.fromstring(text)
    assert call("inspect", "digits.onnx", "--graph", "picture.png").exit_code == 2
    assert call("inspect", "conv.onnx", "half.onnx", "--graph", name).exit_code == 2


def test_names_that_nobody_has_are_refused_with_a_suggestion(here):
    result = call("fold", "conv.onnx", "--only", "bn_bm")
    assert result.exit_code == 2
    assert "did you mean 'bn_bn'?" in result.stderr
    assert call("fold", "conv.onnx", "--skip", "zzz").exit_code == 2


def test_one_failing_model_does_not_stop_the_others(here):
    result = call(
        "fold", "conv.onnx", "nope.onnx", "half.onnx", "--output-dir", "out", "--no-verify", "--json", "all.jsonl"
    )
    assert result.exit_code == 4
    assert "nope.onnx" in result.stderr
    assert sorted(os.listdir("out")) == ["conv.onnx", "half.onnx"]
    assert len(Path("all.jsonl").read_text().splitlines()) == 3


def test_inputs_that_the_model_refuses_are_the_users_mistake(here):
    import numpy as np

    np.save("bad.npy", np.zeros((1, 3, 8), "f4"))
    result = call("fold", "conv.onnx", "--inputs", "bad.npy")
    assert result.exit_code == 4
    assert not Path("conv.folded.onnx").exists()
    assert call("verify", "conv.onnx", "conv.onnx", "--shape", "x:1,2,8,8").exit_code == 2


def test_verify_does_not_take_a_model_for_its_own_original(here):
    assert call("fold", "conv.onnx", "--output-dir", "out").exit_code == 0
    result = call("verify", "out/conv.onnx")
    assert result.exit_code == 4
    assert "not beside it" in result.stderr


def test_models_that_have_nothing_in_common_are_different(here):
    data = json.loads(call("verify", "conv.onnx", "half.onnx", "--json", "-").stdout)
    assert data["verdict"] == "different"
    data = json.loads(call("verify", "conv.onnx", "conv.onnx", "--json", "-").stdout)
    assert data["verdict"] == "equivalent"


def test_bare_call_shows_the_help(here):
    result = call()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


class TestReports:
    """``--report``: written beside the answer, never over a model."""

    @pytest.mark.parametrize("kind", ["json", "junit", "sarif", "gitlab", "intoto"])
    def test_files(self, here, kind):
        call("fold", "conv.onnx", "--no-verify")
        result = call("verify", "conv.onnx", "conv.folded.onnx", "--report", f"{kind}=report.out")
        assert result.exit_code == 0
        text = Path("report.out").read_text()
        assert text.startswith("<?xml" if kind == "junit" else "[" if kind == "gitlab" else "{")

    def test_github(self, here, monkeypatch):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        result = call("fold", "conv.onnx", "--report", "github")
        assert result.exit_code == 0
        assert "::notice" in result.stdout
        assert "equivalent" in Path("summary.md").read_text()

    @pytest.mark.parametrize(
        ("report", "message"),
        [
            ("junti=x.xml", "did you mean 'junit'"),
            ("junit", "write junit=FILE"),
            ("github=x", "github takes no file"),
            ("pdf=x.pdf", "no such report"),
            ("junit=conv.onnx", "is a model"),
            ("junit=conv.onnx/x.xml", "there is a file where"),
        ],
    )
    def test_refused(self, here, report, message):
        before = Path("conv.onnx").read_bytes()
        result = call("verify", "conv.onnx", "conv.onnx", "--report", report)
        assert result.exit_code in (2, 5)
        assert message in result.stderr
        assert Path("conv.onnx").read_bytes() == before

    def test_a_failed_fold_is_reported_too(self, here, monkeypatch):
        import bnfold.planner.apply as apply

        honest = apply.rounded
        monkeypatch.setattr(apply, "rounded", lambda values, dtype: honest(values * 1.01, dtype))
        result = call("fold", "conv.onnx", "--report", "junit=r.xml")
        assert result.exit_code == 1
        assert "<failure" in Path("r.xml").read_text()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "tpu", "not a device"),
        ("--device", "cuda:x", "not a device"),
        ("--weight-policy", "loose", "neither 'exact' nor"),
        ("--max-memory", "much", "not a size"),
        ("--max-memory", "2", "in which nothing runs"),
        ("--checks", "structure,weight", "not one of"),
        ("--time-limit", "-1", "not negative"),
    ],
)
def test_wrong_values_of_verification_options(here, option, value, message):
    result = call("verify", "conv.onnx", "conv.onnx", option, value)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "checks", ["structure", "weights", "layers", "outputs", "layers,structure", "weights,structure"]
)
def test_checks_can_be_chosen(here, checks):
    call("fold", "conv.onnx", "--no-verify")
    data = json.loads(call("verify", "conv.onnx", "conv.folded.onnx", "--checks", checks, "--json", "-").stdout)
    assert {check["check"] for check in data["checks"]} == set(checks.split(","))
    enough = checks == "outputs" or {"structure", "weights"} <= set(checks.split(","))
    assert data["verdict"] == ("equivalent" if enough else "inconclusive")


@pytest.mark.parametrize("words", [("--gates", "structure"), ("--gates=structure",), ("--checks", "structure")])
def test_checks_have_a_hidden_alias(words, here):
    call("fold", "conv.onnx", "--no-verify")
    data = json.loads(call("verify", "conv.onnx", "conv.folded.onnx", *words, "--json", "-").stdout)
    assert [check["check"] for check in data["checks"]] == ["structure"]
    assert "gates" not in call("verify", "--help").output
    wrong = call("verify", "conv.onnx", "conv.folded.onnx", "--gates", "all")
    assert wrong.exit_code == 2
    assert "--checks all: not one of" in wrong.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "digits.onnx", "--data", ""),
        ("verify", "conv.onnx", "conv.onnx", "--inputs", ""),
        ("fold", "conv.onnx", "-o", ""),
        ("fold", "conv.onnx", "--output-dir", ""),
    ],
)
def test_an_empty_path_is_no_path(words, here):
    """As an unset variable of a script leaves it: not the current folder, nor as if nothing had been said."""
    result = call(*words)
    assert result.exit_code == 2
    assert "is empty" in result.stderr


@pytest.mark.parametrize("kind", ["json", "junit", "sarif", "html"])
@pytest.mark.parametrize("file", ["external_data.data", "digits_train.npz", "half.onnx"])
def test_a_report_replaces_no_data(kind, file, here):
    before = (here / file).read_bytes()
    words = ("verify", "external_data.onnx", "external_data.onnx", "--checks", "structure,weights")
    result = call(*words, "--report", f"{kind}={file}")
    assert result.exit_code == 2
    assert "is no report" in result.stderr
    assert (here / file).read_bytes() == before
    assert call(*words, "--report", f"{kind}=report").exit_code == 0
    assert call(*words, "--report", f"{kind}=report").exit_code == 0
