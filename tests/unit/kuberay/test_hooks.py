"""The hook of a worker's pod: it waits for work and not for Ray's own processes, and warns the run before it goes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from lehr.kuberay.cluster_spec import finish_work

ROOT = Path(__file__).parents[3]
AGENTS = ["11 ray::DashboardAgent", "12 ray::RuntimeEnvAgent", "13 ray::IDLE", "14 ray::IDLE_SpillWorker"]


def ended(folder: Path, at_first: list[str], later: list[str]) -> list[str]:
    """What the hook did where `pgrep -af '^ray::'` shows `at_first`, and `later` once the run was warned."""
    programs = {
        "pgrep": f'[ "$1 $2" = "-af ^ray::" ] || exit 9; cat {folder}/processes; test -s {folder}/processes',
        "sleep": f"echo slept >> {folder}/done",
        "timeout": f'echo "warned $*" >> {folder}/done; cp {folder}/later {folder}/processes',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "processes").write_text("".join(f"{line}\n" for line in at_first))
    (folder / "later").write_text("".join(f"{line}\n" for line in later))
    (folder / "done").touch()
    paths = {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", finish_work(120)], env=paths, timeout=20, check=True)
    return (folder / "done").read_text().splitlines()


@pytest.mark.parametrize("processes", [[], AGENTS])
def test_a_pod_on_which_nothing_works_ends_at_once(tmp_path: Path, processes: list[str]) -> None:
    assert ended(tmp_path, processes, []) == []


def test_a_pod_that_goes_alone_warns_the_run_and_waits_until_its_workers_have_left(tmp_path: Path) -> None:
    working = [*AGENTS, "15 ray::RayTrainWorker.execute"]
    done = ended(tmp_path, working, AGENTS)
    assert done == ["slept"] * 5 + ["warned 20 python -m lehr.ray_cluster.draining 120"]


def test_the_shared_clusters_pods_have_the_same_hook() -> None:
    cluster = yaml.safe_load((ROOT / "cluster/kuberay/base/cluster.yaml").read_text())
    for group in cluster["spec"]["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook == ["bash", "-c", finish_work(spec["terminationGracePeriodSeconds"])]
        assert spec["shareProcessNamespace"] is True, "process 1 reaps what lost its parent"
    assert cluster["spec"]["headGroupSpec"]["template"]["spec"]["shareProcessNamespace"] is True
