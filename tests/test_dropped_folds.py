"""A fold that fails its verification is left out, and the others are kept."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from bnfold.api import Refused, fold, inspect
from bnfold.options import FoldOptions, VerifyOptions
from bnfold.rules import conv
from tests.builders import batch_norm, bn_node, make, node, tensor, weights


def chain(blocks=3):
    """Return Conv, BatchNorm, Relu in a row."""
    held, nodes, value = {}, [], "x"
    for index in range(blocks):
        held |= {f"w{index}": weights(index, 4, 4, 3, 3), **batch_norm(f"bn{index}", 4, index)}
        nodes += [
            node("Conv", [value, f"w{index}"], [f"c{index}"], name=f"conv{index}", pads=[1, 1, 1, 1]),
            bn_node(f"c{index}", f"b{index}", f"bn{index}"),
            node("Relu", [f"b{index}"], [f"r{index}"]),
        ]
        value = f"r{index}"
    return make(nodes, [tensor("x", [2, 4, 16, 16])], [tensor(value, [2, 4, 16, 16])], held)


def wrong_rule(monkeypatch, *names):
    """Let the rule of convolutions be wrong by a tenth of a percent for these nodes; None for all."""
    real = conv.RULES["Conv"].rewrite

    def wrong(given, current):
        rewrite = real(given, current)
        if names and given.name not in names:
            return rewrite
        moved = {
            key: replace(new, gain=new.gain * 1.001) if key[1] == 1 else new for key, new in rewrite.constants.items()
        }
        return replace(rewrite, constants=moved)

    from bnfold.planner import apply

    rule = replace(conv.RULES["Conv"], rewrite=wrong)
    real_lookup = apply.lookup
    monkeypatch.setattr(apply, "lookup", lambda op: rule if op == "Conv" else real_lookup(op))


@pytest.mark.parametrize("checks", [("structure", "weights", "layers", "outputs"), ("structure", "weights")])
def test_a_fold_that_fails_is_left_out_and_the_others_kept(tmp_path, monkeypatch, checks):
    onnx.save(chain(), tmp_path / "m.onnx")
    wrong_rule(monkeypatch, "conv1")
    found = fold(tmp_path / "m.onnx", tmp_path / "f.onnx", FoldOptions(verify=VerifyOptions(checks=checks)))
    assert found.verdict == "equivalent"
    assert [row.status for row in found.inspection.rows] == ["folded", "kept", "folded"]
    reason = found.to_dict()["batch_norms"][1]["reason"]
    assert reason["code"] == "verification"
    assert "conv1" in reason["detail"]
    left = [made.op_type for made in onnx.load(tmp_path / "f.onnx").graph.node]
    assert left.count("BatchNormalization") == 1


def test_what_was_left_out_is_recorded_so_that_the_fold_can_be_made_again(tmp_path, monkeypatch):
    onnx.save(chain(), tmp_path / "m.onnx")
    wrong_rule(monkeypatch, "conv0", "conv2")
    assert fold(tmp_path / "m.onnx", tmp_path / "f.onnx").verification.origin == "bnfold"
    monkeypatch.undo()
    skipped = FoldOptions(skip=("b0", "b2"))
    fold(tmp_path / "m.onnx", tmp_path / "g.onnx", skipped)
    one, other = (onnx.load(tmp_path / name) for name in ("f.onnx", "g.onnx"))
    assert one.graph == other.graph


def test_where_nothing_is_left_to_fold_the_refusal_stays(tmp_path, monkeypatch):
    onnx.save(chain(), tmp_path / "m.onnx")
    wrong_rule(monkeypatch)
    with pytest.raises(Refused, match="check fails") as caught:
        fold(tmp_path / "m.onnx", tmp_path / "f.onnx")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "f.onnx").exists()
    assert caught.value.folding.verdict == "different"


def test_where_no_layer_is_named_the_refusal_stays(tmp_path, monkeypatch):
    """The outputs alone are judged: they name no layer."""
    onnx.save(chain(), tmp_path / "m.onnx")
    wrong_rule(monkeypatch, "conv1")
    with pytest.raises(Refused, match="outputs check fails"):
        fold(tmp_path / "m.onnx", tmp_path / "f.onnx", FoldOptions(verify=VerifyOptions(checks=("outputs",))))
    assert not (tmp_path / "f.onnx").exists()


def test_nodes_without_names_are_known_by_their_outputs(tmp_path, monkeypatch):
    model = chain()
    for made in model.graph.node:
        made.name = ""
    onnx.save(model, tmp_path / "m.onnx")
    wrong_rule(monkeypatch, "c1")
    found = fold(tmp_path / "m.onnx", tmp_path / "f.onnx")
    assert [row.status for row in found.inspection.rows] == ["folded", "kept", "folded"]


def test_a_program_of_pytorch_loses_the_one_fold_too(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    blocks = [
        torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        for _ in range(3)
    ]
    program = torch.export.export(torch.nn.Sequential(*blocks).eval(), (torch.zeros(2, 4, 16, 16),))
    torch.export.save(program, tmp_path / "m.pt2")
    name = [row.into[0] for row in inspect(tmp_path / "m.pt2").rows][1]
    wrong_rule(monkeypatch, name)
    found = fold(tmp_path / "m.pt2", tmp_path / "f.pt2")
    assert [row.status for row in found.inspection.rows] == ["folded", "kept", "folded"]
    assert found.inspection.rows[1].reason["code"] == "verification"
    assert found.verdict == "equivalent"
    folded = torch.export.load(tmp_path / "f.pt2").module()
    data = torch.randn(2, 4, 16, 16)
    assert np.allclose(folded(data).detach(), program.module()(data).detach(), atol=1e-4)
