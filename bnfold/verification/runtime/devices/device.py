"""What the runs of models need to know of a device, as data: no device needs code of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Options = Mapping[str, str]
"""Options of one of onnxruntime's execution providers."""


@dataclass(frozen=True)
class RunMode:
    """How a model is run: onnxruntime's optimisation level and the options of the device's provider.

    ``tf32`` is True if products of float32 may be computed in TF32.
    """

    level: str
    options: Options = field(default_factory=dict)
    tf32: bool = False


@dataclass(frozen=True)
class Device:
    """A kind of device, or (with a ``number``) one of its kind, as onnxruntime's execution ``provider`` runs it.

    ``name`` is what ``--device`` calls it, ``label`` what messages do. ``hint`` says what to install where it is
    missing in a run, ``remedy`` the same for ``doctor``.

    ``comparison`` are the provider's options where rounding is judged. ``production``, if given, are those of a second
    run, in the lower precision that onnxruntime uses by default. ``known_options`` holds the values that each option
    may have: onnxruntime takes a misspelt option, or a bad value, for a reason to use the CPU without a word.

    ``memory`` is what onnxruntime calls its memory (None: inputs stay on the host); ``preloads`` asks for its libraries
    to be loaded first.
    """

    name: str
    label: str
    provider: str
    hint: str
    remedy: str
    comparison: Options = field(default_factory=dict)
    production: Options | None = None
    known_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: bool = False
    number: int = 0
    memory: str | None = None
    preloads: bool = False

    @property
    def is_host(self) -> bool:
        """True for the CPU itself, to which nodes fall back that another device has no kernel for."""
        return self.provider == HOST

    @property
    def spellings(self) -> list[str]:
        """How ``--device`` names it."""
        return [self.name, f"{self.name}:N"] if self.numbered else [self.name]

    def named(self, text: str) -> Device | None:
        """Return the device that ``text`` names; None if it names none of this kind."""
        name, colon, number = text.partition(":")
        if name != self.name or (colon and not (self.numbered and number.isdecimal())):
            return None
        return replace(self, number=int(number or 0))

    def provider_options(self, options: Options) -> dict[str, str]:
        """Return all that the provider is given. Raises ValueError for an option that it would not understand."""
        for name, value in options.items():
            if value not in self.known_options.get(name, ()):
                raise ValueError(f"{name}={value} is not an option of onnxruntime's {self.label} provider")
        return {**({"device_id": str(self.number)} if self.numbered else {}), **options}

    def modes(self, level: str, *, tf32: bool) -> list[RunMode]:
        """Return the runs that are compared: unoptimised, at ``level``, and at ``level`` as in production."""
        modes = [RunMode(one, self.comparison) for one in dict.fromkeys(("disable", level))]
        if tf32 and self.production is not None:
            modes.append(RunMode(level, self.production, tf32=True))
        return modes


HOST = "CPUExecutionProvider"
"""The provider that runs what no other does."""
