"""The Ray namespace of a submitted job names its run, so that others see whose resources they wait for."""

from __future__ import annotations

_PREFIX = "lehr:"


def namespace_of(run: str) -> str:
    """The Ray namespace in which the job of a run works."""
    return f"{_PREFIX}{run}"


def run_of(namespace: str | None) -> str | None:
    """The run that a namespace names; None for the namespace of anything else."""
    return namespace.removeprefix(_PREFIX) if namespace and namespace.startswith(_PREFIX) else None
