"""What Prometheus needs to watch jobs: where to scrape Ray, recording rules, and alerts with a runbook line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lehr.monitoring.metrics import BY_NAME

DISCOVERY = "/tmp/ray/prom_metrics_service_discovery.json"
"""The targets of a cluster, kept up to date by its head node in Ray's temporary folder."""

RUN = "ray_io_cluster, run, kind, trial"


@dataclass(frozen=True)
class Thresholds:
    """When alerts fire. Times are seconds, `…_for` how long a condition must hold, in Prometheus's form.

    Attributes:
        no_progress: without a sign of life. Must be longer than the longest evaluation.
        input_share: of a step, waiting for input.
        gpu_percent: use of a node's GPUs below which they count as idle.
        restarts: within an hour.
        checkpoint_age: since the newest checkpoint.
        disk_percent: used. From 95 % on Ray refuses to spill objects to the disk.
    """

    no_progress: int = 900
    no_progress_for: str = "1m"
    input_share: float = 0.5
    input_for: str = "10m"
    gpu_percent: float = 10
    gpu_for: str = "10m"
    restarts: int = 3
    checkpoint_age: int = 3600
    checkpoint_for: str = "5m"
    disk_percent: float = 90
    disk_for: str = "5m"


@dataclass(frozen=True)
class Alert:
    """An alert.

    Attributes:
        hold: how long the expression must hold, in Prometheus's form.
        summary: one sentence, with Prometheus's templates.
        runbook: what to look at and do first.
    """

    name: str
    expression: str
    hold: str
    severity: str
    summary: str
    runbook: str


def recordings() -> dict[str, str]:
    """Recording rules: from the name of the new series to its expression."""
    parts = BY_NAME["lehr_part_seconds"].series
    return {
        "run:lehr_part:share1m": f"sum by ({RUN}, part) (rate({parts}[1m])) / ignoring (part) group_left () "
        f"(sum by ({RUN}) (rate({parts}[1m])) > 0)",
        "run:lehr_input:share5m": f'sum by ({RUN}) (rate({parts}{{part="input"}}[5m])) / '
        f'(sum by ({RUN}) (rate({parts}{{part=~"input|compute"}}[5m])) > 0)',
        "run:lehr_restarts:max": f"max by (ray_io_cluster, run) ({BY_NAME['lehr_restarts'].series})",
        "cluster:ray_nodes:up": "count by (ray_io_cluster) (ray_node_cpu_count)",
    }


