"""How messages write numbers, counts, shapes and names: the same in text, JSON and reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def figure(value: float) -> str:
    """Return a measured number in three digits, with the shortest exponent: ``0.84``, ``1.1e10``, ``6e-07``."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def counted(number: int, noun: str) -> str:
    """Return ``1 layer``, ``3 layers`` or ``2 batches``."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('ch') else 's'}"


def duration(seconds: float) -> str:
    """Return ``0.84 s``, ``12 s`` or ``3 min 5 s``."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def shape(sizes: Iterable[object]) -> str:
    """Return the sizes of axes, as ``[2, 10]``."""
    return f"[{', '.join(map(str, sizes))}]"


def misfit_hint(sizes: Sequence[int] = (), declared: Sequence[object] = (), *, dtype: object | None = None) -> str:
    """Return what to do about an array that an input can't take: for its ``dtype`` if that is it, else its sizes."""
    if dtype is not None:
        return f"convert it as for training, scaling included: array.astype({str(dtype)!r})"
    if len(sizes) + 1 == len(declared):
        return "is the batch axis missing? add it: array[None]"
    return "give it the layout that the model declares; only the batch and other free axes may differ"


def inputs_differ(old: Sequence[str], new: Sequence[str]) -> str | None:
    """Return why a model can't be fed what the original is: it has an input that the original has not. Else None."""
    added = next((name for name in new if name not in old), None)
    return None if added is None else f"the models have different inputs: {added!r} is not in the original"


def names_change(noun: str, old: Sequence[str], new: Sequence[str]) -> str | None:
    """Return how the names of inputs or outputs differ, by the first that does; None if they are the same."""
    if list(old) == list(new):
        return None
    lost, added = [n for n in old if n not in new], [n for n in new if n not in old]
    if lost and added:
        return f"{noun} {lost[0]!r} is missing; the model has {added[0]!r}, which the original has not"
    if lost:
        return f"{noun} {lost[0]!r} is missing"
    if added:
        return f"{noun} {added[0]!r} is not in the original"
    return (
        f"the {noun}s are in another order"
        if len(old) == len(new)
        else f"it has {counted(len(new), noun)}, not {len(old)}"
    )
