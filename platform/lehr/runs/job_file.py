"""`job.yaml`: the job of a run as resolved, with the number of the run folder's format."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lehr.errors import RunError
from lehr.runs.storage import Folder

FORMAT = 4
MAX_VALUES = 100_000  # in a job; aliases counted each time
MOST_BYTES = 256 << 10  # of job.yaml; a job has a few thousand, and reading this much takes 3 s
MOST_DEEP = 500  # levels that the quick loader is given
NAME = "job.yaml"
_FIRST = re.compile(rb"format: ([0-9]{1,9})\n")
_SEAL = re.compile(rb"# sha256: ([0-9a-f]{64})\n\Z")


@dataclass(frozen=True)
class JobFile:
    """`job.yaml`. A folder that holds one is a run.

    Attributes:
        format: number of the format that the run was created in.
        job: as it was written; renamed fields may have their old names.
    """

    format: int
    job: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Folder) -> JobFile:
        """Raises `RunError` where there is none, where it is damaged, and for a format newer than this lehr's."""
        return cls.of(_content(folder), folder)

    @classmethod
    def of(cls, data: bytes, folder: Folder) -> JobFile:
        """The same of its content."""
        try:
            job = yaml.load(data, _loader_for(data))  # a safe loader
        except _NOT_YAML as error:
            raise RunError(f"{folder.uri}/job.yaml: is damaged: it is not YAML") from error
        number = job.pop("format", None) if isinstance(job, dict) else None
        if type(number) is not int or number < 1:
            raise RunError(f"{folder.uri}/job.yaml: is not the job of a run: it has no format")
        if not _is_finite(job):
            raise RunError(f"{folder.uri}/job.yaml: is damaged: it holds more than {MAX_VALUES} values")
        if (sealed := _SEAL.search(data)) and sealed[1].decode() != _digest(data[: sealed.start()]):
            raise RunError(
                f"{folder.uri}/job.yaml: was changed after lehr had written it, on purpose or by a damaged disk: its "
                "checksum differs; if the change is yours, delete the last line of the file"
            )
        if number > FORMAT:
            newer = f"was written by a newer lehr (format {number}, this one reads up to {FORMAT}); update lehr"
            raise RunError(f"{folder.uri}: {newer}")
        return cls(number, job)

    @staticmethod
    def looked_at(folder: Folder) -> tuple[int, bytes]:
        """Its format and its content, with the errors of `read`. What lehr has written, as its checksum shows, need not
        be read for that, which takes most of the time of listing many runs."""
        data = _content(folder)
        first, sealed = _FIRST.match(data), _SEAL.search(data)
        whole = sealed is not None and sealed[1].decode() == _digest(data[: sealed.start()])
        known = int(first[1]) if first and whole else 0
        return (known, data) if 1 <= known <= FORMAT else (JobFile.of(data, folder).format, data)

    def write(self, folder: Folder) -> None:
        """Replaces job.yaml. Raises `RunError` for a job that YAML cannot hold."""
        folder.write(NAME, self.to_yaml(folder))

    def to_yaml(self, folder: Folder) -> bytes:
        """As the file has it. Raises `RunError`, which names the folder, for a job that YAML cannot hold."""
        document = {"format": self.format} | {key: value for key, value in self.job.items() if key != "format"}
        try:
            content = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
        except yaml.YAMLError as error:
            raise RunError(f"{folder.uri}/job.yaml: cannot be written: {' '.join(map(str, error.args))}") from error
        return content + f"# sha256: {_digest(content)}\n".encode()


def _content(folder: Folder) -> bytes:
    try:
        return folder.read(NAME, MOST_BYTES)
    except FileNotFoundError as error:
        raise RunError(f"{folder.uri}: is not a run folder: it has no job.yaml") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Strict(yaml.constructor.SafeConstructor):
    """Constructs plain values alone, without merge keys, which nobody writes and which can take memory without end."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Does nothing, so that a merge key is a mistake."""


class _Loader(_Strict, yaml.SafeLoader):
    """A loader in Python, which stops at any depth."""


class _QuickLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader in C where there is one, ten times as fast: listing a thousand runs reads as many jobs.

    It recurses without end: the process dies of some ten thousand brackets.
    """


def _loader_for(data: bytes) -> type[yaml.SafeLoader]:
    """The quick loader for what cannot be nested deeply: each level takes a bracket, or a column of a line."""
    lines = data.splitlines()
    columns = max((len(line) - len(line.lstrip()) + line.count(b"- ") + line.count(b"? ") for line in lines), default=0)
    deepest = data.count(b"[") + data.count(b"{") + 2 * columns
    return _QuickLoader if deepest < MOST_DEEP else _Loader


# What the loader raises besides errors of its own: for bytes, tags, dates and numbers that are none, and for depth.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def _is_finite(tree: object) -> bool:
    """Whether it has at most `MAX_VALUES` values: YAML's aliases can make billions of one line, or a circle."""
    waiting, seen = [tree], 0
    while waiting and seen <= MAX_VALUES:
        value, seen = waiting.pop(), seen + 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not waiting
