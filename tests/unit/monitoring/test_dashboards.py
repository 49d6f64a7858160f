"""Dashboards, rules and provisioning files agree with the table of metrics and with Grafana's schema."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.monitoring.dashboards import dashboards, expressions
from lehr.monitoring.metrics import METRICS
from lehr.monitoring.prometheus import Thresholds, alerts, recordings, rules
from lehr.monitoring.provisioning import files
from lehr.monitoring.ray_env import dashboard_environment
from lehr.monitoring.ray_side import ray_dashboards

MOUNTED = Path(__file__).parents[3] / "cluster/monitoring"
BOARDS = {board["uid"]: board for board in dashboards(reports="https://runs/", ray="http://ray:8265")}
OURS = {metric.series for metric in METRICS} | set(recordings())
# Ray's own, as its dashboards use them: ray/dashboard/modules/reporter/reporter_agent.py and src/ray/stats/metric_defs.
RAYS = {
    "ray_node_cpu_count",
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_node_disk_utilization_percentage",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_object_store_used_memory",
    "ray_object_store_available_memory",
    "ray_resources",
}


def named(expression: str) -> set[str]:
    """The series in a PromQL expression: ours, recorded ones, and Ray's."""
    return set(re.findall(r"\b(?:ray_(?!io_)\w+|(?:run|cluster):[\w:]+)", re.sub(r"\"[^\"]*\"", "", expression)))


def test_every_panel_and_rule_uses_existing_series() -> None:
    asked = [expression for board in BOARDS.values() for _, expression in expressions(board)]
    asked += [*recordings().values(), *(alert.expression for alert in alerts())]
    for expression in asked:
        assert named(expression) <= OURS | RAYS, expression


def test_every_metric_is_in_a_dashboard_or_a_rule() -> None:
    asked = [expression for board in BOARDS.values() for _, expression in expressions(board)]
    asked += [*recordings().values(), *(alert.expression for alert in alerts())]
    unused = {metric.series for metric in METRICS} - set().union(*map(named, asked))
    assert unused == {"ray_lehr_step"}  # for ad-hoc queries


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_have_unique_ids_and_do_not_overlap(uid: str) -> None:
    panels = BOARDS[uid]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or above, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in panels))
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")


@pytest.mark.parametrize("uid", BOARDS)
def test_dashboards_fit_grafanas_schema(uid: str) -> None:
    schema = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    pytest.importorskip("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    read = schema.Dashboard.from_json(BOARDS[uid])
    again = json.loads(encoder.JSONEncoder(sort_keys=True).encode(read))
    lost = list(missing(BOARDS[uid], again))
    assert not lost, f"not in the schema: {lost}"


def missing(ours: Any, theirs: Any, path: str = "") -> Any:
    """Paths that we wrote and that the schema's classes do not return."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from missing(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from missing(one, other, f"{path}[{i}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def test_runs_link_to_their_report_and_to_ray() -> None:
    board = BOARDS["lehr-runs"]
    values = {variable["name"]: variable["query"] for variable in board["templating"]["list"]}
    assert values["reports"] == "https://runs"
    assert values["ray"] == "http://ray:8265"
    # Pages of Ray's dashboard, which in 2.60 has none for training runs.
    assert [link["url"] for link in board["links"][1:]] == [
        "${ray}/#/jobs",
        "${ray}/#/actors",
        "${ray}/#/cluster",
    ]
    panel = next(panel for panel in board["panels"] if panel["title"] == "Training loss")
    assert panel["fieldConfig"]["defaults"]["links"][0]["url"] == "${reports}/${__field.labels.run}/report.html"


def test_rays_own_dashboards_have_the_ids_that_its_pages_embed() -> None:
    assert [board["uid"] for board in ray_dashboards()] == [
        "rayDefaultDashboard",
        "rayDataDashboard",
        "rayTrainDashboard",
    ]


# ── rules and files ───────────────────────────────────────────────────────────────────────────────────────────────


def promtool(*arguments: str) -> str:
    if not shutil.which("promtool"):
        pytest.skip("needs promtool, of Debian's prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=MOUNTED / "prometheus")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_mounted_files_are_those_that_the_library_generates() -> None:
    for name, text in files().items():
        assert (MOUNTED / name).read_text() == text, f"run: lehr monitor files cluster/{MOUNTED.name}"


def test_prometheus_accepts_the_configuration_and_the_rules(tmp_path: Path) -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")
    promtool("check", "rules", "lehr.rules.yml")
    (tmp_path / "quick.yml").write_text(yaml.safe_dump(rules(Thresholds(no_progress=20, no_progress_for="10s"))))
    promtool("check", "rules", str(tmp_path / "quick.yml"))


def test_every_alert_fires_when_it_should() -> None:
    promtool("test", "rules", "lehr.test.yml")


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        case
        for test in yaml.safe_load((MOUNTED / "prometheus/lehr.test.yml").read_text())["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    names = {alert.name for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_every_alert_has_a_runbook() -> None:
    for alert in alerts():
        assert alert.severity in ("critical", "warning")
        assert len(alert.runbook) > 40
        assert alert.summary[0].islower() or alert.summary.startswith("{")


def test_thresholds_reach_the_rules() -> None:
    text = json.dumps(rules(Thresholds(no_progress=20, no_progress_for="10s", disk_percent=77)))
    assert "> 20" in text
    assert "> 77" in text
    assert '"for": "10s"' in text


# ── the Ray dashboard ─────────────────────────────────────────────────────────────────────────────────────────────


def test_rays_dashboard_embeds_grafana_and_lists_training_runs() -> None:
    assert dashboard_environment(
        grafana="http://grafana:3000/", grafana_in_browser="https://g", prometheus="http://p:9090", cluster="team"
    ) == {
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_GRAFANA_HOST": "http://grafana:3000",
        "RAY_GRAFANA_IFRAME_HOST": "https://g",
        "RAY_PROMETHEUS_NAME": "lehr-prometheus",
        "RAY_GRAFANA_CLUSTER_FILTER": "team",
        "RAY_PROMETHEUS_HOST": "http://p:9090",
    }


def test_without_a_grafana_rays_metrics_tab_is_hidden() -> None:
    assert dashboard_environment() == {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1", "RAY_GRAFANA_HOST": "DISABLED"}
