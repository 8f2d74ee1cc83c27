"""GPUs of NVIDIA, by CUDA."""

from bnfold.verification.runtime.devices.device import Device

CUDA = Device(
    name="cuda",
    label="CUDA",
    provider="CUDAExecutionProvider",
    hint="it requires an NVIDIA driver and onnxruntime-gpu: pip uninstall onnxruntime; pip install 'bnfold[cuda]'",
    remedy="for a GPU: pip install 'bnfold[cuda]', with a driver that fits its CUDA",
    # Full float32, and the same algorithm every time.
    comparison={
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    },
    # TF32, as onnxruntime does by default.
    production={"use_tf32": "1", "arena_extend_strategy": "kSameAsRequested"},
    known_options={
        "use_tf32": ("0", "1"),
        "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    },
    numbered=True,
    memory="cuda",
    preloads=True,
)
