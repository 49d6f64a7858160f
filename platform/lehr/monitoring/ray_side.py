"""What monitoring needs from Ray: gauges to set, and the dashboards that Ray generates for its own metrics."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol

from lehr.monitoring.metrics import LABELS, METRICS


class Gauge(Protocol):
    """The part of `ray.util.metrics.Gauge` that is used."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...


def running() -> bool:
    """Whether this process is connected to Ray; does not import it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def gauges() -> dict[str, Gauge]:
    """A gauge of Ray for each metric, by its name.

    Ray forwards their values every 10 s and when this process leaves the cluster, and forgets a value 20 s later.
    """
    from ray.util import metrics

    def labels(own: str) -> tuple[str, ...]:
        return (*LABELS, own) if own else LABELS

    return {m.name: metrics.Gauge(m.name, f"{m.description} ({m.unit})", labels(m.label)) for m in METRICS}


def ray_dashboards() -> list[dict[str, Any]]:
    """The dashboards that this version of Ray generates and that its own pages embed: core, data and train."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    generators = (
        factory.generate_default_grafana_dashboard,
        factory.generate_data_grafana_dashboard,
        factory.generate_train_grafana_dashboard,
    )
    return [json.loads(generate()[0]) for generate in generators]
