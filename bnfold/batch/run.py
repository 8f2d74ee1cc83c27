"""Many models: one that fails never stops the rest, and an interrupted run continues where it stopped.

The models are distributed by any executor of :mod:`concurrent.futures`: none (one after the other),
:class:`bnfold.batch.processes.Processes` on this machine, a cluster's (``dask.distributed.Client.get_executor()``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future, as_completed
from pathlib import Path

from bnfold.batch.data import input_data
from bnfold.batch.manifest import Manifest
from bnfold.batch.records import Command, Outcome, Task, with_data
from bnfold.batch.work import failed, run_task
from bnfold.errors import OutputError, UsageError, one_line
from bnfold.options import FoldOptions

Models = Iterable[str | Path] | Mapping[str | Path, str | Path]


def fold_many(
    models: Models,
    options: FoldOptions | None = None,
    *,
    output_dir: str | Path | None = None,
    executor: Executor | None = None,
    manifest: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Iterator[Outcome]:
    """Fold every model, as :func:`bnfold.fold` does, and give each outcome as soon as it is known.

    ``models`` are paths, or paths and their targets; ``output_dir`` takes the folded models under their own names.
    ``executor`` is anything with ``submit``; its workers must see the same files. ``manifest`` is a file that records
    what is done: a model that has not changed since (by sha256, with its data, its result and its inputs) is
    skipped.
    Raises UsageError for targets that clash, OutputError for a folder that can't be made, InputError for a manifest
    that is none.
    """
    targets = dict(models) if isinstance(models, Mapping) else {model: _under(output_dir, model) for model in models}
    named = [Path(target).absolute() for target in targets.values() if target is not None]
    if len(set(named)) < len(named):
        raise UsageError("two models would be folded into one file", "choose targets of different names")
    if output_dir is not None:
        try:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{output_dir}: {error.strerror or error}", "name another folder") from None
    return _all("fold", targets, options or FoldOptions(), executor, manifest, force=force, dry_run=dry_run)


def inspect_many(
    models: Iterable[str | Path],
    options: FoldOptions | None = None,
    *,
    executor: Executor | None = None,
    manifest: str | Path | None = None,
) -> Iterator[Outcome]:
    """Inspect every model, as :func:`bnfold.inspect` does; see :func:`fold_many`."""
    return _all("inspect", dict.fromkeys(models), options or FoldOptions(), executor, manifest)


def _under(folder: str | Path | None, model: str | Path) -> Path | None:
    return None if folder is None else Path(folder) / Path(model).name


def _all(
    command: Command,
    targets: Mapping[str | Path, str | Path | None],
    options: FoldOptions,
    executor: Executor | None,
    manifest: str | Path | None,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Iterator[Outcome]:
    records = None if manifest is None else Manifest(Path(manifest))
    data = input_data(options, digested=manifest is not None)
    if data is not None:
        options = with_data(options, data.path)
    tasks = []
    for model, target in targets.items():
        absolute = None if target is None else str(Path(target).absolute())
        shown = None if target is None else str(target)
        path = str(Path(model).absolute())
        task = Task(command, str(model), absolute, options, force, dry_run, path, shown_target=shown, data=data)
        known = None if records is None else records.known(task)
        tasks.append(task.resumed(known, manifest is not None))
    return _recorded(records, map(run_task, tasks) if executor is None else _distributed(tasks, executor))


def _recorded(manifest: Manifest | None, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        if manifest is not None and outcome.record is not None and not outcome.skipped:
            manifest.add(outcome.record)
        yield outcome


def _distributed(tasks: list[Task], executor: Executor) -> Iterator[Outcome]:
    futures: dict[Future[Outcome], Task] = {executor.submit(run_task, task): task for task in tasks}
    try:
        for future in as_completed(futures):
            task = futures.pop(future)
            try:
                yield future.result()
            except (Exception, CancelledError) as error:  # a worker that died, or whatever the executor raises
                yield failed(task, one_line(error, 300), "fold it alone to see why; had the worker enough memory?", 70)
    finally:
        for future in futures:
            future.cancel()
