"""All devices: a new one is a file beside this one and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.errors import InconclusiveError, UsageError
from bnfold.verification.runtime.devices.cpu import CPU
from bnfold.verification.runtime.devices.cuda import CUDA
from bnfold.verification.runtime.devices.device import Device, RunMode

if TYPE_CHECKING:
    from bnfold.options import RunOptions

DEVICES = (CPU, CUDA)


def device_of(text: str) -> Device:
    """Return the device that ``text`` names, such as ``cpu`` or ``cuda:1``. Raises UsageError."""
    for device in DEVICES:
        if (found := device.named(text)) is not None:
            return found
    raise UsageError(f"--device {text}: not a device", f"use {spellings()}")


def spellings() -> str:
    """Return how devices are named, for a hint: ``cpu, cuda or cuda:N``."""
    *others, last = (spelling for device in DEVICES for spelling in device.spellings)
    return f"{', '.join(others)} or {last}"


def run_modes(options: RunOptions) -> list[RunMode]:
    """Return the runs that are compared: unoptimised, as deployed, and as deployed in lower precision."""
    return device_of(options.device).modes(options.level, tf32=options.tf32)


def device_missing(device: str, error: Exception) -> InconclusiveError:
    """Return what to tell a user whose device is not there."""
    return InconclusiveError(f"--device {device}: {error}", device_of(device).hint)
