"""Fuzzing led by coverage (atheris): the scanner, the loader and the planner see whatever reaches new lines of them.

``python -m tests.fuzz.coverage_fuzz SECONDS [CORPUS]`` begins with the small sample models and keeps what it finds in
the folder ``CORPUS``. It ends with a crash report of libFuzzer at the first exception that is not one of bnfold's own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bnfold"]):
    from bnfold.api import FoldOptions, fold
    from bnfold.errors import BnfoldError

SAMPLES = Path(__file__).parents[2] / "sample_models"
LARGEST = 4096
"""Bytes of the models that it begins with, and that it makes."""

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def attempt(data: bytes) -> None:
    """Fold one file, whatever it is."""
    path = FOLDER / "model.onnx"
    path.write_bytes(data)
    try:
        fold(path, FOLDER / "out.onnx", FoldOptions(verify=None), force=True)
    except BnfoldError as error:
        assert str(error) and "\n" not in str(error), f"not one line: {str(error)!r}"


def main() -> None:
    """Run what the command line asks for."""
    seconds = sys.argv[1]
    corpus = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    corpus.mkdir(exist_ok=True)
    for path in SAMPLES.glob("*.onnx"):
        if path.stat().st_size <= LARGEST:
            (corpus / path.stem).write_bytes(path.read_bytes())
    options = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
