"""Start bnfold's workers from a process that has imported their libraries already.

A worker of bnfold is a fresh interpreter, which imports numpy, onnx and onnxruntime (0.4 s), or torch (3 s), before it
runs a model for some milliseconds. The tests start hundreds of them. Here one process for each set of libraries
imports them once, and each worker is a fork of it: the same module with the same arguments, search path, variables and
files, in a process of its own, which may crash, hang or be killed. What no fork can show (how the interpreter is
started, what it finds on its path) is tested in ``tests/test_isolation.py``, by workers that are started for real; so
are those that the command line starts in the tests that run ``python -m bnfold``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import socket
import subprocess
import sys
from typing import Any, NoReturn

from bnfold import isolation
from bnfold.isolation import search_path

SERVERS = (
    (
        "bnfold.verification.runtime.worker",
        "bnfold.verification.onnx.worker",
        "bnfold.verification.onnx.decided_worker",
        "bnfold.verification.onnx.steps",
        "bnfold.benchmark.worker",
        "onnxruntime",
        "onnx.reference",
    ),
    ("bnfold.verification.torch.worker", "bnfold.models.unsafe_worker", "torch.export"),
)
"""What each server imports: the workers that it forks, and what they would import only when they run."""

FIXED = ("PYTHON", "OMP_", "OPENBLAS", "MKL", "LD_", "COVERAGE")
"""Beginnings of variables that an interpreter or a library reads once: where they differ, a fork is no substitute."""

Real = subprocess.Popen


class ForkingPopen(Real[bytes]):
    """``subprocess.Popen``, but forks a server of :func:`server` where the command starts one of bnfold's workers."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        self._status: socket.socket | None = None
        request = None if rest else request_of(args, options)
        if request is None:
            super().__init__(args, *rest, **options)
            return
        self.args, self.returncode = args, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = False  # nothing for Popen's own finalizer to reap
        self._status, other = socket.socketpair()
        with other:
            files = [options["stdout"].fileno(), other.fileno()]
            socket.send_fds(server(request["module"]), [json.dumps(request).encode()], files)
        self.pid = int(self._status.recv(16))

    def poll(self) -> int | None:
        """Return the exit code, or None while the worker runs."""
        if self._status is None:
            return super().poll()
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._status.recv(16)))
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the worker, at most ``timeout`` seconds; return its exit code."""
        if self._status is None:
            return super().wait(timeout)
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.poll() or 0

    def send_signal(self, sig: int) -> None:
        """Send a signal to a worker that runs."""
        if self._status is None:
            super().send_signal(sig)
        elif self.poll() is None:
            os.kill(self.pid, sig)


def request_of(args: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a server needs to know to start a worker; None for a command that must be run for real."""
    if not isinstance(args, list) or args[:2] != [sys.executable, "-I"] or str(isolation.HERE) not in args:
        return None
    passed, module, *arguments = args[args.index(str(isolation.HERE)) + 1 :]
    env = options.get("env") or dict(os.environ)
    plain = options.get("stdin") == subprocess.DEVNULL and options.get("stderr") == subprocess.STDOUT
    known = any(module in modules for modules in SERVERS)
    if not known or not plain or fixed(env) != fixed(STARTED_WITH) or "COVERAGE_PROCESS_START" in env:
        return None
    return {"module": module, "arguments": arguments, "path": passed, "env": env, "cwd": str(options.get("cwd") or "")}


def fixed(env: dict[str, str]) -> dict[str, str]:
    """Return the variables that are read once, without those that say where this test runs."""
    ours = ("OPENBLAS_NUM_THREADS", "1")  # bnfold's own, which its workers don't get
    return {name: value for name, value in env.items() if name.startswith(FIXED) and (name, value) != ours}


STARTED_WITH = dict(os.environ)


_servers: dict[tuple[str, ...], tuple[socket.socket, subprocess.Popen[bytes]]] = {}


def server(module: str) -> socket.socket:
    """Return the socket that takes requests for a worker, of a process that is started with the first of them."""
    modules = next(modules for modules in SERVERS if module in modules)
    if modules in _servers:
        return _servers[modules][0]
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {name: value for name, value in STARTED_WITH.items() if (name, value) != ("OPENBLAS_NUM_THREADS", "1")}
    with other:
        words = isolation.command("tests.fork_server", str(other.fileno()), *modules)
        process = Real(words, pass_fds=[other.fileno()], start_new_session=True, env=env)
    _servers[modules] = ours, process
    return ours


def stop() -> None:
    """End all servers."""
    for ours, process in _servers.values():
        ours.close()
        process.wait()
    _servers.clear()


def serve(number: int, modules: tuple[str, ...]) -> None:
    """Import the modules, then fork a worker for each request on a socket, until the other end is closed."""
    own = isolated_path()
    for name in modules:
        importlib.import_module(name)
    for name in modules:
        if name.startswith("bnfold."):
            sys.modules.pop(name, None)  # each fork runs it as its main program
    if "torch" in sys.modules:
        load_a_program()
    with socket.socket(fileno=number) as requests:
        while True:
            data, files, *_ = socket.recv_fds(requests, 2**20, 2)
            if not data:
                return
            if os.fork() == 0:
                requests.close()
                watch(json.loads(data), own, *files)
            for file in files:
                os.close(file)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
                    pass


def load_a_program() -> None:
    """Load a small program: torch imports a thousand modules with the first one."""
    from bnfold.frontends.torch.load import load_program

    load_program(isolation.HERE.parents[1] / "sample_models" / "digits.pt2")


def isolated_path() -> list[str]:
    """Return the search path of ``python -I``."""
    command = [sys.executable, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def watch(request: dict[str, Any], own: list[str], log: int, status: int) -> NoReturn:
    """Fork the worker, write its number and at last its exit status; end with it."""
    worker = os.fork()
    if worker == 0:
        os.close(status)
        work(request, own, log)
    os.close(log)
    os.write(status, f"{worker:16}".encode())
    os.write(status, f"{os.waitpid(worker, 0)[1]:16}".encode())
    os._exit(0)


def work(request: dict[str, Any], own: list[str], log: int) -> NoReturn:
    """Be the worker: what :func:`bnfold.isolation.main` does, in this process."""
    import runpy
    import traceback

    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"] or os.curdir)
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path[:] = search_path(own, json.loads(request["path"]))
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]), tuple(sys.argv[2:]))
