"""`lehr diagnose` and `lehr report` of runs without a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lehr.cli.diagnose import diagnose
from lehr.errors import LehrError, RunError
from lehr.job import from_dict, to_dict
from lehr.kinds import report_of
from lehr.runs import Folder, Progress, RunFolder


def test_a_run_that_failed_before_its_first_step_gives_the_reason(tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "mine"), to_dict(from_dict({"kind": "train"})))
    run.write_progress(Progress(status="failed", message="photos/ holds no images"))
    with pytest.raises(LehrError, match=r"^mine failed before its first step: photos/ holds no images$"):
        diagnose("mine", storage=str(tmp_path))


@pytest.mark.parametrize("job", [{"kind": "Rrain"}, {"kind": ["train"]}, {}])
def test_a_report_of_an_unknown_kind_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "odd"), job)
    with pytest.raises(
        RunError, match=r"odd/job.yaml: kind .* is unknown; a newer lehr wrote it, or the file is damaged"
    ):
        report_of(run)
