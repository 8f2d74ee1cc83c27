"""Options that several commands share, and what they mean."""

from __future__ import annotations

import glob
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from bnfold.errors import BnfoldError, InputError, OutputError, UsageError


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``, ``--quiet``, ``--verbose``, ``--no-color``: every command has them."""
    for option in (
        click.option("--no-color", is_flag=True, help="Plain text (as does the variable NO_COLOR)."),
        click.option("--verbose", is_flag=True, help="Tell more; tracebacks for bugs."),
        click.option("--quiet", is_flag=True, help="Print errors only."),
        click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON; - for standard output."),
    ):
        function = option(function)
    return function


def planning(function: Callable[..., Any]) -> Callable[..., Any]:
    """What may be folded: the same options for ``fold`` and ``inspect``."""
    for option in reversed(
        (
            click.option(
                "--freeze-initializers", is_flag=True, help="Make initializers that callers could override constants."
            ),
            click.option("--only-batchnorm", is_flag=True, help="Leave scale chains that are no BatchNorm."),
            click.option(
                "--merge-branches", is_flag=True, help="Merge parallel branches into one convolution (RepVGG)."
            ),
            click.option("--threshold", is_flag=True, help="Let BatchNorm, Relu, unpadded layer become Max and layer."),
        )
    ):
        function = option(function)
    return function


def plan_options(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`bnfold.api.FoldOptions` that the options above ask for."""
    return {
        "freeze": given["freeze_initializers"],
        "scales": not given["only_batchnorm"],
        "threshold": given["threshold"],
        "merge": given["merge_branches"],
    }


def verifying(function: Callable[..., Any]) -> Callable[..., Any]:
    """How a fold is verified: the same options for ``fold`` and ``verify``."""
    for option in reversed(
        (
            click.option(
                "--gates", default="structure,weights,layers,outputs", show_default=True, help="What to judge."
            ),
            click.option("--device", default="cpu", show_default=True, help="Where models run: cpu, cuda or cuda:N."),
            click.option(
                "--tf32",
                type=click.Choice(["off", "on"]),
                default="on",
                show_default=True,
                help="On CUDA: whether to judge a second run with TF32, as onnxruntime uses it by default.",
            ),
            click.option(
                "--cpu-nodes",
                type=click.Choice(["none", "shape", "any"]),
                default="shape",
                show_default=True,
                help="On CUDA: which nodes may run on the CPU.",
            ),
            click.option(
                "--ort-level",
                type=click.Choice(["disable", "basic", "extended", "all"]),
                default="all",
                show_default=True,
                help="onnxruntime's optimisation level to judge besides 'disable'.",
            ),
            click.option("--inputs", metavar="PATH", help="Your data: .npz, .npy, or a folder with input_0.pb …"),
            click.option(
                "--gen",
                default="normal,constant",
                show_default=True,
                help="Generated inputs: normal, uniform, large, constant, impulse.",
            ),
            click.option("--shape", multiple=True, metavar="NAME:DIMS", help="Shape of an input: x:1,3,224,224."),
            click.option("--range", "ranges", multiple=True, metavar="NAME:LO,HI", help="Range of an input's values."),
            click.option(
                "--samples", type=click.IntRange(1), help="Inputs of each kind.  [default: more for small outputs]"
            ),
            click.option(
                "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the generated inputs."
            ),
            click.option("--k", type=float, help="Limit, as a multiple of the unavoidable error.  [default: 3, or 8]"),
            click.option(
                "--weight-policy", metavar="POLICY", help="exact, or ulp:N: how far folded weights may be off."
            ),
            click.option("--max-memory", metavar="SIZE", help="What one run may take, such as 2GB."),
            click.option("--time-limit", type=float, metavar="SECONDS", help="What one run may take.  [default: 600]"),
            click.option("--report", "reports", multiple=True, metavar="KIND[=FILE]", help=REPORTS_HELP),
            click.option("--rtol", type=float, help="Judge by tolerances instead (reported as such)."),
            click.option("--atol", type=float, help="See --rtol."),
        )
    ):
        function = option(function)
    return function


REPORTS_HELP = "json=F, junit=F, sarif=F, gitlab=F, intoto=F, or github (annotations and step summary)."


