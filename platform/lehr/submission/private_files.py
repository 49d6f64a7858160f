"""Files that never travel unasked, since they hold passwords, keys or tokens: by name, and a few by content.

A name that no line here knows passes, and so does a secret inside an ordinary file.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch, translate

from lehr.credentials import has_credentials

FOLDERS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".aws", ".azure", ".config/gcloud", ".oci", ".boto"), "credentials of a cloud"),
    ((".kube",), "access to Kubernetes"),
    ((".ssh", ".gnupg", ".password-store"), "private keys"),
    ((".docker",), "logins of container registries"),
    ((".huggingface", ".cache/huggingface", ".kaggle", ".modal", ".ray"), "the token of a service"),
    ((".env*",), "environment variables, often with secrets"),
)
"""Folders, by the end of their path, and what is in them."""
FILES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".env*", "*.env"), "environment variables, often with secrets"),
    ((".netrc*", "_netrc", ".pgpass", ".my.cnf", ".htpasswd"), "passwords"),
    ((".git-credentials", ".gitconfig", ".hgrc"), "logins of version control"),
    (
        (".pypirc", "pip.conf", "pip.ini", ".npmrc", ".yarnrc*", ".dockercfg"),
        "logins of registries",
    ),
    (("*.pem", "*.key", "*.ppk", "*.jks", "*.keystore", "*.p12", "*.pfx", "*.kdbx"), "private keys"),
    (("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"), "private keys"),
    (("kubeconfig*", "*.kubeconfig"), "access to Kubernetes"),
    (("application_default_credentials.json", "client_secret*.json", ".boto", ".s3cfg"), "credentials of a cloud"),
    (("credentials", "credentials.*", "secrets.*", ".secrets*", "rclone.conf"), "credentials"),
    (("*.tfstate*", "*.tfvars", ".terraformrc", "credentials.tfrc.json"), "secrets of Terraform"),
    (("auth_token", ".vault-token", "huggingface/token", "stored_tokens", "kaggle.json"), "the token of a service"),
    ((".databrickscfg", ".modal.toml", ".netlify", ".vercel"), "the token of a service"),
)
"""Files, by the end of their path, and what is in them. Python files are code, whatever their name."""
WITH_ADDRESSES = (
    "*requirements*.txt", "constraints*.txt", "pipfile*", "pyproject.toml", "*.lock", ".gitmodules", "*.cfg", "*.ini",
    "*.conf",
)  # fmt: skip
"""Files in which tools write the addresses of indexes and repositories, now and then with a password (lower case)."""
HEAD = 64 * 1024
"""Bytes of a file that are looked at."""
_PRIVATE_KEY = re.compile(rb"\s*(-----BEGIN [A-Z ]*PRIVATE KEY|PuTTY-User-Key-File)")
_KEY_IN_JSON = re.compile(rb'"type"\s*:\s*"service_account"|"private_key"\s*:\s*"-----BEGIN')


def _pattern(table: tuple[tuple[tuple[str, ...], str], ...]) -> tuple[re.Pattern[str], list[str]]:
    """One expression for all lines of a table; the number of the group that matches is that of the line."""

    def expression(name: str) -> str:
        return translate(name).removesuffix(r"\Z").removesuffix(r"\z").replace(".*", "[^/]*")

    lines = ["|".join(map(expression, names)) for names, _ in table]
    return re.compile(f"(?:.*/)?(?:{'|'.join(f'({line})' for line in lines)})", re.DOTALL), [why for _, why in table]


_FOLDERS, _FILES = _pattern(FOLDERS), _pattern(FILES)


def private_folder(path: str) -> str:
    """What a folder of this name holds that must not travel; empty for most folders. `path` has `/`."""
    return _matched(_FOLDERS, path)


def private_file(path: str) -> str:
    """What a file of this name holds that must not travel; empty for most files. `path` has `/`."""
    return "" if path.endswith((".py", ".pyi")) else _matched(_FILES, path)


def private_content(path: str, head: bytes) -> str:
    """What the first bytes of a file show that must not travel; empty for most files."""
    if _PRIVATE_KEY.match(head):
        return "a private key"
    name = path.lower().rpartition("/")[2]
    if name.endswith(".json") and _KEY_IN_JSON.search(head):
        return "the key of a service account"
    if any(fnmatch(name, each) for each in WITH_ADDRESSES) and has_credentials(head.decode("utf-8", "replace")):
        return "an address with credentials"
    return ""


def _matched(known: tuple[re.Pattern[str], list[str]], path: str) -> str:
    pattern, reasons = known
    found = pattern.fullmatch(path.lower())
    return reasons[found.lastindex - 1] if found and found.lastindex else ""
