"""Many random cases one after the other: how they ended is counted, and what raises is printed."""

from __future__ import annotations

import collections
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.fuzz.networks import Draw

Check = Callable[[Draw, Path, int], Mapping[str, int] | Iterable[str]]
"""One case, of random draws, a folder and its number: what to count."""


def run_cases(check: Check) -> None:
    """Run the cases that the command line asks for: ``COUNT [SEED]``. Each can be had again by its number and seed."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found: collections.Counter[str] = collections.Counter()
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        for index in range(count):
            rng = random.Random(seed * 1_000_003 + index)
            try:
                found.update(check(rng.randrange, Path(temporary), index))
            except Exception:  # a finding
                found["FAILED"] += 1
                print(f"case {index} of seed {seed}:\n{traceback.format_exc(limit=-3)}", flush=True)
    print(dict(found), f"{time.time() - start:.0f} s")
