"""`lehr attach`: watch a job on a cluster."""

from __future__ import annotations

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted
from lehr.cli.submit import watch


def attach(run: JobName, cluster: Cluster = None, kubernetes: Kubernetes = None) -> None:
    """Watch a job on a cluster, as if it ran here, until it ends. Ctrl-C ends the watching, not the job."""
    jobs = connect(cluster, kubernetes)
    watch(jobs, submitted(jobs, run))
