"""The same dashboards and rules as files, for those who mount instead of push."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lehr.errors import LehrError
from lehr.monitoring.dashboards import dashboards
from lehr.monitoring.grafana import FOLDER_TITLE, FOLDER_UID, SOURCE_NAME
from lehr.monitoring.metrics import table
from lehr.monitoring.prometheus import DISCOVERY, alerts, configuration, recordings, rules

DASHBOARDS_FOLDER = "/var/lib/grafana/dashboards/lehr"
"""Where Grafana finds the mounted dashboards."""

MADE = "Made by `lehr monitor files`; change the library and make it again."


def files(
    *, prometheus: str = "http://prometheus:9090", cluster: str = "ray", discovery: str = DISCOVERY, **links: str
) -> dict[str, str]:
    """From relative path to content.

    Args:
        prometheus: its address, as Grafana reaches it.
        cluster: the name of the cluster, label `ray_io_cluster`.
        discovery: the file in which the cluster's head keeps its targets.
        links: `reports` and `ray`, see `dashboards`.
    """
    source = {"name": SOURCE_NAME, "type": "prometheus", "access": "proxy", "url": prometheus, "editable": True}
    provider = {
        "name": "lehr",
        "folder": FOLDER_TITLE,
        "folderUid": FOLDER_UID,
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": DASHBOARDS_FOLDER},
    }
    made = {
        "grafana/provisioning/datasources/lehr.yaml": _yaml({"apiVersion": 1, "datasources": [source]}),
        "grafana/provisioning/dashboards/lehr.yaml": _yaml({"apiVersion": 1, "providers": [provider]}),
        "prometheus/prometheus.yml": _yaml(configuration(cluster, discovery)),
        "prometheus/lehr.rules.yml": _yaml(rules()),
        "METRICS.md": reference(),
    }
    for dashboard in dashboards(**links):
        made[f"grafana/dashboards/{dashboard['uid']}.json"] = json.dumps(dashboard, indent=1) + "\n"
    return made


def write(folder: Path, made: dict[str, str]) -> None:
    """Writes the files. Raises LehrError where that fails."""
    try:
        for name, text in made.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    except OSError as error:
        raise LehrError(f"{folder}: cannot be written: {error.strerror}") from None


def reference() -> str:
    """METRICS.md: every metric, recording rule and alert."""
    names = ("name", "type", "unit", "labels", "when", "what")
    lines = [f"<!-- {MADE} -->", "# Metrics, rules and alerts", "", *_markdown(names, table())]
    lines += [
        "",
        "## Recording rules",
        "",
        *_markdown(("name", "expression"), [(f"`{k}`", f"`{v}`") for k, v in recordings().items()]),
    ]
    lines += ["", "## Alerts", ""]
    for alert in alerts():
        hold = "at once" if alert.hold == "0s" else f"for {alert.hold}"
        lines += [
            f"### {alert.name}",
            "",
            f"{alert.severity}, when this holds {hold}: `{alert.expression}`",
            "",
            alert.runbook,
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (head, ("---",) * len(head), *rows)
    ]


def _yaml(value: Any) -> str:
    return f"# {MADE}\n" + yaml.safe_dump(value, sort_keys=False, width=116, allow_unicode=True)
