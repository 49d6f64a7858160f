"""Doing something as another user of this machine, in a process that becomes that user. Needs root."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

import lehr
from tests.support import PRELOAD


@dataclass(frozen=True)
class User:
    """A user who need not have an account."""

    number: int
    group: int
    umask: int = 0o022


@dataclass(frozen=True)
class Done:
    """What a user's action printed, and the error that it ended with; empty for none."""

    printed: str
    error: str


def as_user(user: User, where: Path, action: Callable[..., Any], *arguments: Any, **options: Any) -> Done:
    """Runs an action, which must be picklable, as a user in a folder of his own."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_become_and_do, args=(theirs, user, where, action, arguments, options))
    process.start()
    theirs.close()
    try:
        printed, error = ours.recv()
    finally:
        process.join(60)
        process.kill()
    return Done(printed, error)


def _become_and_do(
    answer: Connection, user: User, where: Path, action: Callable[..., Any], arguments: Any, options: Any
) -> None:
    _import_what_is_hidden()
    os.setgroups([])
    os.setgid(user.group)
    os.setuid(user.number)
    os.umask(user.umask)
    os.environ["HOME"] = str(where)
    os.chdir(where)
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            action(*arguments, **options)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
    answer.send((printed.getvalue(), error))


def _import_what_is_hidden() -> None:
    """Imports the standard library where other users may not read it, as in an interpreter in the home of root."""
    if _is_open(Path(os.__file__)):
        return
    for name in sys.stdlib_module_names - {
        "antigravity",
        "idlelib",
        "lib2to3",
        "this",
        "tkinter",
        "turtle",
        "turtledemo",
    }:
        _import_all(name)


def _import_all(name: str) -> None:
    """Imports a module and, of a package, the modules in it; leaves out those that cannot be imported here."""
    with contextlib.suppress(Exception, SystemExit):
        module = importlib.import_module(name)
        for each in pkgutil.iter_modules(getattr(module, "__path__", ())):
            if each.name not in ("__main__", "test", "tests"):
                _import_all(f"{name}.{each.name}")


def _is_open(path: Path) -> bool:
    """Whether everybody may read a file."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in path.parents) and bool(path.stat().st_mode & stat.S_IROTH)


needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not _is_open(Path(lehr.__file__)) or not _is_open(Path(torch.__file__)),
    reason="only root becomes another user, who must be able to read the code",
)


@contextlib.contextmanager
def open_folder(*homes: User) -> Iterator[Path]:
    """A temporary folder that everybody may read, with a folder for each user, named by number."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        for user in homes:
            home = folder / str(user.number)
            home.mkdir()
            os.chown(home, user.number, user.group)
        yield folder
    finally:
        shutil.rmtree(folder)
