"""Compare what commands print with what pages and golden files show, on any processor.

A figure that depends on the processor (how large an error was) is shown as ``…``. Other decimal figures may differ in
their last digit; every other word is compared to the letter.
"""

import re

MEASURED = re.compile(r"(?:(?<=error ratio )|(?<=detection limit )|(?<=Took ))[\d.]+(?:e[+-]?\d+)?")
"""How large an error was, the detection limit, and how long it took."""

DECIMAL = re.compile(r"\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+")
CLOSE = 0.01
"""What rounding differently may change in a figure of three digits, relative to it."""


def shown(text: str) -> str:
    """Return the text as a page or a golden file shows it."""
    return MEASURED.sub("…", text)


def differences(shown_text: str, expected: str) -> list[str]:
    """Return the lines that differ, observed and expected ones."""
    lines = [[" ".join(line.split()) for line in shown(text).splitlines()] for text in (shown_text, expected)]
    longest = max(map(len, lines))
    pairs = zip(*(part + [""] * (longest - len(part)) for part in lines), strict=True)
    return [f"{one!r}, not {other!r}" for one, other in pairs if not _same(one, other)]


def _same(one: str, other: str) -> bool:
    if DECIMAL.sub("#", one) != DECIMAL.sub("#", other):
        return False
    figures = zip(DECIMAL.findall(one), DECIMAL.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= CLOSE * max(abs(float(a)), abs(float(b))) for a, b in figures)
