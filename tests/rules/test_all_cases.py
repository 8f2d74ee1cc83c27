"""The cases of all operators together."""

from tests.rules.all_cases import CASES
from tests.rules.case import check_further_outputs, folding


def test_variations_do_fold():
    """The variations of the cases would pass if none of them ever folded."""
    assert sum(check_further_outputs(case, most=1) for case in folding(CASES)) > 12
