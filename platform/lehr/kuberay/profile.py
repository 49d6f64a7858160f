"""A cluster profile: what a Kubernetes cluster offers to jobs. A typed file, read and checked like a job file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from lehr.credentials import has_credentials, is_secret
from lehr.errors import ClusterError, JobError
from lehr.job import Section, not_a_choice, parse_overrides
from lehr.job.merge import merge, override_trees
from lehr.job.messages import explain
from lehr.job.text import show
from lehr.job.tree import Location, Node, read_yaml

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MANAGED = (  # set by KubeRay, in setContainerEnvVars and SetContainerTokenAuthEnvVars
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_CLOUD_INSTANCE_ID",
    "RAY_CLUSTER_NAME",
    "RAY_CLUSTER_NAMESPACE",
    "RAY_IP",
    "RAY_NODE_TYPE_NAME",
    "RAY_PORT",
    "RAY_enable_autoscaler_v2",
    "FQ_RAY_IP",
)
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


def _matches(pattern: str, noun: str, allowed: str, limit: int = 253) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if isinstance(value, str) and len(value) <= limit and re.fullmatch(pattern, value, re.ASCII):
            return value
        raise ValueError(f"{show(value)} is not {noun}; allowed: {allowed}")

    return check


def _image(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][\w./:-]*(@sha256:[0-9a-f]{64})?", value, re.ASCII):
        raise ValueError(f"{show(value)} is not an image; allowed: registry/name:tag or registry/name@sha256:digest")
    tag = value.rpartition("/")[2].partition(":")[2]
    if "@sha256:" in value or (tag and tag != "latest"):
        return value
    what = "has the tag latest" if tag else "has no tag"
    raise ValueError(
        f"{show(value)} {what}, so a retry could run another version of lehr; allowed: name:tag or name@sha256:digest"
    )


def _seconds(value: Any) -> int:
    match = re.fullmatch(r"(\d{1,9})\s*([smhd])", value, re.ASCII) if isinstance(value, str) else None
    if match:
        return int(match[1]) * SECONDS[match[2]]
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"{show(value)} is not a time; allowed: 30s, 10m, 24h or 7d")


def _environment(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise ValueError(f"{show(name)} is not the name of an environment variable")
        if name in MANAGED:
            raise ValueError(f"{name} is set by KubeRay and must not be set here")
        if is_secret(name, value[name]):
            raise ValueError(
                f"{name} would be readable in every manifest; put it into a Secret and name that: secret: NAME"
            )
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, label in value.items():
        prefix, slash, name = key.rpartition("/")
        valid = re.fullmatch(_NAME, name, re.ASCII) and (not slash or re.fullmatch(SUBDOMAIN, prefix, re.ASCII))
        if not valid or (label and not re.fullmatch(_NAME, label, re.ASCII)):
            raise ValueError(f"{show({key: label})} is not a label; allowed: key: value, as on the cluster's nodes")
    return value


_WORDS = "lower-case letters, digits and dashes"
Dns = Annotated[
    str,
    BeforeValidator(_matches(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "a name", _WORDS, 63), json_schema_input_type=str),
]
Object = Annotated[
    str, BeforeValidator(_matches(SUBDOMAIN, "a name", f"{_WORDS}, and dots between"), json_schema_input_type=str)
]
Memory = Annotated[
    str,
    BeforeValidator(_matches(r"[1-9]\d*(Mi|Gi|Ti)", "an amount of memory", "512Mi, 8Gi"), json_schema_input_type=str),
]
Disk = Annotated[
    str,
    BeforeValidator(_matches(r"[1-9]\d*(Mi|Gi|Ti)", "an amount of disk", "20Gi, 1Ti"), json_schema_input_type=str),
]
Folder = Annotated[
    str,
    BeforeValidator(
        _matches(r"/[\w.-]+(/[\w.-]+)*", "a folder", "an absolute path, such as /data"), json_schema_input_type=str
    ),
]
Image = Annotated[str, BeforeValidator(_image, json_schema_input_type=str)]
Seconds = Annotated[int, BeforeValidator(_seconds, json_schema_input_type=str | int)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]


_DISK = "Local disk of each pod: logs, temporary files, data that do not fit into memory. A pod that uses more ends."


class Toleration(Section):
    """A taint of nodes that pods tolerate."""

    short: ClassVar[str | None] = "key"

    key: str = Field(min_length=1, description="The taint's key.")
    value: str | None = Field(default=None, description="The taint's value. By default any.")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = Field(
        default="NoSchedule", description="The taint's effect."
    )


class Nodes(Section):
    """Which nodes pods run on."""

    select: Labels = Field(default={}, description="Labels that the nodes must have.")
    tolerate: list[Toleration] = Field(default=[], description="Taints of these nodes, as keys or mappings.")


class Gpu(Nodes):
    """The GPUs of the cluster."""

    resource: Literal["nvidia.com/gpu", "amd.com/gpu"] = Field(
        default="nvidia.com/gpu",
        description="The cluster's name for a GPU resource; the taint of that name is tolerated.",
    )


class Head(Nodes):
    """The head: Ray's control plane, the job's driver and the decoded data; no training."""

    cpus: float = Field(default=2.0, gt=0, description="CPU cores.")
    memory: Memory = Field(default="8Gi", description="Memory; about 30% of it is for the decoded data set.")
    disk: Disk = Field(default="20Gi", description=_DISK)


class Workers(Nodes):
    """The pods that train. One pod per training worker, or several workers where they share a GPU."""

    count: int = Field(
        default=1, ge=1, description="Workers of a job with workers: auto, and of a job that runs several trainings."
    )
    gpus: float = Field(default=0.0, ge=0, description="GPUs of each worker of a job with workers: auto.")
    cpus: float = Field(default=2.0, gt=0, description="CPU cores of each worker of a job without workers.cpus.")
    data_cpus: float = Field(default=1.0, ge=0, description="More CPU cores of each pod, for loading and decoding.")
    memory: Memory = Field(default="8Gi", description="Memory of each pod.")
    disk: Disk = Field(default="20Gi", description=_DISK)
    gpu: Gpu | None = Field(default=None, description="The GPUs of the cluster. By default none.")
    spot: Nodes | None = Field(
        default=None, description="Spot nodes, tried first; if none is free, ordinary nodes are used."
    )


class Profile(Section):
    """A Kubernetes cluster as jobs see it."""

    image: Image = Field(description="The image with lehr in it: name:tag or name@sha256:….")
    namespace: Dns = Field(default="default", description="Where jobs are created.")
    storage: str | None = Field(
        default=None, min_length=1, description="Where run folders go: s3://…, gs://…, or a folder in one of `volumes`."
    )
    service_account: Object | None = Field(
        default=None,
        description="Service account of the pods, to which a cloud grants access to the storage.",
    )
    secret: Object | None = Field(
        default=None, description="Secret whose keys become environment variables, such as the storage's credentials."
    )
    env: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default={}, description="More environment variables, such as AWS_ENDPOINT_URL. Nothing secret."
    )
    volumes: dict[Object, Folder] = Field(
        default={}, description="Persistent volume claims, and where each is mounted."
    )
    pull_secrets: list[Object] = Field(default=[], description="Secrets to pull the image with.")
    head: Head = Field(default=Head(), description="The head pod.")
    workers: Workers = Field(default=Workers(), description="The worker pods.")
    authentication: bool = Field(default=True, description="Whether Ray requires a token, which KubeRay creates.")
    deadline: Seconds | None = Field(
        default=None,
        gt=0,
        description="How long an attempt may take; it is not retried afterwards. By default there is no limit.",
    )
    retries: int = Field(default=3, ge=0, le=100, description="New clusters after a failure; each resumes the run.")
    start: Seconds | None = Field(
        default=3600,
        gt=0,
        description="How long an attempt may wait for its pods until it fails; time in a queue does not count.",
    )
    keep: Seconds = Field(default=600, description="How long the cluster stays after the job, for inspection.")
    grace: Seconds = Field(
        default=120, ge=1, le=3600, description="Time to save a checkpoint before a pod that must go is killed."
    )
    idle: Seconds = Field(default=300, description="How long an idle worker pod stays, if the cluster is autoscaled.")
    queue: Dns | None = Field(default=None, description="Kueue's local queue. By default jobs start immediately.")
    priority: Object | None = Field(default=None, description="Kueue's workload priority class; needs a queue.")

    @model_validator(mode="after")
    def _together(self) -> Profile:
        if self.priority and not self.queue:
            raise ValueError("priority is Kueue's and needs a queue; allowed: priority together with queue: NAME")
        if self.queue and self.workers.spot:
            raise ValueError(
                "Kueue admits a fixed set of pods, and spot nodes with a fallback need autoscaling; "
                "allowed: one of queue and workers.spot"
            )
        if self.workers.gpus and not self.workers.gpu:
            raise ValueError(
                "workers.gpus needs workers.gpu, which describes the GPUs; allowed: gpu: {} for nvidia.com/gpu"
            )
        if self.storage and has_credentials(self.storage):
            raise ValueError("storage holds a password; allowed: the address without it, and secret: NAME")
        if self.storage and not self.reaches(self.storage):
            raise ValueError(
                f"storage {show(self.storage)} is a folder on one machine, which pods do not share; "
                "allowed: s3://…, gs://…, or a folder in one of volumes"
            )
        duplicate = [path for path in self.volumes.values() if list(self.volumes.values()).count(path) > 1]
        reserved = [
            path for path in self.volumes.values() if path.split("/")[1] in ("tmp", "dev", "etc", "proc", "venv")
        ]
        if duplicate or reserved:
            path, why = (duplicate[0], "used twice") if duplicate else (reserved[0], "reserved")
            raise ValueError(f"volumes: {path} is {why}; allowed: a folder of its own, such as /data")
        return self

    @property
    def is_pinned(self) -> bool:
        """Whether the image is always the same one."""
        return "@sha256:" in self.image

    def with_env(self, variables: Mapping[str, str]) -> Profile:
        """The profile with more environment variables. Raises JobError for one that does not belong in a manifest."""
        try:
            _environment(dict(variables))
        except ValueError as error:
            raise JobError(str(error), field="--env") from None
        return self.model_copy(update={"env": {**self.env, **variables}})

    def reaches(self, path: str) -> bool:
        """Whether every pod sees this address or absolute path as the same thing."""
        mounts = [mount.rstrip("/") + "/" for mount in self.volumes.values()]
        return ("://" in path and not path.startswith("file:")) or any(f"{path}/".startswith(mount) for mount in mounts)


def profile_file(given: str | None, option: str) -> str:
    """The profile's file: as given, else LEHR_PROFILE. Raises ClusterError, which names the option, without one."""
    file = given or os.environ.get("LEHR_PROFILE")
    if not file:
        raise ClusterError(f"no cluster profile given; pass {option} FILE or set LEHR_PROFILE")
    return file


def load_profile(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Profile:
    """The profile in a file, with `overrides` such as `["retries=0"]` applied to it.

    Raises:
        JobError: one sentence with the file and line, the field, and what is allowed.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise JobError(f"no such cluster profile{_others(file)}", where=str(file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(file)) from None
    tree = read_yaml(text, Location(str(file), 1, file.parent))
    if tree is None or not isinstance(tree.value, dict):
        raise JobError("not a cluster profile; it needs at least one line: image: name:tag", where=str(file))
    for override in override_trees(parse_overrides(list(overrides)), Location("command line")):
        tree = merge(tree, override, {})
    tree = Node(tree.value, Location(str(file), None, file.parent))
    try:
        return Profile.model_validate(tree.plain())
    except ValidationError as error:
        raise explain(error, Profile, tree) from None


def _others(file: Path) -> str:
    try:
        names = sorted(entry.name for entry in file.parent.iterdir() if entry.suffix == ".yaml")
    except OSError:
        return ""
    return "; " + not_a_choice(file.name, "profile", names) if names else ""
