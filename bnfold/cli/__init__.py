"""The command line. Only this package prints or exits."""

from bnfold.cli.main import run

__all__ = ["run"]
