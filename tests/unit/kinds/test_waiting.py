"""While workers start, the screen says what is being waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import tiny

from lehr.job import to_dict
from lehr.kinds.train import watch
from lehr.runs import Folder, RunFolder


@pytest.mark.parametrize(("compiled", "said"), [(False, "taking the first step"), (True, "compiling the network")])
def test_workers_that_have_begun_are_waited_for_by_name(compiled: bool, said: str, tmp_path: Path) -> None:
    job = tiny(train__compile=compiled)
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(job))
    statuses: list[str] = []
    ended = threading.Event()

    def note(text: str) -> None:
        statuses.append(text)
        ended.set()

    def work() -> None:
        RunFolder.open(run.folder).begin_attempt(workers=1, steps_per_epoch=5, total_steps=20)
        ended.wait(20)

    worker = threading.Thread(target=work)
    running: Any = SimpleNamespace(
        run=run, job=job, training=False, check_lease=lambda: None, screen=SimpleNamespace(status=note)
    )
    worker.start()
    watch(running, worker)
    assert statuses
    assert statuses[0].startswith(said)
