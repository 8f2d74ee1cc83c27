"""Weight standardization of programs: the batch_norm of a weight is computed once, and is no bug of the export."""

import pytest

from bnfold.api import fold

torch = pytest.importorskip("torch")


class Standardized(torch.nn.Conv2d):
    """A Conv2d whose weights F.batch_norm standardizes, as timm's ScaledStdConv2d does it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = torch.nn.functional.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6)
        return torch.nn.functional.conv2d(x, weight.reshape_as(self.weight), self.bias)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decomposed", [False, True])
def test_standardized_weights_are_computed(decomposed, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(Standardized(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(network, (x,))
    torch.export.save(program.run_decompositions() if decomposed else program, tmp_path / "m.pt2")
    result = fold(tmp_path / "m.pt2", tmp_path / "f.pt2")
    assert result.verification.verdict == "equivalent"
    assert [row.status for row in result.inspection.batch_norms] == ["folded", "folded"]
    assert [row.warnings for row in result.inspection.batch_norms] == [[], []]
    folded = torch.export.load(tmp_path / "f.pt2")
    assert "batch_norm" not in str(folded.graph)
    torch.testing.assert_close(folded.module()(x), network(x), rtol=1e-4, atol=1e-5)
