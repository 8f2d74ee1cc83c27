"""The CPU."""

from bnfold.verification.runtime.devices.device import HOST, Device

CPU = Device(
    name="cpu",
    label="CPU",
    provider=HOST,
    hint="pip install 'bnfold[cpu]'",
    remedy="pip install --force-reinstall onnxruntime",
)
