"""Runs of programs in a process of their own, started by :func:`bnfold.verification.runtime.runner.spawn`.

The original and, if it is a program too, the folded one: as they are and in float64, each folded subgraph on the way.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram

from bnfold.errors import BnfoldError
from bnfold.frontends.torch.evaluate import Amendment, Evaluator, NotRunnable
from bnfold.frontends.torch.load import load_program
from bnfold.frontends.torch.tensors import to_numpy
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.measurement.subgraph_errors import SubgraphErrors, SubgraphOutputs, subgraph_errors
from bnfold.verification.runtime.devices import device_of
from bnfold.verification.runtime.jobs import DeviceUnavailable, serve
from bnfold.verification.runtime.perturbation import ALL_MOVED, accumulated_noise, perturbed_by_an_ulp
from bnfold.verification.runtime.worker import load_arrays, save_arrays

Feed = dict[str, Tensor]


@dataclass(frozen=True)
class ProgramJob:
    """Run ``original``, and ``folded`` if it is given, on each sample of ``inputs``, which have ``types`` in torch.

    ``subgraphs`` are run on the first sample. ``exact``, ``slack``: see
    :class:`bnfold.verification.measurement.measured.ReferenceSpec`. ``k`` is the limit of the error ratio.

    With ``perturbation_seeds`` the original alone is run, for each of them with a share (``moved``) of its numbers and
    of the inputs' moved by an ulp. With a ``noise_seed`` the folded program alone is run, in float64, with noise as
    large as what sums lose that start at a bias.
    """

    original: str
    folded: str | None
    inputs: list[str]
    types: list[str]
    samples: int
    subgraphs: list[Subgraph]
    device: str
    exact: bool
    slack: float
    k: float
    perturbation_seeds: list[int] = field(default_factory=list)
    moved: float = ALL_MOVED
    noise_seed: int | None = None


@dataclass(frozen=True)
class ProgramResult:
    """What ``ran`` (of original, folded, reference, correctly_rounded), and why what ``failed`` did.

    ``outputs`` are the original's names of them, ``bfloat16`` the places of those of that type. ``subgraphs`` holds the
    errors of each by name.
    """

    torch: str
    outputs: list[str]
    bfloat16: list[int]
    ran: list[str]
    failed: dict[str, str]
    subgraphs: dict[str, SubgraphErrors]


def run(job: ProgramJob, folder: Path) -> ProgramResult:
    """Run the programs; outputs go to ``<what>-<sample>.npz``. Raises DeviceUnavailable, InputError."""
    device = device_of(job.device)
    if not (device.is_host or (device.name == "cuda" and torch.cuda.is_available())):
        raise DeviceUnavailable(f"this torch {torch.__version__} has no {device.label} here")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    programs = {"original": load_program(Path(job.original)).program}
    if job.folded is not None:
        programs["folded"] = load_program(Path(job.folded)).program
    plain = {what: Evaluator(program, job.device) for what, program in programs.items()}
    wide = {what: Evaluator(program, wide=True) for what, program in programs.items()}
    evaluators = {**plain, "reference": wide["original"]}
    if "folded" in wide:
        evaluators["correctly_rounded"] = wide["folded"]
    if job.noise_seed is not None:
        evaluators = {"accumulated": wide["folded"]}
    elif job.perturbation_seeds:
        evaluators = {f"moved{seed}": plain["original"] for seed in job.perturbation_seeds}
    ran: list[str] = []
    failed: dict[str, str] = {}
    bfloat16: list[int] = []
    stored = {name: tensor.clone() for name, tensor in programs["original"].state_dict.items()}
    for what, evaluator in evaluators.items():
        if what.startswith("moved"):
            _move(programs["original"], stored, what, job.moved)
        if what == "correctly_rounded" and "reference" in failed:
            continue
        try:
            places = _run_all(evaluator, job, folder, what)
            bfloat16 = bfloat16 or (places if what in plain else [])
            ran.append(what)
        except NotRunnable as error:
            failed[what] = str(error)
    judge = job.subgraphs and "correctly_rounded" in ran
    judged = _subgraphs(job, folder, plain, wide) if judge else {}
    return ProgramResult(str(torch.__version__), wide["original"].outputs, bfloat16, ran, failed, judged)


def _move(program: ExportedProgram, stored: Mapping[str, Tensor], run: str, share: float) -> None:
    """Set a program's own numbers to what is stored, a share of them moved at random by an ulp, in place."""
    rng = np.random.default_rng(int(run.removeprefix("moved")))
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            if tensor.dtype in (torch.float32, torch.float64, torch.float16):
                tensor.copy_(torch.from_numpy(perturbed_by_an_ulp(to_numpy(stored[name]), rng, share)))


