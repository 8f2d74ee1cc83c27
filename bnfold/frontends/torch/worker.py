"""Runs of programs in a process of their own, started by :func:`bnfold.verification.runtime.runner.spawn`.

The original and, if it is a program too, the folded one: as they are and in float64, each folded piece on the way. What
fails is told apart: ``original``, ``folded`` and ``wide`` hold an error where there is one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnfold.errors import BnfoldError
from bnfold.frontends.torch.evaluate import Evaluator, NotRunnable
from bnfold.frontends.torch.load import load_program
from bnfold.frontends.torch.tensors import to_numpy
from bnfold.verification.equivalence.subgraphs import Subgraph
from bnfold.verification.reference.worker import Sizes, figures
from bnfold.verification.runtime.perturbation import stirred_by_an_ulp
from bnfold.verification.runtime.worker import load_arrays

Feed = dict[str, Tensor]


def main(job_path: str) -> None:
    """Do what the job file says and leave ``result.json`` beside it."""
    job, folder = json.loads(Path(job_path).read_text()), Path(job_path).parent
    try:
        result = run(job, folder)
    except (BnfoldError, NotRunnable, MemoryError) as error:
        result = {"error": str(error) or "it does not fit into memory"}
    (folder / "result.json").write_text(json.dumps(result))


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Outputs go to ``<what>-<sample>.npz``, with what = original, folded, true, ideal; the rest is the result."""
    device = job["device"]
    if device != "cpu" and not torch.cuda.is_available():
        return {"error": f"this torch {torch.__version__} has no CUDA here", "device": True}
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    programs = {"original": load_program(Path(job["original"])).program}
    if job["moved"] is not None:
        _move(programs["original"], np.random.default_rng(job["moved"]))
    if job["folded"] is not None:
        programs["folded"] = load_program(Path(job["folded"])).program
    narrow: list[int] = []
    result: dict[str, Any] = {"torch": str(torch.__version__), "pieces": {}, "bfloat16": narrow}
    for what, program in programs.items():
        result[what] = _attempt(_saver(Evaluator(program, device), job, folder, what, narrow))
    wide = {what: Evaluator(program, wide=True) for what, program in programs.items()}
    result["wide"] = _attempt(_saver(wide["original"], job, folder, "true", []))
    if "folded" in wide and result["wide"] is None:
        result["ideal"] = _attempt(_saver(wide["folded"], job, folder, "ideal", []))
        if job["pieces"] and result["ideal"] is None:
            result["pieces"] = _subgraphs(job, folder, programs, wide)
    result["outputs"] = wide["original"].outputs
    return result


def _move(program: Any, rng: np.random.Generator) -> None:
    """Move a program's own numbers at random by up to an ulp."""
    with torch.no_grad():
        for tensor in program.state_dict.values():
            if tensor.dtype in (torch.float32, torch.float64, torch.float16):
                tensor.copy_(torch.from_numpy(stirred_by_an_ulp(to_numpy(tensor), rng)))


def _attempt(work: Callable[[], None]) -> str | None:
    try:
        work()
    except NotRunnable as error:
        return str(error)
    return None


def _saver(evaluator: Evaluator, job: dict[str, Any], folder: Path, what: str, narrow: list[int]) -> Callable[[], None]:
    """The work of running every sample and keeping its outputs; ``narrow`` gets the places of those in bfloat16."""

    def work() -> None:
        for sample in range(job["samples"]):
            outputs = evaluator.run(_feed(job, folder, sample, evaluator))
            made = [outputs[name] for name in evaluator.outputs]
            narrow[:] = narrow or [place for place, tensor in enumerate(made) if tensor.dtype is torch.bfloat16]
            _save(folder / f"{what}-{sample}.npz", made)

    return work


def _feed(job: dict[str, Any], folder: Path, sample: int, evaluator: Evaluator) -> Feed:
    """The sample under the names of a program's own inputs, which stand in the same order."""
    arrays = load_arrays(folder / f"input-{sample}.npz", job["inputs"])
    types = [getattr(torch, name) for name in job["types"]]
    tensors = [torch.from_numpy(array).to(dtype) for array, dtype in zip(arrays.values(), types, strict=True)]
    return dict(zip(evaluator.inputs, tensors, strict=True))


def _save(path: Path, tensors: list[Tensor]) -> None:
    """bfloat16, which numpy can't store, as float32."""
    plain = (t.float() if t.dtype is torch.bfloat16 else t for t in tensors)
    np.savez(path, **{f"a{place}": to_numpy(tensor) for place, tensor in enumerate(plain)})  # type: ignore[arg-type]


def _subgraphs(
    job: dict[str, Any], folder: Path, programs: Mapping[str, Any], wide: Mapping[str, Evaluator]
) -> dict[str, Any]:
    """Each folded piece beside the original's, on what the float64 run of the original gives it."""
    cut = [Subgraph.from_dict(subgraph) for subgraph in job["pieces"]]
    plain = {what: Evaluator(program, job["device"]) for what, program in programs.items()}
    wanted = {end.original for subgraph in cut for end in subgraph.inputs}
    seen: dict[str, Tensor] = {}

    def watch(name: str, value: Tensor) -> None:
        if name in wanted:
            seen[name] = value.clone()

    wide["original"].run(_feed(job, folder, 0, wide["original"]), observe=watch)
    judged = {}
    for subgraph in cut:
        try:
            judged[subgraph.name] = _judge(subgraph, plain, wide, seen, job)
        except NotRunnable as error:
            judged[subgraph.name] = {"skipped": str(error)}
    return judged


def _judge(
    subgraph: Subgraph, plain: Mapping[str, Evaluator], wide: Mapping[str, Evaluator], seen: Feed, job: dict[str, Any]
) -> dict[str, Any]:
    if any(end.original not in seen for end in subgraph.inputs):
        return {"skipped": "its input is not computed"}
    fed = {end.original: _narrowed(seen[end.original], end.original_type) for end in subgraph.inputs}
    theirs = {end.folded: fed[end.original] for end in subgraph.inputs}
    before, after = [end.original for end in subgraph.outputs], [end.folded for end in subgraph.outputs]
    expected = _arrays(plain["original"].run(fed, before))
    try:
        actual = _arrays(plain["folded"].run(theirs, after))
    except NotRunnable as error:
        return {"failed": f"the folded piece does not run: {error}"}
    reference = _arrays(wide["original"].run(fed, before))
    best = _arrays(wide["folded"].run(theirs, after)) if job["exact"] else None
    correctly_rounded = None if best is None else {end.original: best[end.folded] for end in subgraph.outputs}
    power = [float(value.double().square().mean()) for value in fed.values() if value.is_floating_point()]
    sizes = np.asarray(subgraph.norms) * float(np.sqrt(max(power, default=0.0)))
    sizes = sizes + np.asarray(subgraph.terms) if len(subgraph.terms) in (1, len(sizes)) else sizes
    return figures(
        subgraph,
        expected,
        actual,
        reference,
        correctly_rounded,
        Sizes(sizes if sizes.size else None, job["slack"], job["k"]),
    )


def _narrowed(value: Tensor, element_type: int) -> Tensor:
    """The float64 value as the program holds it: element types of ONNX."""
    kinds = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
    return value.to(kinds[element_type]) if element_type in kinds else value


def _arrays(values: Feed) -> dict[str, NDArray[Any]]:
    return {name: to_numpy(value) for name, value in values.items()}


if __name__ == "__main__":
    main(sys.argv[1])
