"""The report says how sure a model is beside how often it is right, and what of that chance makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lehr.curves.answers import answer_sections
from lehr.runs import Folder, RunFolder
from lehr.runs.answers import Answers


def page(folder: Path, rows: int, claimed: float, right: float) -> str:
    """The sections of a model that claims one confidence of all rows and is right of a share of them."""
    run = RunFolder.create(Folder.at(folder / "run"), {"kind": "train"})
    predicted = np.zeros(rows, np.int32)
    labels = (np.arange(rows) >= right * rows).astype(np.int32)
    Answers(("a", "b"), np.arange(rows), labels, predicted, np.full(rows, claimed, np.float32)).write(run.folder)
    return re.sub(r"<[^>]+>", " ", "".join(str(each.body) for each in answer_sections(run)))


@pytest.mark.parametrize(
    ("claimed", "right", "said"),
    [
        (0.95, 0.80, "95.0% sure on average and 80.0% right: surer than it is right. Calibration error 15.0%"),
        (0.60, 0.80, "60.0% sure on average and 80.0% right: less sure than it is right."),
        (0.80, 0.81, "as sure as it is right, as far as so few rows show. Calibration error 1.0%"),
    ],
)
def test_it_says_which_way_a_model_is_wrong(claimed: float, right: float, said: str, tmp_path: Path) -> None:
    assert said in page(tmp_path, 400, claimed, right)


def test_of_few_rows_nothing_is_drawn(tmp_path: Path) -> None:
    assert "sure on average" not in page(tmp_path, 99, 0.95, 0.5)
