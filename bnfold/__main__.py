"""``python -m bnfold``."""

import os
import sys

# -m puts the current directory first: unless bnfold itself is there, nothing in it is to be imported. No pathlib here,
# whose own imports would already come from it.
if sys.path[0] == os.getcwd() and not __file__.startswith(sys.path[0] + os.sep):  # noqa: PTH109
    del sys.path[0]

from bnfold.cli.main import run

if __name__ == "__main__":
    run()
