"""Our Grafana dashboards as code: pure functions from the table of metrics to Grafana's JSON.

The JSON is the classic dashboard model, schema version 39 (Grafana 10.4); newer Grafanas read it too.
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from typing import Any

from lehr.monitoring.metrics import BY_NAME
from lehr.monitoring.panels import CLUSTER, HEALTH, RUNS, SEARCH, Panel, series

SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]

ROWS = {"lehr-runs": RUNS, "lehr-search": SEARCH, "lehr-cluster": HEALTH}
TITLES = {"lehr-runs": "lehr runs", "lehr-search": "lehr search", "lehr-cluster": "lehr cluster health"}


def dashboards(*, reports: str = "", ray: str = "") -> list[Json]:
    """Our dashboards, in the form of Grafana's HTTP API and provisioning.

    Args:
        reports: address at which run folders are served, for the link from a run to its report.
        ray: address of the Ray dashboard, for links to it.
    """
    return [_dashboard(uid, reports.rstrip("/"), ray.rstrip("/")) for uid in ROWS]


def expressions(dashboard: Json) -> list[tuple[str, str]]:
    """(title, PromQL) of every query in a dashboard."""
    return [(p["title"], target["expr"]) for p in dashboard["panels"] for target in p.get("targets", ())]


def _dashboard(uid: str, reports: str, ray: str) -> Json:
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        _query_variable("Cluster", "cluster", f"label_values({BY_NAME['lehr_running'].series}, ray_io_cluster)"),
    ]
    if uid != "lehr-cluster":
        variables.append(_query_variable("run", "run", f"label_values({series('lehr_running', CLUSTER)}, run)"))
    variables += [
        {"name": "reports", "label": "address of run folders", "type": "textbox", "query": reports},
        {"name": "ray", "label": "address of the Ray dashboard", "type": "textbox", "query": ray},
    ]
    return {
        "uid": uid,
        "title": TITLES[uid],
        "tags": ["lehr", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "annotations": {"list": [_annotations()]},
        "links": _links(),
        "panels": _layout(ROWS[uid]),
    }


def _query_variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _annotations() -> Json:
    return {
        "name": "Starts, restarts and ends of runs",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "target": {"limit": 200, "matchAny": False, "tags": ["lehr"], "type": "tags"},
    }


def _links() -> list[Json]:
    def link(title: str, url: str = "", **more: Any) -> Json:
        base = {"title": title, "type": "link", "url": url, "icon": "external link", "tooltip": "", "tags": []}
        behaviour = {"asDropdown": False, "targetBlank": True, "includeVars": False, "keepTime": False}
        return base | behaviour | more

    return [
        link("lehr", type="dashboards", tags=["lehr"], includeVars=True, keepTime=True, targetBlank=False),
        link("Ray: jobs", "${ray}/#/jobs"),
        link("Ray: workers", "${ray}/#/actors"),
        link("Ray: cluster", "${ray}/#/cluster"),
    ]


def _layout(rows: dict[str, list[Panel]]) -> list[Json]:
    """The panels with their positions on Grafana's grid of 24 columns, below the titles of their rows."""
    panels: list[Json] = []
    y, number = 0, 0
    for title, members in rows.items():
        number += 1
        whole = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": whole})
        y, x = y + 1, 0
        for panel in members:
            number += 1
            if x + panel.width > 24:
                x, y = 0, y + 8
            panels.append(_panel(panel, number, {"h": 8, "w": panel.width, "x": x, "y": y}))
            x += panel.width
        y += 8
    return panels


def _panel(panel: Panel, number: int, position: dict[str, int]) -> Json:
    instant = panel.kind in ("stat", "bargauge")
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
        }
        for i, (legend, expression) in enumerate(panel.queries.items())
    ]
    link = {"title": "Report of ${__field.labels.run}", "url": "${reports}/${__field.labels.run}/report.html"}
    about_runs = any("run" in expression for expression in panel.queries.values())
    defaults: Json = {"unit": panel.unit, "links": [{**link, "targetBlank": True}] if about_runs else []}
    options: Json = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind == "timeseries":
        scale = {"type": "log", "log": 10} if panel.log else {"type": "linear"}
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "showPoints": "auto", "scaleDistribution": scale}
        options = {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "none"},
        }
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    needed = f"only for jobs of kind {', '.join(panel.jobs)}" if panel.jobs else "no job is running"
    no_data = "needs a GPU" if panel.gpu else needed
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": position,
        "targets": targets,
        "fieldConfig": {"defaults": {**defaults, "noValue": no_data}, "overrides": []},
        "options": options,
    }
