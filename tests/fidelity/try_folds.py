"""Run `bnfold fold` with its defaults on every file of a folder, and record what becomes of each.

    python tests/fidelity/try_folds.py FOLDER RECORD.jsonl [--bnfold PATH] [--seconds 120] [--only TEXT ...]

Each line of the record is one file. Files that the record holds already are left out. The exit code of `fold` is
None where it ran past its time.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import time


def run(command, seconds):
    """Run a command with all that it starts; return its exit code, or None past its time, and what it said."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=seconds)
        return process.returncode, said.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0].decode(errors="replace")


def cpu_seconds():
    """Return the processor time of the processes that ended: on a busy machine it says more than the clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def try_fold(bnfold, model, seconds, folded, extra=()):
    """Fold a file, by default with the defaults; return the record of it."""
    report = folded.with_suffix(".json")
    start, spent = time.monotonic(), cpu_seconds()
    code, said = run([bnfold, "fold", str(model), "-o", str(folded), "--force", "--json", str(report), *extra], seconds)
    record = {"file": model.name, "exit": code, "seconds": round(time.monotonic() - start, 1)}
    record["cpu"] = round(cpu_seconds() - spent, 1)
    if report.exists():
        result = json.loads(report.read_text())
        verification = result["verification"] or {}
        summary = result["summary"]
        record |= {
            "verdict": verification.get("verdict"),
            "before": summary["batch_norms"], "left": summary["kept"], "kept_for": summary["by_reason"],
            "checks": {
                check["check"]: check["detail"] for check in verification.get("checks", [])
                if check["verdict"] != "pass"
            },
            "verify": result["seconds"].get("verify"),
        }  # fmt: skip
    if code != 0:
        record["said"] = [line for line in said.splitlines() if line.strip()][-4:]
    return record


def main():
    """Try each file, and print and record what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("--bnfold", default="bnfold")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--extra", default="", help="options of fold, such as '--checks structure,weights'")
    options = parser.parse_args()
    done = set()
    if options.record.exists():
        done = {json.loads(line)["file"] for line in options.record.read_text().splitlines()}
    models = [path for path in sorted(options.folder.iterdir()) if path.suffix in (".onnx", ".pt2")]
    for model in models:
        if model.name[0] == "." or model.name in done or not any(text in model.name for text in options.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            folded = pathlib.Path(folder) / f"out{model.suffix}"
            record = try_fold(options.bnfold, model, options.seconds, folded, options.extra.split())
        with options.record.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(
            record["exit"], record.get("verdict"), record["file"], record["seconds"], record.get("checks"), flush=True
        )


if __name__ == "__main__":
    main()
