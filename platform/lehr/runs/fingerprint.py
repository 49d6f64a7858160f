"""Size and digest of a file, as manifests hold them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Fingerprint:
    """`size` in bytes and SHA-256 digest, lower-case hexadecimal."""

    size: int = 0
    sha256: str = ""

    @classmethod
    def of(cls, data: bytes) -> Fingerprint:
        """That of a file with these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())
