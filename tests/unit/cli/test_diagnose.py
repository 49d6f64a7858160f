"""`lehr diagnose` where there is nothing to diagnose."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.cli.diagnose import diagnose
from lehr.errors import LehrError
from lehr.job import from_dict, to_dict
from lehr.runs import Folder, RunFolder


def test_a_run_that_failed_before_its_first_step_says_so_and_why(tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "mine"), to_dict(from_dict({"kind": "train"})), {})
    run.write_progress({"status": "failed", "message": "photos/ holds no images"})
    with pytest.raises(LehrError, match=r"^mine failed before its first step: photos/ holds no images$"):
        diagnose("mine", storage=str(tmp_path))
