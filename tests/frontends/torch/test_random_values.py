"""Random values of programs: equal by their place in the proof, never merged, and not judged by runs."""

import pytest

from bnfold.api import verify
from bnfold.options import VerifyOptions

torch = pytest.importorskip("torch")


class Noisy(torch.nn.Module):
    """Conv and BatchNorm; behind them two random values, weighted: by ``rand_like`` or by a dropout that trains."""

    def __init__(self, *, dropout: bool, first: bool, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        torch.nn.init.constant_(self.bn.weight, gain)
        self.dropout, self.first = dropout, first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.conv(x))
        draw = (lambda v: torch.nn.functional.dropout(v, 0.5, training=True)) if self.dropout else torch.rand_like
        one, other = draw(y), draw(y)
        return y + (one if self.first else other) + 3 * other


@pytest.mark.parametrize("dropout", [False, True])
def test_random_values_of_torch(dropout, tmp_path):
    def saved(name, **options):
        path = tmp_path / name
        module = Noisy(dropout=dropout, **options).eval()
        torch.export.save(torch.export.export(module, (torch.randn(2, 3, 8, 8),)), path)
        return path

    original, other = saved("a.pt2", first=True), saved("b.pt2", first=False)
    wrong = saved("c.pt2", first=True, gain=1.01)
    checks = VerifyOptions(("structure", "weights"))
    assert verify(original, original, checks).verdict == "equivalent"
    assert verify(original, other, checks).verdict == "inconclusive"
    assert verify(original, wrong, checks).verdict == "different"
    outputs = verify(original, original, VerifyOptions(("outputs",))).verification.checks[-1]
    assert (outputs.verdict, len(outputs.figures["random"])) == ("inconclusive", 1)