def alerts(at: Thresholds | None = None) -> list[Alert]:
    """All alerts."""
    at = at or Thresholds()
    job = "{{ $labels.run }}{{ with $labels.trial }} {{ . }}{{ end }}"
    training = f"count by (ray_io_cluster) ({BY_NAME['lehr_running'].series}) > 0"
    held = 'sum by (ray_io_cluster, instance) (ray_resources{Name="GPU",State="USED"}) > 0'
    return [
        Alert(
            "LehrNoProgress",
            f"time() - max by ({RUN}) ({BY_NAME['lehr_progress_timestamp_seconds'].series}) > {at.no_progress}",
            at.no_progress_for,
            "critical",
            f"{job} has told nothing new for {{{{ $value | humanizeDuration }}}}",
            "Open the run's log (`lehr show` names it) and Ray's stack traces of its workers (dashboard, job, actors). "
            "One long evaluation looks the same. A worker that hangs: stop the job and run it again; it goes on "
            "from its newest checkpoint.",
        ),
        Alert(
            "LehrLossNotFinite",
            f"max by ({RUN}) (max_over_time({BY_NAME['lehr_not_finite'].series}[5m])) > 0",
            "0s",
            "critical",
            f"the training loss of {job} is NaN or infinite",
            "The learning rate is too high, most often. Look at the gradient norm before the jump; try a lower "
            "optimizer.lr, a schedule.warmup or train.clip.",
        ),
        Alert(
            "LehrInputBound",
            f"run:lehr_input:share5m > {at.input_share}",
            at.input_for,
            "warning",
            f"{job} spends {{{{ $value | humanizePercentage }}}} of its steps waiting for input",
            "Let the images fit into memory (data.cache, smaller data.image_size), pack them (`lehr data pack`), or "
            "give the cluster more CPUs for decoding.",
        ),
        Alert(
            "LehrGpuIdle",
            "avg by (ray_io_cluster, instance) (ray_node_gpus_utilization) < "
            f"{at.gpu_percent} and on (ray_io_cluster, instance) {held} and on (ray_io_cluster) {training}",
            at.gpu_for,
            "warning",
            "the GPUs of {{ $labels.instance }} are held by a job but {{ $value | humanize }} % busy",
            "Look at the run's shares of time: input, evaluation and checkpoints leave the GPU idle. A small model on "
            "a large GPU: a larger train.batch_size, or several trials per GPU.",
        ),
        Alert(
            "LehrRestarts",
            f"run:lehr_restarts:max - min_over_time(run:lehr_restarts:max[1h]) >= {at.restarts}",
            "0s",
            "warning",
            "{{ $labels.run }} was started again {{ $value }} times within an hour",
            "`lehr show` lists what ended each attempt. Killed workers are most often out of memory: see Ray's log of "
            "the node, and give the job fewer workers per node or a smaller batch.",
        ),
        Alert(
            "LehrCheckpointTooOld",
            f"time() - max by ({RUN}) ({BY_NAME['lehr_checkpoint_timestamp_seconds'].series}) > {at.checkpoint_age}",
            at.checkpoint_for,
            "warning",
            f"a crash of {job} would cost {{{{ $value | humanizeDuration }}}} of training",
            "Set train.checkpoint.every to less; if checkpoints should have come, the storage is slow or full: see the "
            "run's log.",
        ),
        Alert(
            "LehrDiskNearlyFull",
            f"max by (ray_io_cluster, ip) (ray_node_disk_utilization_percentage) > {at.disk_percent}",
            at.disk_for,
            "critical",
            "the disk of {{ $labels.ip }} is {{ $value | humanize }} % full",
            "Remove old runs (`lehr rm`) and Ray's old sessions on that node. From 95 % on Ray stops spilling, and "
            "jobs fail.",
        ),
        Alert(
            "LehrNodeLost",
            f"max_over_time(cluster:ray_nodes:up[10m]) - cluster:ray_nodes:up > 0 and on (ray_io_cluster) {training}",
            "0s",
            "critical",
            "{{ $value }} node{{ if gt $value 1.0 }}s{{ end }} of cluster {{ $labels.ray_io_cluster }} went away while "
            "a job runs",
            "The job goes on by itself where workers.retries and other nodes allow it. Ray's cluster page names the "
            "node; its log or the cloud's events say why. Scaling down by hand or by the autoscaler looks the same.",
        ),
    ]


def rules(at: Thresholds | None = None) -> dict[str, Any]:
    """The rule file."""
    recorded = [{"record": name, "expr": expression} for name, expression in recordings().items()]
    alerting = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.hold,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook": alert.runbook},
        }
        for alert in alerts(at)
    ]
    return {"groups": [{"name": "lehr", "rules": recorded}, {"name": "lehr-alerts", "rules": alerting}]}


def configuration(
    cluster: str = "ray", discovery: str = DISCOVERY, rule_file: str = "lehr.rules.yml"
) -> dict[str, Any]:
    """A Prometheus configuration that scrapes one cluster.

    Args:
        cluster: its name, as label `ray_io_cluster`: KubeRay and Ray's own dashboards use the same one.
        discovery: the file in which the cluster's head keeps its targets.
    """
    return {
        # Ray's nodes send their figures on every 10 s.
        "global": {"scrape_interval": "10s", "evaluation_interval": "10s"},
        "rule_files": [rule_file],
        "scrape_configs": [
            {
                "job_name": "ray",
                "file_sd_configs": [{"files": [discovery], "refresh_interval": "10s"}],
                "relabel_configs": [{"target_label": "ray_io_cluster", "replacement": cluster}],
            }
        ],
    }
