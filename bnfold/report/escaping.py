r"""Untrusted text, as it may be shown: names in models, paths, other libraries' messages.

:func:`visible` deals with what a terminal obeys (controls, changes of direction, line breaks), :func:`harmless` with
what the runner of a workflow obeys, which reads every line of a log: GitHub's ``::command::`` at the start of one, and
anywhere in it GitHub's and Azure's ``##[command]``, Azure's ``##vso[…]``, TeamCity's ``##teamcity[…]``.
"""

from __future__ import annotations

import re
from itertools import islice

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
"""What Python calls printable and is invisible: fillers, joiners, variation selectors."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")

_START = re.compile(r"\s*:(?=:)")


def visible(text: str) -> str:
    r"""Return ``text`` on one line, with everything that can't be seen written as Python would, such as ``\n``."""
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(_escaped(letter) if _is_hidden(letter) else letter for letter in text)


def _is_hidden(letter: str) -> bool:
    return not letter.isprintable() or _UNSEEN.match(letter) is not None


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def harmless(line: str) -> str:
    """Return a finished line, coloured or not, without what a workflow's runner would take for a command.

    Only the first character of such a sequence is escaped; colours don't count, since a runner may drop them.
    """
    parts = _COLOUR.split(line)  # colours are at the odd places
    letters = list("".join(parts[::2]))
    for at in _commands("".join(letters)):
        letters[at] = rf"\x{ord(letters[at]):02x}"
    rest = iter(letters)
    return "".join(part if place % 2 else "".join(islice(rest, len(part))) for place, part in enumerate(parts))


def _commands(plain: str) -> list[int]:
    """Return where something begins that a runner would obey. Each of several number signs may begin it."""
    start = _START.match(plain)
    found = [start.end() - 1] if start else []
    for word in re.finditer(r"\S+", plain) if "##" in plain else ():
        end = word[0].rfind("[")
        found += [word.start() + at for at in range(end - 1) if word[0].startswith("##", at)]
    return found
