"""Credentials in addresses and in environment variables: what holds one, and how sentences show an address without it.

These are rules of thumb: they know the usual shapes. A password under a plain name, in a shape of its own, passes.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "…"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s\"'<>`]*)")
_WEB = re.compile(r"(.*\+)?https?", re.IGNORECASE)
_STORES = ("s3", "gs", "gcs")  # their addresses have a bucket and never a port
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")  # as pip reads it from the environment
_PARAMETER = re.compile(r"([?&;#])([^=&;#\s]+)=([^&;#\s]+)")
_SECRET_PARAMETER = re.compile(
    r"(?i).*(token|secret|passw|signature|credential|access.?key|api.?key|private.?key).*|sig|key|auth|pwd"
)
_WEBHOOK = re.compile(
    r"(?i)((hooks\.slack\.com(:\d+)?/(services|workflows|triggers)"
    r"|([\w-]+\.)?discord(app)?\.com(:\d+)?/api/(v\d+/)?webhooks"
    r"|[\w.-]+\.webhook\.office\.com(:\d+)?/\w+|hooks\.zapier\.com(:\d+)?/hooks"
    r"|maker\.ifttt\.com(:\d+)?/trigger|hc-ping\.com(:\d+)?)/|api\.telegram\.org(:\d+)?/bot)[^\s]+"
    r"|[\w.:-]+(/[\w-]+)?/hooks/[a-z0-9]{20,}"  # Mattermost, Rocket.Chat
)
"""Addresses of chats and the like whose path is the secret: whoever knows it may post."""
_SECRET_WORD = re.compile(r"(.*(TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|APIKEY|CREDENTIALS?)|KEY|NETRC)")
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|^(AKIA|ASIA)[0-9A-Z]{16}$"  # Amazon
    r"|\b(gh[pousr]_|github_pat_|glpat-)\w{16,}"  # GitHub, GitLab
    r"|\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bsk-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{30,}|\bya29\.[\w-]{10,}"  # OpenAI, Slack, Google
    r"|\bpypi-Ag[\w-]{20,}|\bnpm_[A-Za-z0-9]{30,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\."  # a JSON Web Token
)
_HARMLESS = ("", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null")


def mask(text: str) -> str:
    """The text without the credentials of the URLs in it: `https://user:token@host` becomes `https://…@host`.

    Hidden are the user and password before the host (a password may hold a slash), the values of parameters such as
    `?token=` and `X-Amz-Signature=`, and the path of a webhook such as Slack's. What an address takes from the
    environment (`${TOKEN}`) is shown.
    """
    return _URL.sub(lambda found: f"{found[1]}://{_masked(found[1].lower(), found[2])}", text)


def has_credentials(address: str) -> bool:
    """Whether an address holds a password, a token or a signature."""
    return mask(address) != address


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable looks like a secret: by its name, or by its value.

    A name that ends in `_FILE` or `_PATH`, or a value that is an absolute path, names where the secret is.
    """
    if _SECRET_VALUE.search(value) or has_credentials(value):
        return True
    words = name.upper().split("_")
    is_named = any(_SECRET_WORD.fullmatch(word) for word in words)
    is_path = words[-1] in ("FILE", "PATH", "DIR") or (words[-1] == "CREDENTIALS" and value.startswith(("/", "~")))
    return is_named and not is_path and value.lower() not in _HARMLESS


def _masked(scheme: str, rest: str) -> str:
    """The part of a URL after `scheme://`, masked."""
    end = _end_of_credentials(scheme, rest)
    if _WEBHOOK.fullmatch(rest[end + bool(end) :]):
        return f"{rest[end + bool(end) :].partition('/')[0]}/{HIDDEN}"
    shown = f"{HIDDEN}{rest[end:]}" if end else rest
    return _PARAMETER.sub(_masked_parameter, shown)


def _masked_parameter(found: re.Match[str]) -> str:
    is_hidden = _SECRET_PARAMETER.fullmatch(unquote(found[2])) and not _VARIABLE.fullmatch(found[3])
    return f"{found[1]}{found[2]}={HIDDEN if is_hidden else found[3]}"


def _end_of_credentials(scheme: str, rest: str) -> int:
    """Where the `@` after the credentials is; 0 where there are none."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        end = authority.rindex("@")
        user, colon, password = authority[:end].partition(":")
        if colon and password and not _VARIABLE.sub("", password):
            return 0
        # A user alone is a token in https://, and a container or a login elsewhere (abfs://box@account, ssh://git@host).
        return end if (colon or _WEB.fullmatch(scheme)) and _VARIABLE.sub("", user) else 0
    _, colon, port = authority.rpartition(":")
    if scheme in _STORES:
        return (rest.rindex("@") if "@" in rest else len(rest)) if colon else 0  # s3://KEY:with/slash@bucket
    if not colon or "@" not in rest or authority.startswith("[") or port.isdecimal():
        return 0
    return rest.rindex("@")
