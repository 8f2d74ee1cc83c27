"""``bnfold completion``: click's own shell completion, printed so that its variable need not be remembered."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EXAMPLES = """\b
bash: echo 'eval "$(bnfold completion bash)"' >> ~/.bashrc
zsh:  echo 'eval "$(bnfold completion zsh)"' >> ~/.zshrc
fish: bnfold completion fish > ~/.config/fish/completions/bnfold.fish
"""


@click.command("completion", epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the code that lets SHELL complete commands, options and their values."""
    kind = get_completion_class(shell)
    root = context.find_root()
    assert kind is not None
    click.echo(kind(root.command, {}, "bnfold", "_BNFOLD_COMPLETE").source())
