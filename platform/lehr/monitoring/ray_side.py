"""What monitoring asks of Ray: gauges to set, and the dashboards that Ray makes of its own metrics."""

from __future__ import annotations

import json
import sys
from typing import Any

from lehr.monitoring.metrics import LABELS, METRICS


def running() -> bool:
    """Whether this process is connected to a Ray; does not import it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def gauges() -> dict[str, Any]:
    """A `ray.util.metrics.Gauge` for each metric, by its name.

    Ray sends their values on every 10 s and when this process leaves the cluster, and forgets a value 20 s after that.
    """
    from ray.util.metrics import Gauge

    def labels(own: str) -> tuple[str, ...]:
        return (*LABELS, own) if own else LABELS

    return {m.name: Gauge(m.name, f"{m.description} ({m.unit})", labels(m.label)) for m in METRICS}


def ray_dashboards() -> list[dict[str, Any]]:
    """The dashboards that Ray generates for this version of it and that its own pages embed: core, data and train."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    made = (
        factory.generate_default_grafana_dashboard,
        factory.generate_data_grafana_dashboard,
        factory.generate_train_grafana_dashboard,
    )
    return [json.loads(generate()[0]) for generate in made]
