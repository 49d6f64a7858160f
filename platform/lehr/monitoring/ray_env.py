"""What Ray's own dashboard needs to show jobs with their curves: environment variables of the head node."""

from __future__ import annotations

SOURCE_NAME = "lehr-prometheus"


def dashboard_environment(
    *,
    grafana: str | None = None,
    grafana_in_browser: str | None = None,
    prometheus: str | None = None,
    cluster: str | None = None,
    source: str = SOURCE_NAME,
) -> dict[str, str]:
    """The variables to set where the head of a cluster starts, and in the drivers of its jobs.

    Without a Grafana the Metrics tab is left out instead of showing an error.
    https://docs.ray.io/en/latest/cluster/configure-manage-dashboard.html#embed-grafana-visualizations-into-ray-dashboard

    Args:
        grafana: address of Grafana as the head node reaches it.
        grafana_in_browser: the same as people's browsers reach it, where that differs.
        prometheus: address of Prometheus as the head node reaches it.
        cluster: the value of `ray_io_cluster` by which the scrape configuration names this cluster.
        source: Grafana's name of the Prometheus data source.
    """
    variables = {
        # Ray tells of training runs (/api/train/v2/runs/v1) only if their controllers report their state.
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_GRAFANA_HOST": grafana.rstrip("/") if grafana else "DISABLED",
    }
    if grafana:
        variables["RAY_GRAFANA_IFRAME_HOST"] = (grafana_in_browser or grafana).rstrip("/")
        variables["RAY_PROMETHEUS_NAME"] = source
        if cluster:
            variables["RAY_GRAFANA_CLUSTER_FILTER"] = cluster
    if prometheus:
        variables["RAY_PROMETHEUS_HOST"] = prometheus.rstrip("/")
    return variables
