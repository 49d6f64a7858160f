"""`transfer.json` and `search.json` are read back as they were written, and keep their keys."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lehr.errors import RunError
from lehr.runs import Folder
from lehr.transfer.decision import TransferDecision
from lehr.transfer.head_scores import HeadScore, HeadScores
from lehr.transfer.similarity import Similarity
from lehr.transfer.strategies import advise

SIMILARITY = Similarity(0.8, 0.6, 40, 0.1)
BEFORE = TransferDecision(
    train_rows=40,
    validation_rows=357,
    classes=("6", "7"),
    seconds_per_image=0.01,
    candidates=("features", "finetune"),
    advice=advise(40, 2, SIMILARITY),
    similarity=SIMILARITY,
)


@pytest.mark.parametrize(
    "decision",
    [
        BEFORE,
        replace(BEFORE, chosen="finetune", why="finetune has the best validation accuracy", called="head only"),
        replace(BEFORE, test_rows=90),
        replace(BEFORE, advice=None, similarity=None),
    ],
)
def test_a_decision_is_read_back_as_it_was_written(decision: TransferDecision, tmp_path: Path) -> None:
    decision.write(Folder.at(tmp_path))
    assert TransferDecision.read(Folder.at(tmp_path)) == decision


def test_a_choice_is_in_the_file_only_once_there_is_one(tmp_path: Path) -> None:
    def keys() -> list[str]:
        return list(Folder.at(tmp_path).read_json("transfer.json"))

    before = ["train_rows", "validation_rows", "classes", "seconds_per_image", "candidates", "advice", "similarity"]
    before += ["test_rows"]
    assert TransferDecision.read(Folder.at(tmp_path)) is None
    BEFORE.write(Folder.at(tmp_path))
    assert keys() == before
    assert {"gain", "similar", "sure"} <= json.loads((tmp_path / "transfer.json").read_text())["similarity"].keys()
    replace(BEFORE, chosen="features", why="so").write(Folder.at(tmp_path))
    assert keys() == [*before[:-1], "chosen", "why", "called", "test_rows"]


@pytest.mark.parametrize("damage", ["{}", "[]", '{"advice": 3, "similarity": null}', "not JSON"])
def test_a_damaged_decision_gets_one_sentence(damage: str, tmp_path: Path) -> None:
    (tmp_path / "transfer.json").write_text(damage)
    with pytest.raises(RunError, match=r"transfer\.json: (is )?damaged"):
        TransferDecision.read(Folder.at(tmp_path))


def test_the_scores_of_heads_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    tried = (HeadScore(0.01, 0.0, {"accuracy": 0.8, "loss": 0.5}), HeadScore(0.1, 3.0, {"accuracy": 0.9, "loss": 0.4}))
    scores = HeadScores("60 validation images", tried, {"features": 1.0, "head": 2.0})
    scores.write(Folder.at(tmp_path))
    content: dict[str, Any] = json.loads((tmp_path / "search.json").read_text())
    assert content["by"] == "60 validation images"
    assert content["tried"][1] == {"learning_rate": 0.1, "weight_decay": 3.0, "accuracy": 0.9, "loss": 0.4}
    assert HeadScores.read(Folder.at(tmp_path)) == scores
