"""A backbone that is not there is told with the nearest that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.errors import JobError
from lehr.job import TransferJob, from_dict
from lehr.runs import Folder, RunFolder
from lehr.transfer.strategy_jobs import check_backbone


def transfer(storage: Path, name: str) -> TransferJob:
    job = from_dict({"kind": "transfer", "backbone": f"run:{name}", "storage": str(storage)})
    assert isinstance(job, TransferJob)
    return job


def test_a_misspelt_run_gets_the_nearest_as_it_is_typed(tmp_path: Path) -> None:
    RunFolder.create(Folder.at(tmp_path / "cells"), {"kind": "train"})
    with pytest.raises(JobError, match=r'backbone: there is no run "cels"; did you mean backbone=run:cells\?$'):
        check_backbone(transfer(tmp_path, "cels"))


def test_where_nothing_is_near_the_place_is_told(tmp_path: Path) -> None:
    for storage in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(JobError, match=r"other.*holds no finished model"):
            check_backbone(transfer(storage, "other"))
