"""The token that a Ray cluster asks for: where Ray looks for it, and a new one where there is none yet."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from lehr.errors import ClusterError


def is_disabled() -> bool:
    """Whether RAY_AUTH_MODE=disabled turns tokens off."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"


def token() -> str | None:
    """The cluster's token, from where Ray looks for it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        ClusterError: the file that RAY_AUTH_TOKEN_PATH names cannot be read, or what was found is not a token.
    """
    if is_disabled():
        return None
    if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(value, "RAY_AUTH_TOKEN")
    named, path = os.environ.get("RAY_AUTH_TOKEN_PATH"), token_file()
    try:
        return _checked(path.read_text().strip(), str(path)) or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ClusterError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read: {why}") from None
        return None


def token_file() -> Path:
    """The file that holds the token, where it is not in RAY_AUTH_TOKEN."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def make_token() -> None:
    """Sees to it that there is a token, which nobody else can read, before a Ray starts that asks for it.

    Ray would make the same file, readable for everyone. One that Ray made earlier is closed, not replaced: a Ray that
    runs with it must stay reachable.

    Raises:
        ClusterError: the token that the environment names is none.
    """
    if is_disabled():
        return
    path = token_file()
    if token() is None:
        try:
            _create(path)
        except OSError:  # a home folder that cannot be written: this process and what it starts know the token
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            return
    with suppress(OSError):  # it may be in RAY_AUTH_TOKEN only, or belong to another user
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _create(path: Path) -> None:
    """Writes a new token; the one of another process that did so at the same time stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
            os.fsync(file.fileno())
        if path.exists() and not path.read_text().strip():
            os.replace(temporary, path)  # an empty file, which Ray takes for none
        else:
            with suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(value: str, where: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ClusterError(f"{where} does not hold a token; allowed: one line of letters, digits and punctuation")
    return value
