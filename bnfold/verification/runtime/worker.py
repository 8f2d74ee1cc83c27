"""Runs of models on onnxruntime, in a process of its own, started by
:func:`bnfold.verification.runtime.runner.spawn`.

onnxruntime can crash, and a hostile model may provoke that: the tool itself must survive. This is the only
file that imports onnxruntime.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.runtime.devices import RunMode, device_of
from bnfold.verification.runtime.jobs import DeviceUnavailable, serve

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


PROGRESS = "progress"
"""The file, beside the job, to which a worker writes how far it is (:mod:`bnfold.progress`)."""


@dataclass(frozen=True)
class RunJob:
    """Run ``model`` in each mode on each of the ``samples``, which hold the ``inputs`` in this order."""

    model: str
    modes: list[RunMode]
    device: str
    inputs: list[str]
    samples: int


@dataclass(frozen=True)
class RunResult:
    """The names of the ``outputs``; name, operator and domain of each node ``on_cpu``; onnxruntime's ``version``."""

    outputs: list[str]
    on_cpu: list[list[str]]
    version: str


NUMPY = frozenset(
    f"tensor({name})"
    for name in (
        "float16",
        "float",
        "double",
        "bool",
        *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
    )
)
"""Types of outputs that numpy knows. onnxruntime returns some others as bare bits, which are no numbers."""


class Session:
    """One model on one device at one optimisation level.

    ``options`` go to the device's provider. A ``frugal`` one keeps no memory for its next run: for those who have one
    per layer. Raises DeviceUnavailable where it would silently run on another device.
    """

    def __init__(
        self,
        model: str | bytes,
        level: str,
        device: str = "cpu",
        options: Mapping[str, str] | None = None,
        *,
        deterministic: bool = True,
        threads: int = 0,
        frugal: bool = False,
    ) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
        settings.log_severity_level = 4 if frugal else 3
        settings.use_deterministic_compute = deterministic
        settings.intra_op_num_threads = threads
        settings.enable_cpu_mem_arena = settings.enable_mem_pattern = not frugal
        self._device = device_of(device)
        wanted = self._device.provider
        providers: list[Any] = ["CPUExecutionProvider"]
        if not self._device.is_host:
            if self._device.preloads and hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            if wanted not in onnxruntime.get_available_providers():
                raise DeviceUnavailable(f"this onnxruntime {onnxruntime.__version__} has no {self._device.label}")
            settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            providers.insert(0, (wanted, self._device.provider_options(options or {})))
        self._session = onnxruntime.InferenceSession(model, settings, providers=providers)
        used = self._session.get_providers()
        if used[0] != wanted:
            raise DeviceUnavailable(f"onnxruntime fell back to {used[0]}")
        self.inputs = [item.name for item in self._session.get_inputs()]
        self.outputs = [item.name for item in self._session.get_outputs()]
        self.on_cpu = [] if self._device.is_host else self._assigned_to_cpu()

    def _assigned_to_cpu(self) -> list[list[str]]:
        """Name, operator and domain of each node that onnxruntime put on the CPU."""
        found = []
        for part in self._session.get_provider_graph_assignment_info():
            if part.ep_name == "CPUExecutionProvider":
                found += [[node.name, node.op_type, node.domain] for node in part.get_nodes()]
        return found

    def bound(self, feed: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """A function that runs the model once on ``feed``, which lies on the device already, as its outputs will."""
        import onnxruntime

        inputs = {name: feed[name] for name in self.inputs if name in feed}
        memory, number = self._device.memory, self._device.number
        if memory is None:
            return lambda: self._session.run(self.outputs, inputs) and None
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, memory, number))
        for name in self.outputs:
            binding.bind_output(name, memory, number)

        def once() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return once

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in order. Raises ValueError for one that is not a tensor of numbers, or not of numpy's."""
        for item in self._session.get_outputs():
            if item.type.startswith("tensor(") and item.type not in NUMPY:
                raise ValueError(f"output {item.name!r} is a {item.type}, which numpy does not get from onnxruntime")
        outputs = self._session.run(self.outputs, {name: feed[name] for name in self.inputs if name in feed})
        for name, value in zip(self.outputs, outputs, strict=True):
            if np.asarray(value).dtype.kind not in "fiub":
                raise ValueError(f"output {name!r} is not a tensor of numbers that numpy knows")
        return [np.asarray(value) for value in outputs]


def run(job: RunJob, folder: Path) -> RunResult:
    """Run every sample in each mode, one session after the other; outputs go to ``output-<mode>-<sample>.npz``."""
    import onnxruntime

    names: list[str] = []
    on_cpu: list[list[str]] = []
    for number, mode in enumerate(job.modes):
        session = Session(job.model, mode.level, job.device, mode.options)
        names, on_cpu = session.outputs, on_cpu or session.on_cpu
        for sample in range(job.samples):
            outputs = session.run(load_arrays(folder / f"input-{sample}.npz", job.inputs))
            save_arrays(folder / f"output-{number}-{sample}.npz", outputs)
        del session
    return RunResult(names, on_cpu, onnxruntime.__version__)


_READING = threading.Lock()
"""numpy reads a file's header with ``ast``, which some releases of Python 3.11 can't do in two threads at once."""


def load_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays that were stored in order, under their names (names of tensors can't be names of zip members)."""
    with _READING, np.load(path, allow_pickle=False) as stored:
        return {name: stored[f"a{index}"] for index, name in enumerate(names)}


def save_arrays(path: Path, arrays: Iterable[NDArray[Any]]) -> None:
    """Store arrays in order, for :func:`load_arrays`."""
    stored: dict[str, Any] = {f"a{index}": array for index, array in enumerate(arrays)}
    np.savez(path, **stored)


if __name__ == "__main__":
    serve(sys.argv[1], RunJob, run)
