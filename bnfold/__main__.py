"""``python -m bnfold``."""

from bnfold.cli import run

if __name__ == "__main__":
    run()
