"""Prometheus configuration for watching jobs: where to scrape Ray, recording rules, and alerts with runbooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lehr.monitoring.metrics import BY_NAME

DISCOVERY = "/tmp/ray/prom_metrics_service_discovery.json"
"""The scrape targets of a cluster, which its head node keeps up to date in Ray's temporary folder."""

RUN = "ray_io_cluster, run, kind, trial"


@dataclass(frozen=True)
class Thresholds:
    """When alerts fire. Times are seconds; `…_for` is how long a condition must hold, in Prometheus's notation.

    Attributes:
        no_progress: time without progress. Must be longer than the longest evaluation.
        input_share: share of a step spent waiting for input.
        gpu_percent: utilisation of a node's GPUs below which they count as idle.
        restarts: number within an hour.
        checkpoint_age: time since the newest checkpoint.
        disk_percent: used share of the disk. Above 95 % Ray refuses to spill objects to it.
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
        hold: how long the expression must hold, in Prometheus's notation.
        summary: one sentence, with Prometheus's templates.
        runbook: what to check and do first.
    """

    name: str
    expression: str
    hold: str
    severity: str
    summary: str
    runbook: str


def recordings() -> dict[str, str]:
    """Recording rules: the name of the new series to its expression."""
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
            f"{job} has made no progress for {{{{ $value | humanizeDuration }}}}",
            "Check the run's log (`lehr show` prints its path) and the stack traces of its workers in Ray's dashboard "
            "(job, actors). A long evaluation looks the same. If a worker hangs, stop the job and run it again: it "
            "resumes from its newest checkpoint.",
        ),
        Alert(
            "LehrLossNotFinite",
            f"max by ({RUN}) (max_over_time({BY_NAME['lehr_not_finite'].series}[5m])) > 0",
            "0s",
            "critical",
            f"the training loss of {job} is NaN or infinite",
            "The usual cause is a learning rate that is too high. Check the gradient norm before the jump; try a lower "
            "optimizer.lr, a schedule.warmup or train.max_gradient_norm.",
        ),
        Alert(
            "LehrInputBound",
            f"run:lehr_input:share5m > {at.input_share}",
            at.input_for,
            "warning",
            f"{job} spends {{{{ $value | humanizePercentage }}}} of its step time waiting for input",
            "Make the images fit into memory (data.cache, a smaller data.image_size), pack them (`lehr data pack`), or "
            "give the cluster more CPUs for decoding.",
        ),
        Alert(
            "LehrGpuIdle",
            "avg by (ray_io_cluster, instance) (ray_node_gpus_utilization) < "
            f"{at.gpu_percent} and on (ray_io_cluster, instance) {held} and on (ray_io_cluster) {training}",
            at.gpu_for,
            "warning",
            "the GPUs of {{ $labels.instance }} are allocated to a job but only {{ $value | humanize }} % busy",
            "Check where the run spends its time: input, evaluation and checkpoints leave the GPU idle. For a small "
            "model on a large GPU, use a larger train.batch_size or several trials per GPU.",
        ),
        Alert(
            "LehrRestarts",
            f"run:lehr_restarts:max - min_over_time(run:lehr_restarts:max[1h]) >= {at.restarts}",
            "0s",
            "warning",
            "{{ $labels.run }} was restarted {{ $value }} times within an hour",
            "`lehr show` lists why each attempt ended. Workers are usually killed because they run out of memory: "
            "check Ray's log on the node, and give the job fewer workers per node or a smaller batch.",
        ),
        Alert(
            "LehrCheckpointTooOld",
            f"time() - max by ({RUN}) ({BY_NAME['lehr_checkpoint_timestamp_seconds'].series}) > {at.checkpoint_age}",
            at.checkpoint_for,
            "warning",
            f"a crash of {job} would cost {{{{ $value | humanizeDuration }}}} of training",
            "Lower train.checkpoint.every. If a checkpoint is overdue, the storage is slow or full: check the run's "
            "log.",
        ),
        Alert(
            "LehrDiskNearlyFull",
            f"max by (ray_io_cluster, ip) (ray_node_disk_utilization_percentage) > {at.disk_percent}",
            at.disk_for,
            "critical",
            "the disk of {{ $labels.ip }} is {{ $value | humanize }} % full",
            "Remove old runs (`lehr rm`) and old Ray sessions on that node. Above 95 % Ray stops spilling objects, and "
            "jobs fail.",
        ),
        Alert(
            "LehrNodeLost",
            f"max_over_time(cluster:ray_nodes:up[10m]) - cluster:ray_nodes:up > 0 and on (ray_io_cluster) {training}",
            "0s",
            "critical",
            "cluster {{ $labels.ray_io_cluster }} lost {{ $value }} node{{ if gt $value 1.0 }}s{{ end }} while a job "
            "is running",
            "The job recovers by itself if workers.retries and the other nodes allow it. Ray's cluster page names the "
            "node; its log or the cloud provider's events show the reason. Scaling down, by hand or by the autoscaler, "
            "looks the same.",
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
        cluster: its name, for the label `ray_io_cluster`, which KubeRay and Ray's own dashboards use too.
        discovery: the file in which the head node lists the targets to scrape.
    """
    return {
        # Ray's nodes forward their metrics every 10 s.
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
