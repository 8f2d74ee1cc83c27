"""Devices as ``--device`` names them, and how models are run there."""

import pytest

from bnfold.errors import UsageError
from bnfold.options import RunOptions
from bnfold.verification.runtime.devices import DEVICES, device_of, run_modes


@pytest.mark.parametrize(
    ("text", "provider", "options"),
    [
        ("cpu", "CPUExecutionProvider", {}),
        ("cuda", "CUDAExecutionProvider", {"device_id": "0"}),
        ("cuda:12", "CUDAExecutionProvider", {"device_id": "12"}),
    ],
)
def test_names_of_devices(text, provider, options):
    device = device_of(text)
    assert (device.provider, device.provider_options({})) == (provider, options)


@pytest.mark.parametrize("text", ["", "gpu", "cpu:0", "cpu:", "cuda:", "cuda:x", "cuda:-1", "cuda:0:1", "CUDA"])
def test_other_names_are_refused(text):
    with pytest.raises(UsageError, match="not a device") as error:
        device_of(text)
    assert error.value.hint == "use cpu, cuda or cuda:N"


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        (RunOptions(), [("disable", None), ("all", None)]),
        (RunOptions(level="disable"), [("disable", None)]),
        (RunOptions(device="cuda"), [("disable", "0"), ("all", "0"), ("all", "1")]),
        (RunOptions(device="cuda:1", tf32=False, level="basic"), [("disable", "0"), ("basic", "0")]),
    ],
)
def test_modes_that_are_compared(options, modes):
    """On the CPU there is no TF32; on CUDA it is a second run, which says so."""
    found = run_modes(options)
    assert [(mode.level, mode.options.get("use_tf32")) for mode in found] == modes
    assert [mode.tf32 for mode in found] == [tf32 == "1" for _, tf32 in modes]


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_device_knows_the_options_of_its_own_modes(device):
    for mode in device.modes("all", tf32=True):
        assert mode.options.items() <= device.provider_options(mode.options).items()
