"""Options that several commands share, and what they mean."""

from __future__ import annotations

import glob
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bnfold.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from bnfold.results.calibration import Drift


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``, ``--quiet``, ``--verbose``, ``--no-color``: every command has them."""
    for option in (
        click.option("--no-color", is_flag=True, help="Plain text (as does the variable NO_COLOR)."),
        click.option("--verbose", is_flag=True, help="Tell more; tracebacks for bugs."),
        click.option("--quiet", is_flag=True, help="Print errors only."),
        click.option(
            "--json",
            "json_file",
            metavar="FILE",
            type=FILE,
            help="Write the result as JSON; - for standard output.",
        ),
    ):
        function = option(function)
    return function


def external_data(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--external-data``: every command that writes a model has it."""
    option = click.option(
        "--external-data",
        type=click.Choice(["auto", "keep", "always", "never"]),
        default="auto",
        show_default=True,
        help="Whether weights lie in a file beside the model.",
    )
    return option(function)


def planning(function: Callable[..., Any]) -> Callable[..., Any]:
    """What may be folded: the same options for ``fold`` and ``inspect``."""
    for option in reversed(
        (
            click.option(
                "--freeze-initializers", is_flag=True, help="Make initializers that callers could override constants."
            ),
            click.option("--only-batchnorm", is_flag=True, help="Leave scale chains that are no BatchNorm."),
            click.option(
                "--merge-branches", is_flag=True, help="Merge parallel branches into one convolution (RepVGG)."
            ),
            click.option("--threshold", is_flag=True, help="Let BatchNorm, Relu, unpadded layer become Max and layer."),
            click.option(
                "--allow-unsafe-load",
                is_flag=True,
                help="Run TorchScript and pickled modules that you trust to load them; takes --shape.",
            ),
        )
    ):
        function = option(function)
    return function


def plan_options(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`bnfold.api.FoldOptions` that the options above ask for."""
    return {
        "freeze": given["freeze_initializers"],
        "scales": not given["only_batchnorm"],
        "threshold": given["threshold"],
        "merge": given["merge_branches"],
    }


def unsafe_shapes(given: dict[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """The shapes for models whose loading runs code; None unless that is allowed."""
    from bnfold.cli.verification_options import shape_of

    return dict(shape_of(text) for text in given["shape"]) if given["allow_unsafe_load"] else None


class _File(click.types.StringParamType):
    """A path, which a shell completes best itself; whether it exists is no matter of syntax."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty text, which an unset variable of a script leaves."""
        if value == "":
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        return [CompletionItem(incomplete, type="file")]


FILE = _File()


def expand(models: tuple[str, ...]) -> list[str]:
    """Files, globs and folders as one list of files (``-`` is standard input). Raises InputError."""
    files: list[str] = []
    for name in models:
        if not name:
            raise UsageError("a model's name is empty")
        if name != "-" and _is_folder(name):
            inside = (path for suffix in ("onnx", "pt2") for path in Path(name).glob(f"*.{suffix}"))
            found = sorted(str(path) for path in inside if ".folded" not in path.suffixes)
            if not found:
                raise InputError(f"{name}: no .onnx or .pt2 file in this folder, folded ones aside", "name the files")
            files += found
        elif name != "-" and glob.has_magic(name) and not Path(name).exists():
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise InputError(f"{name}: no file matches")
            files += found
        else:
            files.append(name)
    return files


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def check_json_target(target: str | None, *, model_on_stdout: bool = False) -> None:
    """Refuse a place for the JSON that would cost the user a file, before any work is done.

    Raises UsageError or OutputError.
    """
    if target is None:
        return
    if target == "-":
        if model_on_stdout:
            raise UsageError("--json -: standard output takes the model already", "name a file for one of them")
        return
    path = Path(target)
    try:
        if path.exists() and (not path.is_file() or path.read_bytes()[:1] not in (b"", b"{")):
            raise UsageError(f"--json {target}: exists and is no JSON", "name another file")
        if not path.absolute().parent.is_dir():
            raise OutputError(f"--json {target}: its folder does not exist")
    except OSError as error:
        raise OutputError(f"--json {target}: {error.strerror or error}") from None


def same_file(target: str | None, model: str) -> bool:
    """True if a place to write to is the model itself, by whatever name."""
    try:
        return target is not None and target != "-" and Path(target).samefile(model)
    except (OSError, ValueError):
        return False


def check_plot(target: str | None, models: list[str]) -> None:
    """Refuse a place for the picture that would cost the user a file, or where none can be."""
    if target is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", "pip install 'bnfold[plot]'")
    path = Path(target)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--plot {target}: must end in .svg, .png or .pdf")
    if any(same_file(target, model) for model in models):
        raise UsageError(f"--plot {target}: is a model", "name another file")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--plot {target}: its folder does not exist")


def draw_drifts(drifts: Mapping[str, Drift], model: str, target: str) -> None:
    """``--plot``: how far data are from the statistics. Raises OutputError."""
    from bnfold.calibration import plot
    from bnfold.report import figures

    figures.save(lambda: plot.draw(drifts, Path(model).name), target)


@contextmanager
def progress(given: dict[str, Any]) -> Iterator[None]:
    """A bar for work that takes long, on a terminal; nothing with ``--quiet``."""
    if given["quiet"] or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from bnfold.progress import listening
    from bnfold.report.bar import Bar

    with Bar(sys.stderr, color=not given["no_color"]) as bar, listening(bar):
        yield


def write_json(target: str | None, result: dict[str, Any], *, line: bool = False) -> None:
    """Write a result as JSON, or as one ``line`` of it among others. Raises OutputError."""
    if target is None:
        return
    from bnfold.report.formats.common import dumps

    text = dumps(result, line=line)
    if target == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None


def report_stream(json_file: str | None, model_on_stdout: bool) -> IO[str]:
    """Where the report for people goes: standard output, unless something else is written there."""
    return sys.stderr if json_file == "-" or model_on_stdout else sys.stdout
