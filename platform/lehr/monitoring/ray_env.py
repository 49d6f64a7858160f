"""The environment variables of the head node with which Ray's own dashboard shows jobs with their curves."""

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
    """The variables to set where the head node of a cluster starts, and in the drivers of its jobs.

    Without a Grafana the Metrics tab is hidden instead of showing an error.
    https://docs.ray.io/en/latest/cluster/configure-manage-dashboard.html#embed-grafana-visualizations-into-ray-dashboard

    Args:
        grafana: address of Grafana as the head node reaches it.
        grafana_in_browser: the same as browsers reach it, if that differs.
        prometheus: address of Prometheus as the head node reaches it.
        cluster: the value of the label `ray_io_cluster` that the scrape configuration gives this cluster.
        source: the name of the Prometheus data source in Grafana.
    """
    variables = {
        # Ray lists training runs (/api/train/v2/runs/v1) only if their controllers report their state.
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
