"""Live programs and where they are written: never to standard output, and copies say how large they are."""

import pytest

torch = pytest.importorskip("torch")

from bnfold.api import FoldOptions, calibrate, fold  # noqa: E402
from bnfold.errors import UsageError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def exported(*layers):
    return torch.export.export(torch.nn.Sequential(*layers).eval(), (torch.ones(2, 3, 8, 8),))


def test_a_live_program_is_not_written_to_standard_output(capfdbinary):
    program = exported(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    for work in (
        lambda: fold(program, "-", FoldOptions(verify=None)),
        lambda: calibrate(program, torch.ones(2, 3, 8, 8).numpy(), "-"),
    ):
        with pytest.raises(UsageError, match="standard output"):
            work()
    assert capfdbinary.readouterr().out == b""


def test_a_copy_of_a_live_program_says_how_large_it_is(tmp_path):
    result = fold(exported(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU()), tmp_path / "copy.pt2")
    assert result.verdict == "unchanged"
    assert result.bytes["after"] == (tmp_path / "copy.pt2").stat().st_size > 0
