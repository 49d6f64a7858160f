"""What every job has: its name, seed and storage, where it comes from, and paths made absolute."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from lehr.credentials import has_credentials
from lehr.durations import seconds_in
from lehr.errors import JobError
from lehr.job.compare import job_hash
from lehr.job.notify import notify_reference
from lehr.job.sections import LOCAL_PATH, NO_PATHS, Section
from lehr.job.text import show
from lehr.job.tree import FieldPath, Node, dotted
from lehr.paths import default_storage, misspelt_address


def _name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", value):
        return value
    allowed = "at most 100 letters, digits, dots, underscores and dashes, not starting with a dot"
    raise ValueError(f"{show(value)} is not a name; allowed: {allowed}")


Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


@dataclass(frozen=True)
class Origin:
    """Where a job comes from; its error messages, its folder and its default name depend on it."""

    folder: Path = field(default_factory=Path.cwd)
    source: str = ""
    default_name: str = ""
    tree: Node | None = None
    dropped: Mapping[FieldPath, str] = field(default_factory=dict)
    file: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    submitted_from: str = ""


Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


def _time(text: str) -> str:
    seconds_in(text)
    return text


class Job(Section):
    """What every job has. Paths in it are absolute; `~` and paths relative to the job file are resolved."""

    kind: str
    name: Annotated[str, BeforeValidator(_name, json_schema_input_type=str)] | None = Field(
        default=None, description="Names the run folder. By default the file's name and a slug of the overrides."
    )
    seed: Seed = Field(default=0, description="Seed of everything random: split, order, weights, augmentation.")
    storage: Annotated[str, LOCAL_PATH] = Field(
        default_factory=default_storage,
        min_length=1,
        json_schema_extra={"default": "./runs"},
        description="Folder of the run folders, or s3://…, gs://…. By default LEHR_STORAGE, else ./runs here.",
    )
    notes: str = Field(default="", description="Free text that is kept with the run.")
    notify: Annotated[str, AfterValidator(notify_reference)] | None = Field(
        default=None,
        description="An address (https://…), or env:NAME, an environment variable that holds one: it gets a small JSON "
        "when the job has finished, failed or stopped. By default nobody is told.",
    )
    time_limit: Annotated[str, AfterValidator(_time)] | None = Field(
        default=None,
        description="How long it may take from its start to its stop: 45s, 30min, 2h, 1h 30min, 2d. Then it saves and "
        "stops, as with Ctrl-C, and can be resumed for as long again. By default as long as it needs.",
    )
    tracking: list[Tracker] = Field(
        default=[],
        description="Trackers that get parameters, metrics and report while the job runs: tensorboard, mlflow, wandb, "
        "trackio. Where they are, their own variables say, such as MLFLOW_TRACKING_URI.",
    )

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="after")
    def _make_paths_absolute(self, info: ValidationInfo) -> Job:
        for path, text in _texts(self.model_dump(exclude={"notes", "notify"})):
            if has_credentials(text):  # it would be in the run folder, in messages and in names
                what = "holds a password; allowed: credentials in the environment (AWS_SECRET_ACCESS_KEY and the like)"
                raise JobError(what, field=".".join(map(str, path)))
        folder_of = (info.context or {}).get("folder_of", lambda path: Path.cwd())
        for path, text in list(path_fields(self)):
            if problem := misspelt_address(text):
                raise JobError(problem, field=".".join(map(str, path)))
            self.__dict__.update(_with_value(self, path, absolute(text, folder_of(path))).__dict__)
        return self

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal, wherever they come from."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    @property
    def folder(self) -> Path:
        """The absolute folder of the job file (the current folder for a job built in Python), for sys.path."""
        return self._origin.folder

    @property
    def source(self) -> str:
        """The job file as messages show it; empty for a job built in Python."""
        return self._origin.source

    @property
    def file(self) -> str:
        """The absolute path of the job file; empty for a job built in Python."""
        return self._origin.file

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What was changed beside the file: dotted path to value."""
        return self._origin.overrides

    @property
    def submitted_from(self) -> str:
        """The folder that was sent to a cluster with the job; empty for a job that runs where it was begun."""
        return self._origin.submitted_from

    @property
    def named_explicitly(self) -> bool:
        """Whether `name` was given, by the file or an override."""
        return self.name is not None

    @property
    def run_name(self) -> str:
        """The name of the run folder: `name`, else the file's stem and overrides, else the kind and the job's hash."""
        return self.name or self._origin.default_name or f"{self.kind}-{job_hash(self)[:8]}"

    def error(self, field: str, what: str) -> JobError:
        """An error about the dotted `field` that points to the line or override that sets it (or its section)."""
        path: FieldPath = tuple(int(part) if part.isdecimal() else part for part in field.split(".")) if field else ()
        tree = self._origin.tree
        for section, said in self._origin.dropped.items():
            if path[: len(section)] == section:
                name = dotted(section)
                what += f" (another {name}.name replaces the whole of {name}; to keep what was there, also type {said})"
        return JobError(what, field=field, where=str(tree.locate(path)) if tree else "")


def absolute(text: str, folder: Path) -> str:
    """A local path made absolute, `~` expanded; URIs and references (`run:NAME`, `pretrained:NAME`) stay."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|run:|pretrained:", text):
        return text
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text)))


def path_fields(section: BaseModel, *, runs: bool = False, at: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Every path and URI of a job, or of a section of it, with its field; references (`run:NAME`) among them.

    Args:
        runs: also the references to runs in fields that hold no paths otherwise, such as `backbone.name`.
    """
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from path_fields(value, runs=runs, at=(*at, name))
        elif isinstance(value, str) and (
            (LOCAL_PATH in info.metadata and value not in NO_PATHS) or (runs and value.startswith("run:"))
        ):
            yield (*at, name), value


def _texts(value: Any, at: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Every text in a job, with its field."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*at, key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, (*at, number))


def _with_value(model: BaseModel, path: FieldPath, value: str) -> BaseModel:
    """A copy of a model with one field changed, however deep it is."""
    name = str(path[0])
    return model.model_copy(update={name: _with_value(getattr(model, name), path[1:], value) if path[1:] else value})
