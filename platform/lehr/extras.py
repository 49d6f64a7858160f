"""What to type to install the libraries of an optional extra, from where this lehr itself was installed."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """`pip install 'lehr[serve]'` or, for a lehr that runs from a checkout, `pip install -e '.[serve]'`."""
    return command(extra, _origin(), Path.cwd())


def command(extra: str, origin: Mapping[str, Any], here: Path) -> str:
    """The command for a lehr of this origin.

    Args:
        origin: the content of `direct_url.json` (PEP 610): where pip took the package from; empty for an index.
        here: the current folder.
    """
    address = str(origin.get("url", ""))
    if "dir_info" in origin and address.startswith("file:"):
        folder = Path(unquote(urlsplit(address).path))
        where = "." if _same(folder, here) else str(folder)
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{where}[{extra}]')}"
    version = origin.get("vcs_info", {})
    if version.get("vcs"):
        at = f"@{version['commit_id']}" if version.get("commit_id") else ""
        address = f"{version['vcs']}+{address}{at}"
    return f"pip install {shlex.quote(f'lehr[{extra}] @ {address}' if address else f'lehr[{extra}]')}"


def _origin() -> Mapping[str, Any]:
    """Where this lehr comes from; a checkout that is only on Python's path counts as one that pip would link."""
    root = Path(__file__).parents[2]
    if (root / "pyproject.toml").exists():
        return {"url": root.as_uri(), "dir_info": {"editable": True}}
    try:
        told = distribution("lehr").read_text("direct_url.json")
        found = json.loads(told) if told else {}
    except (PackageNotFoundError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