def _run_all(evaluator: Evaluator, job: ProgramJob, folder: Path, what: str) -> list[int]:
    """Run every sample and store its outputs; return the places of those in bfloat16. Raises NotRunnable."""
    narrow: list[int] = []
    for sample in range(job.samples):
        noise = None if job.noise_seed is None else _accumulated_noise(np.random.default_rng(job.noise_seed + sample))
        share = job.moved if what.startswith("moved") else 0.0
        feed = {
            name: _moved_input(value, what, sample, share) if share else value
            for name, value in _feed(job, folder, sample, evaluator).items()
        }
        outputs = evaluator.run(feed, amend=noise)
        made = [outputs[name] for name in evaluator.outputs]
        narrow = narrow or [place for place, tensor in enumerate(made) if tensor.dtype is torch.bfloat16]
        stored = (t.float() if t.dtype is torch.bfloat16 else t for t in made)  # which numpy can't store
        save_arrays(folder / f"{what}-{sample}.npz", map(to_numpy, stored))
    return narrow


def _moved_input(value: Tensor, run: str, sample: int, share: float) -> Tensor:
    if not value.is_floating_point() or value.dtype is torch.bfloat16:
        return value
    rng = np.random.default_rng([int(run.removeprefix("moved")), sample])
    return torch.from_numpy(perturbed_by_an_ulp(to_numpy(value), rng, share))


def _accumulated_noise(rng: np.random.Generator) -> Amendment:
    """Return what adds noise to the results of linear operators: as large as what sums lose that start at a bias."""

    def amend(node: fx.Node, args: tuple[Any, ...], made: Any) -> Any:
        schema = getattr(node.target, "_schema", None)
        places = BIASES.get(str(schema.name).removeprefix("aten::")) if schema is not None else None
        if places is None or max(places) >= len(args) or not isinstance(made, Tensor):
            return made
        weight, bias = (args[place] for place in places)
        if not isinstance(bias, Tensor):
            return made
        stored = node.meta.get("val")
        dtype = np.float64 if isinstance(stored, Tensor) and stored.dtype is torch.float64 else np.float32
        noise = accumulated_noise(rng, tuple(made.shape), to_numpy(bias), weight.numel(), dtype)
        return made if noise is None else made + torch.from_numpy(noise)

    return amend


BIASES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "linear"), (1, 2)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (1, 2)),
    "addmm": (2, 0),
}
"""The places of weight and bias among an operator's arguments."""


def _feed(job: ProgramJob, folder: Path, sample: int, evaluator: Evaluator) -> Feed:
    """Return a sample under the names of a program's own inputs, which stand in the same order."""
    arrays = load_arrays(folder / f"input-{sample}.npz", job.inputs)
    types = [getattr(torch, name) for name in job.types]
    tensors = [torch.from_numpy(array).to(dtype) for array, dtype in zip(arrays.values(), types, strict=True)]
    return dict(zip(evaluator.inputs, tensors, strict=True))


def _subgraphs(
    job: ProgramJob, folder: Path, plain: Mapping[str, Evaluator], wide: Mapping[str, Evaluator]
) -> dict[str, SubgraphErrors]:
    """Run each folded subgraph beside the original's, on what the float64 run of the original gives it."""
    wanted = {end.original for subgraph in job.subgraphs for end in subgraph.inputs}
    seen: dict[str, Tensor] = {}

    def observe(name: str, value: Tensor) -> None:
        if name in wanted:
            seen[name] = value.clone()

    wide["original"].run(_feed(job, folder, 0, wide["original"]), observe=observe)
    judged = {}
    for subgraph in job.subgraphs:
        try:
            judged[subgraph.name] = _judge(subgraph, plain, wide, seen, job)
        except NotRunnable as error:
            judged[subgraph.name] = SubgraphErrors(skipped=str(error))
    return judged


def _judge(
    subgraph: Subgraph, plain: Mapping[str, Evaluator], wide: Mapping[str, Evaluator], seen: Feed, job: ProgramJob
) -> SubgraphErrors:
    if any(end.original not in seen for end in subgraph.inputs):
        return SubgraphErrors(skipped="its input is not computed")
    fed = {end.original: _narrowed(seen[end.original], end.original_type) for end in subgraph.inputs}
    theirs = {end.folded: fed[end.original] for end in subgraph.inputs}
    before, after = [end.original for end in subgraph.outputs], [end.folded for end in subgraph.outputs]
    expected = _arrays(plain["original"].run(fed, before))
    try:
        actual = _arrays(plain["folded"].run(theirs, after))
    except NotRunnable as error:
        return SubgraphErrors(failed=f"the folded subgraph does not run: {error}")
    reference = _arrays(wide["original"].run(fed, before))
    made = _arrays(wide["folded"].run(theirs, after)) if job.exact else None
    best = None if made is None else {end.original: made[end.folded] for end in subgraph.outputs}
    powers = [float(value.double().square().mean()) for value in fed.values() if value.is_floating_point()]
    outputs = SubgraphOutputs(expected, actual, reference, best)
    return subgraph_errors(subgraph, outputs, powers, job.slack, job.k)


def _narrowed(value: Tensor, element_type: int) -> Tensor:
    """Return a float64 value as the program holds it: in an element type of ONNX."""
    kinds = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
    return value.to(kinds[element_type]) if element_type in kinds else value


def _arrays(values: Feed) -> dict[str, NDArray[Any]]:
    return {name: to_numpy(value) for name, value in values.items()}


if __name__ == "__main__":
    serve(sys.argv[1], ProgramJob, run, BnfoldError, NotRunnable)
