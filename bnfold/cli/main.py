"""The program: the group of commands, and what becomes of errors. Only this package prints or exits."""

from __future__ import annotations

import contextlib
import difflib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from bnfold.cli.commands import COMMANDS, Context, command_named
from bnfold.errors import BnfoldError, OutputError, UsageError
from bnfold.report.terminal import echo, echo_error, echo_lines, redirect_warnings
from bnfold.timing import Stopwatch
from bnfold.version import ONE_THREAD, __version__


class Commands(click.Group):
    """A group that imports a command's module only when the command is called."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now."""
        return command_named(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; for a misspelt one, suggest what was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean 'bnfold {near[0]}'?" if near else f"commands: {', '.join(COMMANDS)}"
            if args[0].endswith((".onnx", ".pt2")) or Path(args[0]).is_file():
                hint = f"did you mean 'bnfold fold {args[0]}'?"
            raise UsageError(f"no command is called {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line for each command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn every failure into its line, its hint and its exit code."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False, "obj": Stopwatch()}) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            sys.exit(code)
        except click.exceptions.NoArgsIsHelpError as error:
            echo_lines(error.ctx.get_help() if error.ctx else "", err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            path = "bnfold" if context is None else context.command_path
            fail(UsageError(error.format_message(), f"{path} --help lists the options"))
        except SystemExit as end:
            if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # click ends a closed pipe with 1: "no"
                sys.exit(OutputError.exit_code)
            sys.exit(end.code)
        except BrokenPipeError:
            sys.stdout = None  # the reading end is closed; the interpreter must not flush at its end
            sys.exit(OutputError.exit_code)
        except (KeyboardInterrupt, click.Abort):
            echo("interrupted", err=True)
            sys.exit(130)
        except Exception as error:
            if "--verbose" in sys.argv:
                _traceback()
            fail(explained(error))


def explained(error: Exception) -> BnfoldError:
    """Return any failure as one with a line, a hint and an exit code; an unexpected one is a bug."""
    if isinstance(error, BnfoldError):
        return error
    if isinstance(error, MemoryError):
        return OutputError(
            "there is not enough memory", "run it where there is more; --max-memory bounds what verifies"
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return OutputError(f"{where}{error.strerror or error}", "check paths, permissions and free space")
    bug = f"a bug in bnfold: {type(error).__name__}: {error}"
    return BnfoldError(bug, "please report it, with the output of the same command and --verbose")


def run() -> NoReturn:
    """Run the program. It starts and ends with no more than it needs, which is a third of a short run's time.

    Garbage is collected rarely, and not at all at the end; numpy's threads, of which only workers have use, are left to
    them (:func:`bnfold.verification.runtime.runner.spawn`).
    """
    gc.set_threshold(100_000, 50, 50)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", ONE_THREAD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    redirect_warnings()
    code: Any = 1
    try:
        main(prog_name="bnfold")
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def fail(error: BnfoldError) -> None:
    """Print an error's two lines and exit with its code."""
    with contextlib.suppress(OSError):
        echo_error(str(error), error.hint)
    sys.exit(error.exit_code)


def _traceback() -> None:
    import traceback

    echo_lines(traceback.format_exc(), err=True)


EXAMPLES = """\b
Examples:
  bnfold inspect model.onnx                   what would fold, and why not the rest
  bnfold fold model.onnx                      writes model.folded.onnx, verified
  bnfold verify model.onnx model.folded.onnx  the proof alone, as a pipeline's step
"""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(__version__, prog_name="bnfold")
@click.pass_context
def main(context: click.Context) -> None:
    """Remove BatchNormalization from trained networks, exactly, and prove it."""
    from bnfold.cli import project

    name = context.invoked_subcommand
    if name in project.COMMANDS:
        context.default_map = {name: project.defaults(project.find(), command_named(name))}
