"""The commands by name. A command's module is imported only when it is called, which keeps the start short."""

from __future__ import annotations

import importlib

import click

from bnfold.report.escaping import harmless, visible

COMMANDS = {
    "fold": "Remove BatchNorms from a model, verify the result, write it.",
    "inspect": "Show every BatchNorm: where it would fold to, or why it is kept.",
    "verify": "Judge whether a folded model computes what the original computes.",
    "calibrate": "Recompute running statistics over data, and write the unfolded model.",
    "bench": "Measure how fast a model and its fold are, in interleaved runs.",
    "doctor": "Report what this machine can do, and what is missing for the rest.",
    "completion": "Print the shell code that completes bnfold's words.",
}
"""Each command and its line in ``bnfold --help``; ``bnfold.cli.NAME`` holds it as ``command``."""


class Context(click.Context):
    """A call, whose help may quote what a project's file sets."""

    def get_help(self) -> str:
        """Return the help, with nothing in it that a terminal or a workflow's runner would obey."""
        return "\n".join(harmless(visible(line)) for line in super().get_help().split("\n"))


def command_named(name: str) -> click.Command:
    """Import and return a command of :data:`COMMANDS`."""
    command: click.Command = importlib.import_module(f"bnfold.cli.{name}").command
    command.context_class = Context
    command.short_help = COMMANDS[name]
    return command
