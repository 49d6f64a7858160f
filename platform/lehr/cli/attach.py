"""`lehr attach`: watch a job on a cluster."""

from __future__ import annotations

from lehr.cli.options import Cluster, JobName, Kubernetes, connect, submitted
from lehr.cli.submit import watch


def attach(run: JobName, cluster: Cluster = None, kubernetes: Kubernetes = None) -> None:
    """Watch a job on a cluster until it ends, as if it ran here.

    Ctrl-C stops the watching, not the job.

    Example: lehr attach digits
    """
    jobs = connect(cluster, kubernetes)
    watch(jobs, submitted(jobs, run))
