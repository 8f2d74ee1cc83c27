"""Which option would fold a kept BatchNorm: named where a try folded it, and only there."""

import json

import onnx
import pytest

from bnfold import fold, inspect
from bnfold.models import onnx as onnx_models
from bnfold.options import FLAGS, FoldOptions
from tests.builders import batch_norm, between, node, parse, tensor, weights
from tests.planner.cases.constants import initializers_listed_as_inputs
from tests.planner.test_branch_merging import block
from tests.rules.cases.relu import (
    no_threshold_before_a_padded_conv,
    no_threshold_with_a_negative_scale,
    threshold_before_an_unpadded_conv,
)
from tests.support import call


def listed_as_inputs_behind_a_relu():
    """Return a BatchNorm that is kept for a Relu; that callers may override its weights does not matter."""
    model = between(node("Relu", ["t"], ["t2"]))
    model.graph.input.extend(tensor(t.name, list(t.dims)) for t in model.graph.initializer)
    return model


def batch_norm_behind_branches_of_a_relu():
    """Return a sum of a convolution and its input, which keeps its BatchNorm for the Relu on either side."""
    text = """(float[N, 4, 8, 8] x) => (float[] y) {
        r = Relu (x) a = Conv <pads = [1, 1, 1, 1]> (r, w) s = Add (a, r)
        b = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var) y = Relu (b)
    }"""
    model = parse(text, {"w": weights(1, 4, 4, 3, 3), **batch_norm("bn", 4)})
    model.graph.node[-2].name = "bn"
    return model


NAMED = {
    "merge": (block, "merge", "bn0"),
    "merge what is behind a sum": (batch_norm_behind_branches_of_a_relu, "merge", "bn"),
    "threshold": (threshold_before_an_unpadded_conv, "threshold", "bn"),
    "freeze": (initializers_listed_as_inputs, "freeze", None),
}


def listed_as_inputs_before_an_output():
    """Return a BatchNorm kept because its layer's weights may be overridden, and whose layer's value is an output."""
    model = initializers_listed_as_inputs()
    model.graph.output.append(onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, None))
    return model


UNNAMED = {
    "branches that do not align": lambda: block(pads=(0, 0, 2, 2), small=3),
    "a branch that is an output": lambda: block(tap=True),
    "a negative scale": no_threshold_with_a_negative_scale,
    "a padded layer": no_threshold_before_a_padded_conv,
    "a Relu, whatever is frozen": listed_as_inputs_behind_a_relu,
    "an output, whatever is frozen": listed_as_inputs_before_an_output,
}


@pytest.mark.parametrize("kind", NAMED)
def test_the_option_that_folds_it_is_named(kind, tmp_path):
    build, option, name = NAMED[kind]
    onnx.save(build(), tmp_path / "m.onnx")
    (kept,) = (row for row in inspect(tmp_path / "m.onnx").rows if row.status == "kept")
    assert kept.would_fold_with == [option] and (name is None or name in kept.name)
    for command in (("inspect",), ("fold", "--dry-run"), ("fold", "--no-verify", "--force")):
        result = call(*command, tmp_path / "m.onnx", "--json", tmp_path / "found.json")
        assert f"  help:     {FLAGS[option]} folds it" in result.stdout, result.output
        rows = json.loads((tmp_path / "found.json").read_text())["batch_norms"]
        assert [row["would_fold_with"] for row in rows if row["status"] == "kept"] == [[FLAGS[option]]]
    folded = fold(tmp_path / "m.onnx", tmp_path / "f.onnx", FoldOptions(verify=None, **{option: True}))
    assert folded.inspection.kept == 0


@pytest.mark.parametrize("kind", UNNAMED)
def test_no_option_is_named_that_does_not_fold_it(kind, tmp_path):
    onnx.save(UNNAMED[kind](), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.kept and not any(row.would_fold_with for row in found.rows)
    shown = call("inspect", tmp_path / "m.onnx").stdout
    assert "folds it" not in shown
    assert ("kept[overridable]" in shown) == ("--freeze-initializers alone is not enough" in shown)


def test_what_is_left_out_on_request_or_folds_anyway_is_not_tried(tmp_path, monkeypatch):
    tried = []
    prepare = onnx_models.OnnxModel.prepare

    def counting(self, options, **more):
        tried.append((options.merge, options.threshold, options.freeze))
        return prepare(self, options, **more)

    monkeypatch.setattr(onnx_models.OnnxModel, "prepare", counting)
    inspect(block(identity=False))
    assert tried == [(False, False, False)]
    tried.clear()
    inspect(block(), FoldOptions(skip=("b0",)))
    assert tried == [(False, False, False)]
    tried.clear()
    inspect(block())
    assert tried == [(False, False, False), (True, False, False)]
    tried.clear()
    inspect(block(), FoldOptions(merge=True))
    assert tried == [(True, False, False)]


def test_programs_of_torch_too(tmp_path):
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.identity = torch.nn.Conv2d(4, 4, 3, padding=1), *map(torch.nn.BatchNorm2d, (4, 4))

        def forward(self, x):
            x = torch.relu(x)
            return torch.relu(self.bn(self.conv(x)) + self.identity(x))

    program = torch.export.export(Block().eval(), (torch.randn(1, 4, 8, 8),))
    torch.export.save(program, tmp_path / "m.pt2")
    result = call("inspect", tmp_path / "m.pt2")
    assert "  help:     --merge-branches folds it" in result.stdout, result.output
    found = inspect(program)
    assert [row.would_fold_with for row in found.rows if row.status == "kept"] == [["merge"]]