def verify_options(given: dict[str, Any]) -> Any:
    """The :class:`bnfold.verification.VerifyOptions` that the options above ask for. Raises UsageError."""
    from bnfold.verification import GATES, VerifyOptions
    from bnfold.verification.inputs import KINDS, InputOptions
    from bnfold.verification.measure import RunOptions
    from bnfold.verification.outputs import Limits
    from bnfold.verification.runtime import TIME_LIMIT
    from bnfold.verification.runtime import Limits as RunLimits

    if not re.fullmatch(r"cpu|cuda(:\d+)?", given["device"]):
        raise UsageError(f"--device {given['device']}: not a device", "use cpu, cuda or cuda:N")
    seconds = TIME_LIMIT if given["time_limit"] is None else _limit("--time-limit", given["time_limit"])
    inputs = InputOptions(
        data=Path(given["inputs"]) if given["inputs"] else None,
        kinds=_words("--gen", given["gen"], KINDS),
        shapes=dict(_shape(text) for text in given["shape"]),
        ranges=dict(_range(text) for text in given["ranges"]),
        samples=given["samples"],
        seed=given["seed"],
    )
    runs = RunOptions(
        device=given["device"],
        level=given["ort_level"],
        tf32=given["tf32"] == "on",
        cpu_nodes=given["cpu_nodes"],
        limits=RunLimits(seconds, _bytes(given["max_memory"])),
        inputs=inputs,
    )
    limits = Limits(
        *(None if given[name] is None else _limit(f"--{name}", given[name]) for name in ("k", "rtol", "atol"))
    )
    return VerifyOptions(_words("--gates", given["gates"], GATES), runs, limits, _policy(given["weight_policy"]))


def _policy(text: str | None) -> float | None:
    """How many ulps folded weights may be off."""
    from bnfold.verification.weights import EXACT

    if text is None or text == "exact":
        return None if text is None else EXACT
    try:
        return _limit("--weight-policy", float(text.removeprefix("ulp:")))
    except ValueError:
        raise UsageError(f"--weight-policy {text}: neither 'exact' nor of the form ulp:4") from None


def _bytes(text: str | None) -> int | None:
    """``512MB``, ``2GiB`` and their like; units are powers of 1024."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None or not float(found[1]):
        raise UsageError(f"--max-memory {text}: not a size", "write 512MB or 2GB")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


def _limit(option: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{option} {value}: must be a finite number, not negative")
    return value


def _words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    words = tuple(dict.fromkeys(words))
    if not words:
        raise UsageError(f"{option}: names nothing", f"known: {', '.join(known)}")
    for word in words:
        if word not in known:
            raise UsageError(f"{option} {word}: not one of {', '.join(known)}")
    return words


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = text.rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
    except ValueError:
        shape = (-1,)
    if not name or any(dim < 0 for dim in shape):
        raise UsageError(f"--shape {text}: not of the form NAME:1,3,224,224")
    return name, shape


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = text.rpartition(":")
    try:
        low, high = (float(limit) for limit in limits.split(","))
    except ValueError:
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI") from None
    if not name or not low <= high or not math.isfinite(high - low):
        raise UsageError(f"--range {text}: not of the form NAME:LO,HI")
    return name, (low, high)


def expand(models: tuple[str, ...]) -> list[str]:
    """Files, globs and folders as one list of files (``-`` is standard input). Raises InputError."""
    files: list[str] = []
    for name in models:
        if not name:
            raise UsageError("a model's name is empty")
        if name != "-" and _is_folder(name):
            found = sorted(str(path) for path in Path(name).glob("*.onnx") if ".folded" not in path.suffixes)
            if not found:
                raise InputError(f"{name}: no .onnx file in this folder", "name the files")
            files += found
        elif name != "-" and glob.has_magic(name) and not Path(name).exists():
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise InputError(f"{name}: no file matches")
            files += found
        else:
            files.append(name)
    return files


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def check_json_target(target: str | None, *, model_on_stdout: bool = False) -> None:
    """Refuse a place for the JSON that would cost the user a file, before any work is done.

    Raises UsageError or OutputError.
    """
    if target is None:
        return
    if target == "-":
        if model_on_stdout:
            raise UsageError("--json -: standard output takes the model already", "name a file for one of them")
        return
    path = Path(target)
    try:
        if path.exists() and (not path.is_file() or path.read_bytes()[:1] not in (b"", b"{")):
            raise UsageError(f"--json {target}: exists and is no JSON", "name another file")
        if not path.absolute().parent.is_dir():
            raise OutputError(f"--json {target}: its folder does not exist")
    except OSError as error:
        raise OutputError(f"--json {target}: {error.strerror or error}") from None


def each(models: list[str], work: Callable[[str], Any]) -> tuple[list[Any], int]:
    """Do the work for each model: one that fails is reported and does not stop the others.

    Returns the results and the exit code of the first failure (0: none). A single model's failure is raised.
    """
    results, code = [], 0
    for model in models:
        try:
            results.append(work(model))
        except BnfoldError as error:
            if len(models) == 1:
                raise
            click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
            code = code or error.exit_code
    return results, code


def write_json(target: str | None, results: list[dict[str, Any]]) -> None:
    """Write one result as JSON, several as JSON Lines. Raises OutputError."""
    if target is None:
        return
    from bnfold.report.formats import finite

    results = [finite(result) for result in results]
    if len(results) == 1:
        text = json.dumps(results[0], indent=2, allow_nan=False) + "\n"
    else:
        text = "".join(json.dumps(result, allow_nan=False) + "\n" for result in results)
    if target == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None


def report_stream(json_file: str | None, model_on_stdout: bool) -> IO[str]:
    """Where the report for people goes: standard output, unless something else is written there."""
    return sys.stderr if json_file == "-" or model_on_stdout else sys.stdout
