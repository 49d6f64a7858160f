"""A real Prometheus scrapes a real Ray that runs a real job: every panel has data, and an alert fires."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from tests.support import free_port

from lehr.monitoring.dashboards import dashboards, expressions
from lehr.monitoring.metrics import METRICS
from lehr.monitoring.panels import HEALTH, RUNS, SEARCH, Panel
from lehr.monitoring.prometheus import Thresholds, configuration, rules
from lehr.monitoring.ray_env import dashboard_environment

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Debian's prometheus"),
]

JOB = """\
kind: train
name: watched
data: {source: digits, augment: [shift]}
model: {name: small_cnn, width: 16}
optimizer: {lr: 0.05, momentum: 0.9}
train: {epochs: 2000, batch_size: 64, checkpoint: {every: 30step}}
workers: {count: 2, cpus: 1}
"""

RECIPE = """\
kind: recipe
name: narrowing
base:
  data: {source: digits, augment: [shift]}
  model: {name: small_cnn, width: 8}
  train: {epochs: 30, batch_size: 64}
  workers: {count: 1, cpus: 1}
budget: 200ep
"""

HUNT = """\
kind: search
name: hunting
base:
  data: {source: digits, augment: [shift]}
  model: {name: small_cnn, width: 8}
  train: {epochs: 9, batch_size: 64}
  workers: {count: 1, cpus: 1}
space:
  optimizer.lr: {log_uniform: [0.001, 1]}
stopping: {name: asha, factor: 3}
budget: {trials: 60}
"""

# A job that hangs on demand: its network sleeps while a file exists.
STUCK = """\
import os, time
from lehr.models.small_cnn import SmallCNN
class Net(SmallCNN):
    def forward(self, x):
        while os.path.exists(os.environ["LEHR_TEST_STUCK"]):
            time.sleep(0.1)
        return super().forward(x)
"""

_T = TypeVar("_T")


@dataclass
class Watched:
    """A Ray with a Prometheus that scrapes it."""

    ray: str
    dashboard: str
    prometheus: str
    environment: dict[str, str]

    def query(self, expression: str) -> list[dict[str, Any]]:
        address = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    @contextmanager
    def job(self, text: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        Path("job.yaml").write_text(text)
        with Path("job.txt").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "lehr", "run", "job.yaml"],
                env={**os.environ, **self.environment, "RAY_ADDRESS": self.ray, **environment},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process)
            print(Path("job.txt").read_text())  # pytest shows it if a test fails


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process and everything it started, which share a session."""
    for number, patience in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def wait_for(what: str, look: Callable[[], _T], seconds: float = 90) -> _T:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(1)
    return found


def reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("r")
    port, dashboard, metrics, prometheus = (free_port() for _ in range(4))
    address = f"http://127.0.0.1:{prometheus}"
    quick = Thresholds(no_progress=20, no_progress_for="5s")
    (folder / "lehr.rules.yml").write_text(yaml.safe_dump(rules(quick)))
    discovery = str(folder / "ray/prom_metrics_service_discovery.json")
    config = configuration("test", discovery)
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    environment = dashboard_environment(prometheus=address)
    with ExitStack() as stack:

        def start(name: str, *command: str) -> None:
            log = stack.enter_context((folder / f"{name}.txt").open("w"))
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(end, process)

        ray = str(Path(sys.executable).parent / "ray")
        ports = (f"--port={port}", f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}")
        where = (f"--temp-dir={folder / 'ray'}", "--node-ip-address=127.0.0.1", "--disable-usage-stats")
        start("ray", ray, "start", "--head", "--block", "--num-cpus=3", "--include-dashboard=true", *ports, *where)
        listen = (f"--web.listen-address=127.0.0.1:{prometheus}", "--storage.tsdb.path=data")
        start("prometheus", "prometheus", "--config.file=prometheus.yml", *listen)
        wait_for("Prometheus", lambda: reachable(f"{address}/-/ready"), 30)
        wait_for("Ray dashboard", lambda: reachable(f"http://127.0.0.1:{dashboard}/api/version"), 60)
        found = Watched(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", address, environment)
        wait_for("metrics of Ray", lambda: found.query("cluster:ray_nodes:up == 1"), 60)
        yield found


PANELS: list[Panel] = [panel for rows in (RUNS, SEARCH, HEALTH) for row in rows.values() for panel in row]


def chosen(expression: str, run: str) -> str:
    """The PromQL as Grafana sends it, with the dashboard's variables replaced."""
    return expression.replace("$Cluster", ".*").replace("$run", run)


def test_every_panel_has_data_while_a_job_runs_and_series_end_with_it(watched: Watched) -> None:
    with watched.job(JOB):
        parts = wait_for("shares of time", lambda: watched.query('run:lehr_part:share1m{run="watched"}'), 180)
        time.sleep(15)
        empty = {
            panel.title: legend
            for panel in PANELS
            for legend, expression in panel.queries.items()
            if not watched.query(chosen(expression, "watched"))
        }
        needs = {panel.title for panel in PANELS if panel.gpu or panel.jobs}
        assert set(empty) <= needs, f"no data: {set(empty) - needs}"
        assert {sample["metric"]["part"] for sample in parts} >= {"input", "compute", "evaluation", "checkpoints"}
        (loss,) = watched.query('ray_lehr_train_loss{run="watched"}')
        assert {k: loss["metric"].get(k) for k in ("ray_io_cluster", "kind")} == {
            "ray_io_cluster": "test",
            "kind": "train",
        }
        assert 0 < float(loss["value"][1]) < 3
        # Labels are bounded: one series per metric, except for the few values of its own label.
        for metric in METRICS:
            assert len(watched.query(metric.series)) <= (6 if metric.label else 1), metric.name
        assert not watched.query('ALERTS{alertname=~"Lehr.*",alertstate="firing",alertname!="LehrDiskNearlyFull"}')
    wait_for("end of the series", lambda: not watched.query('{__name__=~"ray_lehr_.*"}'), 60)


def test_a_recipe_shows_its_step_its_runs_and_on_request_their_curves(watched: Watched) -> None:
    with watched.job(RECIPE, LEHR_METRICS_TRIALS="1"):
        steps = wait_for("step", lambda: watched.query('ray_lehr_recipe_step{run="narrowing"} == 1'), 180)
        assert {step["metric"]["kind"] for step in steps} == {"recipe"}
        wait_for("loss of a trial", lambda: watched.query('ray_lehr_train_loss{run="narrowing",trial!=""}'), 180)
        panels = [panel for panel in PANELS if "recipe" in panel.jobs]
        assert len(panels) == 2
        for panel in panels:
            for expression in panel.queries.values():
                assert watched.query(chosen(expression, "narrowing")), panel.title


def test_every_panel_of_a_search_has_data(watched: Watched) -> None:
    with watched.job(HUNT):
        panels = {panel.title: panel for panel in PANELS if "search" in panel.jobs}
        assert len(panels) == 4
        for title, panel in panels.items():
            for expression in panel.queries.values():
                wait_for(title, lambda asked=expression: watched.query(chosen(asked, "hunting")), 180)  # type: ignore[misc]


def test_an_alert_fires_when_a_job_is_stuck_and_resolves_when_it_continues(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "stuck_net.py").write_text(STUCK)
    text = JOB.replace("watched", "stuck").replace("{name: small_cnn, width: 16}", "{name: 'stuck_net:Net'}")
    marker = tmp_path / "stuck"
    firing = 'ALERTS{alertname="LehrNoProgress",alertstate="firing",run="stuck"}'
    # The worker reads the path of the marker from its environment: set it for every process of the job.
    with watched.job(text, LEHR_TEST_STUCK=str(marker), RAY_JOB_CONFIG_JSON_ENV_VAR=_with(LEHR_TEST_STUCK=str(marker))):
        wait_for("loss", lambda: watched.query('ray_lehr_train_loss{run="stuck"}'), 180)
        assert not watched.query(firing)
        marker.touch()
        (alert,) = wait_for("alert", lambda: watched.query(firing), 90)
        assert alert["metric"]["severity"] == "critical"
        with urllib.request.urlopen(f"{watched.prometheus}/api/v1/alerts") as answer:
            fired = [a for a in json.load(answer)["data"]["alerts"] if a["labels"]["alertname"] == "LehrNoProgress"]
        assert re.fullmatch(r"stuck has made no progress for \d+\.?\d*s", fired[0]["annotations"]["summary"])
        assert "stack traces" in fired[0]["annotations"]["runbook"]
        marker.unlink()
        wait_for("end of the alert", lambda: not watched.query(firing), 60)


def _with(**environment: str) -> str:
    return json.dumps({"runtime_env": {"env_vars": environment}})


def test_the_last_state_of_a_diverged_run_is_exported(watched: Watched) -> None:
    diverging = JOB.replace("watched", "diverged").replace("lr: 0.05", "lr: 1.0e+30")
    with watched.job(diverging) as process:
        process.wait(timeout=180)
        assert process.returncode != 0
        firing = 'ALERTS{alertname="LehrLossNotFinite",alertstate="firing",run="diverged"}'
        wait_for("alert", lambda: watched.query(firing), 40)


def test_rays_dashboard_has_the_run_among_its_jobs_and_training_runs(watched: Watched) -> None:
    with watched.job(JOB.replace("watched", "shown")):
        wait_for("loss", lambda: watched.query('ray_lehr_train_loss{run="shown"}'), 180)

        def asked(path: str) -> Any:
            with urllib.request.urlopen(f"{watched.dashboard}{path}", timeout=20) as answer:
                return json.load(answer)

        jobs = asked("/api/jobs/")
        assert [job["status"] for job in jobs if "shown" in str(job) or job["status"] == "RUNNING"] == ["RUNNING"]
        runs = asked("/api/train/v2/runs/v1")["train_runs"]
        assert [(run["name"], run["status"]) for run in runs if run["name"] == "shown"] == [("shown", "RUNNING")]


def test_expressions_of_the_dashboards_are_those_of_the_panels() -> None:
    asked = {expression for board in dashboards() for _, expression in expressions(board)}
    assert asked == {expression for panel in PANELS for expression in panel.queries.values()}
