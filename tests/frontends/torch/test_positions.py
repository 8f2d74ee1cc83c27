"""A BatchNorm behind a code of positions (PatchTST): the offset goes into layers that read a shift of their own."""

import pytest

from bnfold.api import fold

torch = pytest.importorskip("torch")

STEPS, WIDTH = 5, 8


class Encoder(torch.nn.Module):
    """Positions are added, batches and series become one axis, and a BatchNorm of the last one feeds two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = torch.nn.Linear(4, WIDTH), torch.nn.BatchNorm1d(WIDTH)
        self.first, self.second = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.positions = torch.nn.Parameter(torch.randn(STEPS, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coded = (self.embed(x) + self.positions).reshape(-1, STEPS, WIDTH)
        y = self.norm(coded.transpose(1, 2)).transpose(1, 2)
        return torch.sigmoid(self.first(y)) * torch.tanh(self.second(y)) + torch.sigmoid(coded)


def test_the_offset_beside_positions_is_followed(tmp_path):
    torch.manual_seed(0)
    network = Encoder().eval()
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(network.norm.bias)
    program = torch.export.export(network, (torch.randn(2, 3, STEPS, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    result = fold(tmp_path / "m.pt2", tmp_path / "f.pt2")
    assert result.verification.verdict == "equivalent"
    assert [row.status for row in result.inspection.batch_norms] == ["folded"]
