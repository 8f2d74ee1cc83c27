"""Parameters of commands: how groups of options become typed objects, and the types of single values."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


OTHERS = "Report"
"""The heading of options that are given none, ``--help`` itself among them: what every command has."""


def declared(shared: Decorator, section: str = OTHERS) -> Any:
    """Return a dataclass field whose value comes from a ``click.option``, which must have the field's name.

    ``section`` is the heading in ``--help`` under which it stands.
    """
    return field(metadata={"option": shared, "section": section})


def option(*names: str, section: str = OTHERS, **attributes: Any) -> Any:
    """Return a dataclass field that declares an option, with the arguments of ``click.option``."""
    return declared(click.option(*names, **attributes), section)


class SectionedCommand(click.Command):
    """A command whose ``--help`` lists options under headings. (click's own extensions for that decorate functions.)"""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Tell errors, of which click leaves some without it, which command's ``--help`` has the answer."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading, in the order in which they first occur; what has none comes last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        headings: dict[str | None, str] = getattr(self.callback, "sections", {})
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for param in sorted(options, key=lambda param: param.name not in headings):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(headings.get(param.name, OTHERS), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def takes(**groups: type[Any]) -> Decorator:
    """Give a command the options of dataclasses, and hand it an object of each under the name given here.

    The fields of the dataclasses are :func:`declared`; their order is that of ``--help``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            objects = {
                name: group(**{entry.name: values.pop(entry.name) for entry in fields(group)})
                for name, group in groups.items()
            }
            return function(**values, **objects)

        entries = [entry for group in groups.values() for entry in fields(group)]
        for entry in reversed(entries):  # as decorators: the last one is applied first
            entry.metadata["option"](command)
        command.sections = {entry.name: entry.metadata["section"] for entry in entries}  # type: ignore[attr-defined]
        return command

    return decorate


class AliasedOption(click.Option):
    """An option that can also be given by former names, which ``--help`` does not show."""

    def __init__(self, *arguments: Any, aliases: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.aliases = aliases

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the option under its own names and its aliases."""
        super().add_to_parser(parser, ctx)
        parser.add_option(obj=self, opts=list(self.aliases), dest=self.name, action="store", nargs=self.nargs)


class _File(click.types.StringParamType):
    """A path, which a shell completes best itself; whether it exists is not a matter of syntax."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty text, which an unset variable of a script leaves, and a URL."""
        if value == "":
            self.fail("it is empty", param, ctx)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(value)):
            raise UsageError(f"{value}: a URL, not a path", "download the file first and give its path")
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


FILE = _File()

DEVICE = click.option("--device", default="cpu", show_default=True, help="Where models run: cpu, cuda or cuda:N.")
INPUTS = click.option(
    "--inputs", metavar="PATH", type=FILE, help="Your data: .npz, .npy, or a folder with input_0.pb …"
)
SHAPE = click.option("--shape", multiple=True, metavar="NAME:DIMS", help="Shape of an input: x:1,3,224,224.")
RANGE = click.option("--range", "ranges", multiple=True, metavar="NAME:LO,HI", help="Range of an input's values.")
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the generated inputs.")
UNSAFE_SHAPE = click.option(
    "--shape", multiple=True, metavar="NAME:DIMS", help="With --allow-unsafe-load: x:1,3,224,224."
)
HTML_REPORT = click.option(
    "--report", "reports", multiple=True, metavar="html=FILE", help="Write a page (needs bnfold[html])."
)
EXTERNAL_DATA = click.option(
    "--external-data",
    type=click.Choice(["auto", "keep", "always", "never"]),
    default="auto",
    show_default=True,
    help="Whether weights lie in a file beside the model.",
)

SMALLEST_MEMORY = 2**20
"""Bytes below which a limit is a mistake: a number without its unit."""


def checked_device(text: str) -> str:
    """Return ``cpu``, ``cuda`` or ``cuda:N``. Raises UsageError."""
    from bnfold.verification.runtime.devices import device_of

    device_of(text)
    return text


def byte_count(text: str | None) -> int | None:
    """Return ``512MB``, ``2GiB`` and similar in bytes; units are powers of 1024. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None or not float(found[1]):
        raise UsageError(f"--max-memory {text}: not a size", "write 512MB or 2GB")
    size = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))
    if size < SMALLEST_MEMORY:
        raise UsageError(f"--max-memory {text}: {size} bytes, in which nothing runs", "write 512MB or 2GB")
    return size


def positive(option: str, value: float) -> float:
    """Return a finite number that is not negative. Raises UsageError."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{option} {value}: must be a finite number, not negative", "for example 1e-3")
    return value


def words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a comma-separated list, each once. Raises UsageError for one that is not ``known``."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise UsageError(f"{option}: names nothing", f"known: {', '.join(known)}")
    for word in found:
        if word not in known:
            near = get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"{option} {word}: not one of {', '.join(known)}", hint)
    return found


def shapes_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return shapes, each given as ``NAME:1,3,224,224``, by name. Raises UsageError."""
    return dict(map(_shape, texts))


def ranges_of(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return ranges of values, each given as ``NAME:LO,HI``, by name. Raises UsageError."""
    return dict(map(_range, texts))


RANGE_FORM = "the input's name, a colon, its least and its largest value"


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = text.rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
    except ValueError:
        shape = (-1,)
    if not name or any(dim < 0 for dim in shape):
        raise UsageError(f"--shape {text}: not of the form NAME:1,3,224,224", "the input's name, a colon, its sizes")
    return name, shape


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = text.rpartition(":")
    try:
        low, high = (float(limit) for limit in limits.split(","))
    except ValueError:
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI", RANGE_FORM) from None
    if name and low > high:
        raise UsageError(
            f"--range {text}: LO ({low:g}) is above HI ({high:g})", f"the least value first: {name}:{high:g},{low:g}"
        )
    if not name or not low <= high or not math.isfinite(high - low):
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI", RANGE_FORM)
    return name, (low, high)
