"""The known equivalent mutants stand for lines that exist."""

from tests.mutation.changes import functions
from tests.mutation.equivalents import equivalents
from tests.support import ROOT


def test_every_equivalent_mutant_names_one_line():
    """A line that has changed since needs to be looked at again; one that stands there twice says too little."""
    for (place, before, after), reason in equivalents().items():
        file, function = place.split()
        lines = (ROOT / file).read_text().splitlines()
        inside = [lines[number - 1].strip() for number in functions(ROOT / file)[function]]
        assert inside.count(before) == 1, (place, before)
        assert before != after
        assert reason.endswith(".")
