"""Whose a run on a shared disk is, and whether this user may write it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from lehr.errors import RunError
from lehr.runs.storage import Folder


def foreign_owner(folder: Folder) -> str:
    """The name of the other user who owns a run folder on a disk; empty if it is this user's, or an object store's."""
    if not folder.is_local or not folder.local_path.exists():
        return ""
    owner = folder.local_path.stat().st_uid
    return "" if owner == os.geteuid() else _name(owner)


def check_writable(folder: Folder) -> None:
    """Raises RunError, with what to type instead, where this user may not write a run or create it."""
    if not folder.is_local or os.name != "posix":
        return
    path = folder.local_path
    if not path.exists():
        while not path.exists():
            path = path.parent
        if not _may_write(path):
            what = f"{_name(os.geteuid())} may not create a run in {path}, which {_owned(path)}"
            instead = f"name another storage and runs by their paths, or let {_name(path.stat().st_uid)} type:"
            raise RunError(f"{folder.uri}: {what}; {instead} chmod g+w {path}")
        return
    for each in _written(path):
        if not _may_write(each):
            owner = _name(each.stat().st_uid)
            raise RunError(
                f"{folder.uri}: {_name(os.geteuid())} may not write {each}, which {_owned(each)}; let {owner} type: "
                f"chmod -R g+w {path} (and umask 002 before the next run there), or copy the run"
            )


def _written(path: Path) -> Iterator[Path]:
    """What a resumed run writes into or replaces."""
    yield path
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry)
            if entry.name == "checkpoints":
                yield from (Path(each) for each in os.scandir(entry) if each.is_dir(follow_symlinks=False))
        elif entry.name in ("log.txt", ".lease.lock") and entry.is_file(follow_symlinks=False):
            yield Path(entry)


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.W_OK, effective_ids=_EFFECTIVE)


_EFFECTIVE = os.access in os.supports_effective_ids


def _owned(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "is on a read-only file system"
    return f"belongs to {_name(path.stat().st_uid)}"


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a container's user without a name
        return f"user {user}"
