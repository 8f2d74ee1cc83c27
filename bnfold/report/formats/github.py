"""GitHub: workflow commands that become annotations, and the Markdown of a step's summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain

from bnfold.report.escaping import harmless, visible
from bnfold.report.formats.common import Entry, channels, entries, headline, number, problems, relative
from bnfold.results.verification import Comparison

LEVELS = {"fail": "error", "inconclusive": "warning", "pass": "notice"}
VERDICTS = {"different": "error", "inconclusive": "warning", "equivalent": "notice"}

WORST_FOLDS = 10
"""Folds that the summary lists."""

WORST_OUTPUTS = 50
"""Outputs that the summary lists."""

LONGEST = 200
"""Characters of a name or sentence in the summary, which may be 1 MiB at most as a whole."""


def render(comparison: Comparison, root: str | None = None) -> str:
    """Return one workflow command per line: the verdict, then each check that did not pass.

    GitHub shows ten errors, ten warnings and ten notices of a step; the checks come first.
    """
    lines = [_command(VERDICTS[comparison.verdict], f"bnfold: {comparison.verdict}", headline(comparison, root))]
    for entry in problems(comparison.verification):
        title = entry.title if entry.subject == "check" else f"{entry.check}: {entry.title}"
        lines.append(_command(LEVELS[entry.verdict], f"bnfold: {title}", entry.message))
    return "".join(f"{line}\n" for line in lines)


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property(harmless(visible(title)))}::{_data(harmless(visible(message)))}"


def _data(text: str) -> str:
    """Escape a command's data as GitHub's toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a command's property as GitHub's toolkit does."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def step_summary(comparison: Comparison, root: str | None = None) -> str:
    """Return Markdown for ``$GITHUB_STEP_SUMMARY``: the verdict, the checks, the worst folds, the outputs, the run."""
    judged = entries(comparison.verification)
    folded, original = (_code(relative(model.path, root)) for model in (comparison.folded, comparison.original))
    parts = (
        [f"## bnfold: {comparison.verdict}", "", f"{folded} against {original}", ""],
        [line for note in comparison.notes for line in (f"Note: {_markdown(note)}", "")],
        _checks([entry for entry in judged if entry.subject == "check"]),
        _folds([entry for entry in judged if entry.subject == "fold"]),
        _outputs([entry for entry in judged if entry.subject == "output"]),
        _run(comparison, root),
    )
    return "\n".join(chain.from_iterable(parts)) + "\n"


def _checks(found: list[Entry]) -> list[str]:
    rows = [(_code(entry.name), f"**{entry.verdict}**", _markdown(entry.message)) for entry in found]
    return ["### Checks", "", *_table(("check", "verdict", "detail"), rows)]


def _folds(found: list[Entry]) -> list[str]:
    if not found:
        return []
    head = ("fold", "check", "verdict", "error ratio", "max abs", "max ulp", "channels off")
    worst = sorted(found, key=_badness)[:WORST_FOLDS]
    rows = [
        (_code(entry.title), _code(entry.check), entry.verdict, *_figures(entry, "error_ratio", "max_abs", "max_ulp"))
        for entry in worst
    ]
    return [f"### Worst folds ({len(worst)} of {len(found)})", "", *_table(head, rows)]


def _outputs(found: list[Entry]) -> list[str]:
    if not found:
        return ["### Outputs", "", "None was compared.", ""]
    head = ("output", "verdict", "error ratio", "max abs", "max rel", "max ulp", "detection limit", "channels off")
    worst = sorted(found, key=_badness)[:WORST_OUTPUTS]
    names = ("error_ratio", "max_abs", "max_rel", "max_ulp", "detection_limit")
    rows = [(_code(entry.title), entry.verdict, *_figures(entry, *names)) for entry in worst]
    return [f"### Outputs ({len(worst)} of {len(found)})", "", *_table(head, rows)]


def _run(comparison: Comparison, root: str | None) -> list[str]:
    """Return device, inputs, versions and files, as a list."""
    verification = comparison.verification
    device, inputs = verification.device, verification.inputs
    used, asked = device.get("used"), device.get("asked")
    ran = "nothing was run" if used is None else str(used)
    lines = [
        f"- device: {_markdown(ran)}" + ("" if asked in (None, used) else f" (asked for: {_markdown(str(asked))})")
    ]
    if moved := device.get("nodes_on_cpu"):
        lines.append(f"- nodes that ran on the CPU all the same: {len(moved)}")
    if inputs.get("source") is not None:
        words = [f"{key} {value}" for key, value in inputs.items() if key not in ("source", "shapes", "kinds")]
        lines.append(f"- inputs: {_markdown(', '.join([str(inputs['source']), *words]))}")
        lines += [f"- {key}: {_markdown(str(inputs[key]))}" for key in ("kinds", "shapes") if inputs.get(key)]
    else:
        lines.append(f"- inputs: none; seed {_markdown(str(inputs.get('seed')))}")
    if verification.versions:
        parts = (_markdown(f"{package} {version}") for package, version in verification.versions.items())
        lines.append(f"- versions: {', '.join(parts)}")
    for role, model in (("original", comparison.original), ("folded", comparison.folded)):
        lines.append(f"- {role}: {_code(relative(model.path, root))}, sha256 {_code(model.sha256)}")
    return ["### Run", "", *lines]


def _badness(entry: Entry) -> tuple[int, float, float]:
    """Return a key that sorts the worst first: by verdict, then ratio, then ulps; NaN is worse than any number."""
    order = ("fail", "inconclusive", "pass").index(entry.verdict)
    figures = [entry.figures[name] or 0.0 for name in ("error_ratio", "max_ulp")]
    ratio, ulp = (math.inf if math.isnan(value) else value for value in figures)
    return order, -ratio, -ulp


def _figures(entry: Entry, *names: str) -> list[str]:
    return [*(number(entry.figures[name]) for name in names), channels(entry.figures["channels"])]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, with the blank line that ends it. The cells are Markdown already."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


_SPECIAL = re.compile(r"[\\`*_\[\]#|<>&~$:@^!]|(?<=www)\.", re.IGNORECASE)
"""What could start markup, HTML, a link, a mention or a table's next cell."""


def _markdown(text: str) -> str:
    """Return Markdown that shows just ``text``: special characters as numeric references, on one line."""
    text = visible(text)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)


def _code(text: str) -> str:
    """Return a name as code, by HTML, since no backtick can quote every name and GitHub links nothing in it."""
    return f"<code>{_markdown(text)}</code>"
