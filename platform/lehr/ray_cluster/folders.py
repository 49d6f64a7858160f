"""Folders of this user alone: what is known of the cluster on this machine, and where a Ray keeps its sockets."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

from lehr.errors import LehrError
from lehr.paths import user_folder
from lehr.processes import this_machine

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a socket: a limit of the system's `sockaddr_un`."""
RAYS_PART = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12") + len("/node-99")
"""What Ray, and the simulated nodes of a local cluster, add to the path of their temporary folder."""
_LONGEST = SOCKET_BYTES - RAYS_PART
_FIRST_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, fixed in Linux


def state_folder() -> Path:
    """Where this user's cluster on this machine is recorded: LEHR_STATE, else a folder of this machine in ~/.lehr.

    Machines may share a home folder, and a container may share it with its host: each has a folder of its own.
    """
    if os.environ.get("LEHR_STATE"):
        return user_folder()
    namespace = this_machine().partition("/")[2].partition("/")[0]
    container = "" if namespace in ("", _FIRST_NAMESPACE) else f"-{namespace.strip('pid:[]')}"
    return user_folder() / f"{platform.node() or 'localhost'}{container}"


def make_state_folder() -> Path:
    """Creates the state folder, for its owner only.

    Raises:
        LehrError: others may write to it, and could plant what would be run or overwritten.
    """
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_ours(folder):
            raise LehrError(f"{folder}: others may write to this folder; set LEHR_STATE to a folder of your own")
        if not os.environ.get("LEHR_STATE"):
            for each in (folder.parent, folder):
                each.chmod(0o700)
    except OSError as error:
        raise LehrError(f"{folder}: cannot create this folder: {error.strerror}; set LEHR_STATE to another") from None
    return folder


def ray_folder() -> Path:
    """The temporary folder of a Ray that is started here: this user's alone, and short enough for its sockets.

    By default it is in TMPDIR, or in /tmp where that is too long for a socket's path; RAY_TMPDIR names another place.

    Raises:
        LehrError: the folder that RAY_TMPDIR names is too long.
    """
    if named := os.environ.get("RAY_TMPDIR"):
        if len(os.fsencode(named)) + len("/ray") > _LONGEST:
            raise LehrError(
                f"RAY_TMPDIR={named} is too long for the sockets of Ray; the system allows {_LONGEST - len('/ray')} "
                "bytes here. Type: export RAY_TMPDIR=/tmp"
            )
        return Path(named) / "ray"
    place = f"lehr-{os.getuid()}"
    for base in (os.environ.get("TMPDIR") or "/tmp", "/tmp"):
        folder = Path(base).absolute() / place
        if len(os.fsencode(folder)) + len("/ray") > _LONGEST:
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            # Ray opens its own folder to everyone, so that one is inside.
            if _is_ours(folder):
                folder.chmod(0o700)
                return folder / "ray"
        except OSError:
            continue
    # Somebody else has taken our name in /tmp.
    return Path(tempfile.mkdtemp(prefix="lehr-", dir="/tmp")) / "ray"


def _is_ours(folder: Path) -> bool:
    """Whether the folder is this user's, is no link, and nobody else may write to it."""
    found = folder.lstat()
    if os.path.islink(folder):
        return False
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
