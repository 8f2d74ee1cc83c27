"""Damaged files: every one must end with one of bnfold's own errors, soon, and in little memory.

``python -m tests.fuzz.byte_fuzz SECONDS [SEED [SHARE]]``: small models cut off at every length, then random damage
(flipped bits, bytes put in, spans taken out or doubled, numbers made huge) until the time is up; each is inspected, and
folded without verification. Programs of torch (``.pt2``) are damaged alike and checked as data, half of
their JSON by moving its parts about: one for every SHARE models (40).
"""

from __future__ import annotations

import collections
import copy
import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnfold.api import FoldOptions, fold, inspect
from bnfold.errors import BnfoldError

SAMPLES = Path(__file__).parents[2] / "sample_models"
SMALL = 3000
"""Bytes up to which a model is cut off at every length."""

ODD = (None, 0, -1, 2**31, 2**70, 1e308, float("nan"), "", "../x", "os.system", [], {}, [[]], True)
"""What stands in a JSON document where something else is expected."""

SLOW = 5.0
"""Seconds that no damaged file of a few kB may take."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Something like ``data``."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(changed)), rng.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 8))
        elif kind == 3:
            del changed[at : at + rng.randrange(1, 16)]
        elif kind == 4:
            changed[at : at + 1] = b"\xff" * rng.randrange(1, 10) + b"\x01"
        else:
            span = changed[at : at + rng.randrange(1, 64)]
            changed[at:at] = span
        if not changed:
            return b"\0"
    return bytes(changed)


def damaged_archive(data: bytes, rng: random.Random) -> bytes:
    """A zip archive with one member damaged, or the archive itself."""
    if rng.randrange(3) == 0:
        return damaged(data, rng)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        victim = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == victim and content[:1] == b"{" and rng.randrange(2):
                content = rearranged(content, rng)
            elif name == victim:
                content = damaged(content, rng) if content else rng.randbytes(5)
            if not (name == victim and rng.randrange(8) == 0):
                new.writestr(name, content)
            if name == victim and rng.randrange(16) == 0:
                new.writestr(rng.choice((name, "../" + name, "/etc/" + name)), content)
    return made.getvalue()


def rearranged(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with one to three parts gone, doubled, exchanged for others, or turned into something odd."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        (holder, key), (other, there) = rng.choice(places), rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = copy.deepcopy(other[there])
        elif kind == 2:
            holder[key] = rng.choice(ODD)
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif isinstance(holder[key], int):
            holder[key] += rng.choice((-1, 1, 2, 100))
    return json.dumps(document).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object inside of a document, with each index or name of it."""
    pending = [document]
    while pending:
        holder = pending.pop()
        if isinstance(holder, list | dict):
            for key in range(len(holder)) if isinstance(holder, list) else holder:
                yield holder, key
                pending.append(holder[key])


def attempt(data: bytes, path: Path, found: collections.Counter[str]) -> None:
    """Inspect and fold one file; count how that ends, and print what must not be."""
    path.write_bytes(data)
    start = time.perf_counter()
    try:
        inspect(path)
        fold(path, path.with_name("out" + path.suffix), FoldOptions(verify=None), force=True)
        found["read"] += 1
    except BnfoldError as error:
        found[f"exit code {error.exit_code}"] += 1
        if "\n" in str(error) or not str(error):
            found["NOT ONE LINE"] += 1
            print(f"not one line: {str(error)!r}")
    except Exception:
        found["TRACEBACK"] += 1
        kept = Path(tempfile.gettempdir()) / f"bnfold-finding-{found['TRACEBACK']}{path.suffix}"
        kept.write_bytes(data)
        print(f"{kept}:\n{traceback.format_exc(limit=-3)}", flush=True)
    if (taken := time.perf_counter() - start) > SLOW:
        found["SLOW"] += 1
        print(f"{taken:.1f} s for {len(data)} bytes")


def program() -> bytes | None:
    """A small program of torch; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.ReLU()).eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2, 4, 4),)), buffer)
    return buffer.getvalue()


def main() -> None:
    """Run what the command line asks for."""
    limit, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    share = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    rng, found, start = random.Random(seed), collections.Counter(), time.time()
    models = {path.stem: path.read_bytes() for path in sorted(SAMPLES.glob("*.onnx"))}
    pt2 = program()
    with tempfile.TemporaryDirectory() as temporary:
        path, archive = Path(temporary) / "model.onnx", Path(temporary) / "model.pt2"
        for data in models.values():
            for length in range(len(data)) if len(data) <= SMALL else ():
                attempt(data[:length], path, found)
        print(f"cut off at every length: {dict(found)}, {time.time() - start:.0f} s", flush=True)
        found.clear()
        programs: collections.Counter[str] = collections.Counter()
        while time.time() - start < limit:
            attempt(damaged(rng.choice(list(models.values())), rng), path, found)
            if pt2 is not None and rng.randrange(share) == 0:
                attempt(damaged_archive(pt2, rng), archive, programs)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"damaged at random: {dict(found)}; programs: {dict(programs)}; {time.time() - start:.0f} s, {memory:.0f} MiB"
    )


if __name__ == "__main__":
    main()
