"""Storage that fails during a run: the run waits for it, or fails with a message that says what was wrong."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lehr.errors import LehrError, StorageError
from lehr.runs import Folder, RunFolder, storage
from tests.faults.accidents import is_root
from tests.faults.story import MID_EPOCH, command
from tests.s3 import BUCKET, Proxy, Trouble, s3_environment, s3_server
from tests.support import Died, records, train_here, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(server)
    for name, value in s3_environment(proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train_here(MID_EPOCH, tmp_path_factory.mktemp("whole") / "run")


def somewhere() -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(6)}/run"


def set_environment(environment: dict[str, str], patience: float = 0.0) -> None:
    """For a process of the fork server, which inherits the server's environment."""
    os.environ |= environment
    if patience:
        storage.PATIENCE_SECONDS = patience


def assert_undisturbed(run: RunFolder, whole: RunFolder) -> None:
    for one, other in zip(records(whole), records(run), strict=True):
        assert one.equals(other)
    for name, value in weights(whole).items():
        assert value.equal(weights(run)[name]), name


def test_a_run_waits_for_a_store_that_is_overloaded_slow_or_gone_for_seconds(proxy: Proxy, whole: RunFolder) -> None:
    draw = random.Random("troubles")
    for kind in ("503", "500", "gone", "slow"):
        proxy.troubles.append(Trouble(kind, after=draw.randint(5, 20), seconds=2.5))
    prepare = partial(set_environment, s3_environment(proxy.endpoint))
    run = train_here(MID_EPOCH, somewhere(), prepare=prepare)
    assert not proxy.troubles, "some outages did not happen"
    assert_undisturbed(run, whole)
    assert [event["kind"] for event in run.events()] == ["started", "finished"]  # no attempt ended


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gone", "503", "silent"])
def test_a_run_waits_for_a_store_that_is_gone_for_a_minute(kind: str, proxy: Proxy, whole: RunFolder) -> None:
    proxy.troubles.append(Trouble(kind, after=40, seconds=60))
    run = train_here(MID_EPOCH, somewhere(), prepare=partial(set_environment, s3_environment(proxy.endpoint)))
    assert not proxy.troubles
    assert_undisturbed(run, whole)
    assert [event["kind"] for event in run.events()] == ["started", "finished"]


def test_a_store_that_stays_away_ends_the_run_which_resumes_once_it_is_back(proxy: Proxy, whole: RunFolder) -> None:
    where = somewhere()
    proxy.troubles.append(Trouble("gone", after=60, seconds=3600))
    prepare = partial(set_environment, s3_environment(proxy.endpoint), patience=2.0)
    with pytest.raises(Died):
        train_here(MID_EPOCH, where, prepare=prepare)
    proxy.troubles.clear()
    run = train_here(MID_EPOCH, where, prepare=prepare)
    assert_undisturbed(run, whole)


def test_the_wait_is_short_for_a_store_that_never_answered(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 6.0)
    monkeypatch.setattr(storage, "FIRST_WAIT_SECONDS", 0.01)
    known = Folder.at(somewhere())
    known.write("a", b"1")
    proxy.troubles.append(Trouble("500", after=1, seconds=3600))
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot read: .* in [6-9] s"):
        known.read("a")
    assert time.monotonic() - began > 6
    began = time.monotonic()
    with pytest.raises(StorageError, match="tried 5 times"):
        known.read("a")  # known to be gone: later requests fail soon
    with pytest.raises(StorageError, match="tried 5 times"):
        Folder.at(somewhere()).read("a")  # never answered: the address may be wrong
    assert time.monotonic() - began < 12, "waited as if the store could come back"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some checkpoints, but not for all."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        not is_root()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_message_and_the_run_resumes_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    filler = small_disk / "somebody-elses"
    command(MID_EPOCH, tmp_path / "whole")
    with pytest.raises(Died):
        command(MID_EPOCH, small_disk / "probe", partial(stop_at, 8))
    disk = os.statvfs(small_disk)
    filler.write_bytes(bytes(disk.f_bavail * disk.f_bsize - 30_000))
    with pytest.raises(LehrError, match=r"cannot (write|create): No space left on device") as caught:
        command(MID_EPOCH, small_disk / "probe")
    assert "\n" not in str(caught.value)
    filler.unlink()
    command(MID_EPOCH, small_disk / "probe")
    assert_undisturbed(RunFolder.open(small_disk / "probe"), RunFolder.open(tmp_path / "whole"))
    assert not list((small_disk / "probe").rglob("*.tmp"))


def stop_at(step: int) -> None:
    """Kills this process when it reaches that step."""
    import signal

    from lehr.training.train_step import TrainStep

    take = TrainStep.__call__

    def take_or_die(self: Any, batch: Any, rows: int, number: int) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, batch, rows, number)

    TrainStep.__call__ = take_or_die  # type: ignore[method-assign, assignment]
