"""The devices that models run on: one file each, listed in :mod:`bnfold.verification.runtime.devices.registry`."""

from bnfold.verification.runtime.devices.device import Device, RunMode
from bnfold.verification.runtime.devices.registry import DEVICES, device_of, run_modes, spellings

__all__ = ["DEVICES", "Device", "RunMode", "device_of", "run_modes", "spellings"]
