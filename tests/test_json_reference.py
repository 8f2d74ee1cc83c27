"""``docs/json.md`` is made from the schema; what the schema lacks, no command writes (``tests.support.call`` asks)."""

import importlib.util
import json
from dataclasses import fields

import jsonschema
import pytest

from bnfold.diagnostics import Finding
from bnfold.results.benchmark import Benchmark, Level
from bnfold.results.calibration import CalibratedRow, Calibration
from bnfold.results.drift import Drift
from bnfold.results.folding import BatchNormRow, Folding, Inspection
from bnfold.results.model import ModelInfo
from bnfold.results.verification import CheckResult, Comparison, LayerResult, OutputResult, Verification
from tests.support import ROOT, assert_described, call

DEFS = json.loads((ROOT / "bnfold/report/schema.json").read_text())["$defs"]
INSIDE = {
    Inspection: {"rows", "plans"},  # rows are batch_norms
    Folding: {"inspection", "model", "data"},  # its fields stand beside those of the fold
    Comparison: {"verification", "notes", "data"},  # likewise
    Calibration: {"info", "rows"},  # model, batch_norms
    CalibratedRow: {"after"},
}
"""What of a result is no field of its JSON."""


def reference():
    spec = importlib.util.spec_from_file_location("json_reference", ROOT / "docs/json_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_field_with_a_meaning():
    module = reference()
    page = module.on_page_markdown((ROOT / "docs/json.md").read_text())
    lines = [line for line in page.splitlines() if line.startswith("- `")]
    assert [line for line in lines if line.partition("): ")[2].strip() == ""] == []
    for name, found in DEFS.items():
        section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        for field in found.get("properties", {}):
            assert f"- `{field}` (" in section, (name, field)
    jsonschema.Draft202012Validator.check_schema({"$defs": DEFS})


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (BatchNormRow, "batch_norm"),
        (Inspection, "inspect"),
        (Folding, "fold"),
        (Comparison, "verify"),
        (Verification, "verification"),
        (CheckResult, "check"),
        (LayerResult, "layer"),
        (OutputResult, "output"),
        (Calibration, "calibrate"),
        (CalibratedRow, "calibrated_row"),
        (Drift, "drift"),
        (Benchmark, "bench"),
        (Finding, "check_up"),
        (ModelInfo, "model"),
    ],
)
def test_each_field_of_a_result_is_described(result, name):
    assert {field.name for field in fields(result)} - INSIDE.get(result, set()) <= set(DEFS[name]["properties"])


def test_a_level_is_described():
    assert {field.name for field in fields(Level)} - {"low", "high", "confidence"} <= set(DEFS["level"]["properties"])


def test_a_field_that_the_schema_lacks_is_noticed(samples):
    found = json.loads(call("inspect", samples / "two_consumers.onnx", "--json", "-").stdout)
    found["batch_norms"][0]["reason"]["color"] = "red"
    with pytest.raises(jsonschema.ValidationError, match="color"):
        assert_described(json.dumps(found))


def test_data_and_several_models_are_described(samples):
    call("inspect", samples / "digits_corrupted.onnx", "--data", samples / "digits_train.npz", "--json", "-")
    several = call("inspect", samples / "conv.onnx", samples / "digits.npz", "--json", "-")
    assert {json.loads(line).get("error") is None for line in several.stdout.splitlines()} == {True, False}
