"""Zip archives as torch writes them: read so that torch can't see other members than we do.

torch stores its members uncompressed under one root folder. Anything else is refused: it reads the first of two
members of one name where Python reads the last, and a compressed member may unpack to any size.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections import Counter
from dataclasses import dataclass

from bnfold.errors import InputError

MOST_MEMBERS = 200_000
"""Members that an archive may have."""


_ODD = (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
"""What zipfile raises for archives that are none."""


@dataclass(frozen=True)
class Archive:
    """The members of an archive under its one root folder, by their names below it."""

    root: str
    members: dict[str, bytes]

    def repacked(self) -> bytes:
        """A new archive of the same members: what is read from it is what was looked at."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
            for name, data in self.members.items():
                file.writestr(zipfile.ZipInfo(f"{self.root}/{name}"), data)
        return buffer.getvalue()


def read_archive(data: bytes, name: str) -> Archive:
    """The members of the zip archive ``data``. Raises InputError for a damaged or an odd one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            infos = file.infolist()
            _check(infos, len(data), name)
            root = infos[0].filename.split("/", 1)[0]
            members = {info.filename[len(root) + 1 :]: file.read(info) for info in infos}
    except _ODD as error:
        raise _damaged(name, error) from None
    return Archive(root, members)


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: a damaged zip archive ({error})", "was the download or the save cut short?")


def member_names(data: bytes, name: str) -> set[str]:
    """Return the members' names, below the root folder if there is one; nothing else of the archive is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return {member.partition("/")[2] or member for member in file.namelist()}
    except _ODD as error:
        raise _damaged(name, error) from None


def _check(infos: list[zipfile.ZipInfo], size: int, name: str) -> None:
    """Refuse what torch never writes."""
    hint = "save it again with torch.export.save"
    if not infos or len(infos) > MOST_MEMBERS:
        raise InputError(f"{name}: a zip archive of {len(infos)} members", hint)
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{name}: the archive has two members called {twice!r}", hint)
    roots = {member.split("/", 1)[0] for member in names}
    for info in infos:
        member = info.filename
        plain = posixpath.normpath(member) == member and not member.startswith("/")
        if not plain or ".." in member.split("/") or "\\" in member or "\0" in member or "/" not in member:
            raise InputError(f"{name}: the archive has a member with the unsafe name {member!r}", hint)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise InputError(f"{name}: {member!r} is compressed or encrypted, which torch never does", hint)
    if len(roots) != 1:
        raise InputError(f"{name}: the archive has members outside of its one folder", hint)
    if sum(info.file_size for info in infos) > size:
        raise InputError(f"{name}: the archive claims more bytes than it has", hint)
