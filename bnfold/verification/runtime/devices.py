"""The devices that models run on: the options of onnxruntime's provider for each, and the runs that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bnfold.options import RunOptions

COMPARISON_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
"""What the CUDA provider is told where rounding is judged: full float32, and the same algorithm every time."""


PRODUCTION_OPTIONS = {"use_tf32": "1", "arena_extend_strategy": "kSameAsRequested"}
"""What it is told for the second run: TF32, as onnxruntime does by default."""


KNOWN_OPTIONS: dict[str, tuple[str, ...]] = {
    "use_tf32": ("0", "1"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
"""onnxruntime takes a misspelt option, or a bad value, for a reason to use the CPU without a word: these are right."""


@dataclass(frozen=True)
class RunMode:
    """How a model is run: the optimisation level and the options of the CUDA provider."""

    level: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.options.items():
            if value not in KNOWN_OPTIONS.get(name, ()):
                raise ValueError(f"{name}={value} is not an option of onnxruntime's CUDA provider")

    @property
    def tf32(self) -> bool:
        """True if products of float32 may be computed in TF32."""
        return self.options.get("use_tf32") == "1"


def modes_of(options: RunOptions) -> list[RunMode]:
    """The runs that are compared: unoptimised, as deployed, and on CUDA as deployed with TF32."""
    settings = COMPARISON_OPTIONS if options.device != "cpu" else {}
    modes = [RunMode(level, settings) for level in dict.fromkeys(("disable", options.level))]
    if options.device != "cpu" and options.tf32:
        modes.append(RunMode(options.level, PRODUCTION_OPTIONS))
    return modes
