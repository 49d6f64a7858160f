"""A real Kubernetes with KubeRay, brought up once for all tests here; without one they are skipped, with the reason.

LEHR_KUBERNETES names a folder with the programs `up DIR`, `down DIR --wipe` and the file `kuberay.yaml.xz`. `up` leaves
`DIR/in`, which runs a command in the node's network, and `admin.conf`, `alice.conf` (of the group lehr-users) and
`mallory.conf` (of none).
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROGRAMS = os.environ.get("LEHR_KUBERNETES", "")


@dataclass(frozen=True)
class Node:
    """A cluster of one node, whose state is in `folder`."""

    folder: Path

    def run(self, *words: str, user: str = "admin", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command in the node's network, as a user of the cluster."""
        pid = (self.folder / "pid").read_text().strip()
        inside = ["nsenter", "--target", pid, "--net", "--", "env", f"KUBECONFIG={self.folder}/{user}.conf"]
        more = ["NO_PROXY=*", f"PATH={self.folder}/bin:{os.environ['PATH']}"]
        return subprocess.run(
            [*inside, *more, *words], input=stdin, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
        )

    def kubectl(self, *words: str, user: str = "admin", stdin: str = "") -> str:
        """What kubectl prints. Fails the test where it does not succeed."""
        done = self.run("kubectl", *words, user=user, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def lehr(self, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "lehr", *words, user=user)


def until(seconds: float, ask: Any) -> Any:
    """The first answer that is true; the last one after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A cluster without KubeRay."""
    if not PROGRAMS:
        pytest.skip("LEHR_KUBERNETES names no folder with a Kubernetes to bring up")
    if os.geteuid() != 0:
        pytest.skip("a Kubernetes of one's own needs root")
    folder = tmp_path_factory.mktemp("k8s")
    started = subprocess.run([f"{PROGRAMS}/up", str(folder)], capture_output=True, text=True, timeout=240, check=False)
    try:
        if started.returncode:
            pytest.skip(f"Kubernetes does not start here: {(started.stdout + started.stderr).strip()[-300:]}")
        yield Node(folder)
    finally:
        subprocess.run([f"{PROGRAMS}/down", str(folder), "--wipe"], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def node(bare: Node) -> Node:
    """A cluster with KubeRay and the team's namespace, as the guide sets them up."""
    missing = bare.lehr("jobs", "--kubernetes", "cluster/profiles/kind.yaml")
    assert missing.returncode == 1
    assert "KubeRay is not installed there" in missing.stderr
    operator = lzma.decompress(Path(PROGRAMS, "kuberay.yaml.xz").read_bytes()).decode()
    bare.kubectl("create", "-f", "-", stdin=operator)
    wait = ("wait", "--timeout=120s", "--for=condition=Available", "deployment/kuberay-operator")
    bare.kubectl("-n", "kuberay-system", *wait)
    bare.kubectl("apply", "-k", "cluster/kuberay/overlays/local")
    bare.kubectl(
        "-n", "lehr", "delete", "raycluster", "team"
    )  # its image cannot be pulled here, and it takes the quota
    return bare


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    """Writes the profile of the local overlay with changes, and returns its path."""

    def write(**changes: Any) -> str:
        known = yaml.safe_load((ROOT / "cluster/profiles/kind.yaml").read_text())
        file = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump({**known, **changes}))
        return str(file)

    return write
