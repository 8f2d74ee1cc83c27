"""Parallel branches of a program become one convolution, and the proof follows."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402 - after the skip

from bnfold.api import FoldOptions, fold  # noqa: E402
from bnfold.options import VerifyOptions  # noqa: E402

PROOFS = VerifyOptions(("structure", "weights"))
CHANNELS = 6

FORMS = {
    "MobileOne": lambda m, x: m.three(x) + m.one(x) + m.itself(x),
    "RepVGGDW": lambda m, x: m.last(m.three(x) + m.one(x) + x),
    "RepMixer": lambda m, x: x + m.scale * (m.three(x) + m.one(x) - m.itself(x)),
    "the input less a branch": lambda m, x: x - m.three(x),
}


class Block(nn.Module):
    def __init__(self, form, groups):
        super().__init__()
        self.form = form
        self.three = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(CHANNELS)
        )
        self.one = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, groups=groups), nn.BatchNorm2d(CHANNELS))
        self.itself, self.last = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
        self.scale = nn.Parameter(torch.rand(CHANNELS, 1, 1))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        return torch.relu(self.form(self, x))


@pytest.mark.parametrize("groups", [1, CHANNELS])
@pytest.mark.parametrize("name", FORMS)
def test_a_block_becomes_one_convolution(name, groups):
    torch.manual_seed(0)
    block, x = Block(FORMS[name], groups).eval(), torch.randn(2, CHANNELS, 8, 8)
    result = fold(block, options=FoldOptions(merge=True, verify=PROOFS), example_inputs=(x,))
    assert result.verdict == "equivalent" and result.inspection.kept == 0
    calls = [str(node.target) for node in result.model.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.conv2d.default", "aten.relu.default"]
    torch.testing.assert_close(result.model.module()(x), block(x), rtol=1e-5, atol=1e-5)
