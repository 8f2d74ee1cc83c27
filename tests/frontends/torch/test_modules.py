"""Every kind of module, as every form of program: folded or refused as the rules say, and equal to eager torch."""

from __future__ import annotations

import io
import math

import pytest

pytest.importorskip("torch")

import torch

from bnfold.api import FoldOptions, fold
from tests.frontends.torch.modules import KINDS, Kind


def cases():
    """Every kind in one form by default, some as they are saved; decomposed where that makes a difference."""
    for place, (name, kind) in enumerate(KINDS.items()):
        quick = {"saved" if place % 3 == 0 else "fresh"} | ({"decomposed"} if kind.decomposed is not None else set())
        for form in ("saved", "decomposed", "fresh", "strict"):
            yield pytest.param(name, form, id=f"{name}-{form}", marks=() if form in quick else pytest.mark.slow)


TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def exported(kind: Kind, form: str):
    torch.manual_seed(0)
    module, inputs = kind.module(), kind.drawn()
    dynamic = None
    if kind.dynamic:
        sizes = ({0: torch.export.Dim("batch", min=2, max=64)},)
        dynamic = sizes
    program = torch.export.export(module, inputs, strict=form == "strict", dynamic_shapes=dynamic)
    if form == "decomposed":
        program = program.run_decompositions()
    return (reloaded(program) if form == "saved" else program), inputs


def reloaded(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def run(program, inputs):
    return program.module()(*[tensor.clone() for tensor in inputs]).double()


def assert_close(original, folded, inputs):
    want, got = run(original, inputs), run(folded, inputs)
    scale = float(want.abs().max())
    assert float((want - got).abs().max()) <= TOLERANCES[inputs[0].dtype] * scale


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "form"), list(cases()))
def test_kinds_are_folded_or_refused_as_the_rules_say(name, form):
    kind = KINDS[name]
    program, inputs = exported(kind, form)
    before = {key: tensor.detach().clone() for key, tensor in program.state_dict.items()}
    result = fold(program, options=FoldOptions(verify=None))
    rows = result.inspection.batch_norms
    reasons = tuple(row.reason["code"] for row in rows if row.reason)
    if form == "decomposed" and kind.decomposed is not None:
        assert len(rows) - len(reasons) == kind.decomposed
    else:
        assert (len(rows) - len(reasons), reasons) == (kind.folded, kind.kept)
    assert_close(program, result.model, inputs)
    if kind.dynamic:
        assert_close(program, result.model, tuple(torch.cat([tensor] * 3) for tensor in inputs))
    again = reloaded(result.model)
    assert torch.equal(run(again, inputs), run(result.model, inputs))
    torch.export.unflatten(result.model)
    if form != "decomposed":
        result.model.run_decompositions()
    assert not fold(result.model, options=FoldOptions(verify=None)).inspection.foldable
    for key, tensor in program.state_dict.items() if name != "training_mode" else ():
        assert torch.equal(tensor, before[key]), f"{key} of the original has changed"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["conv2d_no_bias", "residual", "bfloat16", "no_grad", "in_place_of_a_view", "linear_3d"]
)
def test_the_verification_proves_folds(name):
    program, _ = exported(KINDS[name], "saved")
    result = fold(program)
    assert result.verdict == "equivalent", result.verification
    assert [check.check for check in result.verification.checks] == ["structure", "weights", "outputs"]


def test_there_are_enough_kinds():
    assert len(KINDS) >= 35
    assert math.fsum(kind.folded == 0 for kind in KINDS.values()) >= 8
