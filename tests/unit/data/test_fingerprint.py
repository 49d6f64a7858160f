"""The fingerprint of data: the same for the same rows wherever they lie, another for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lehr
from lehr.data.dataset import Images
from lehr.data.fingerprint import fingerprint
from lehr.runs import RunFolder


def images(seed: int = 0, rows: int = 30, labels: Any = None) -> dict[str, Images]:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, 4, 4, 1), np.uint8)
    return {"train": Images(pixels, np.arange(rows) % 3 if labels is None else labels, ("a", "b", "c"))}


def test_the_same_rows_have_the_same_one_whatever_type_their_labels_are_of() -> None:
    known = fingerprint(images())
    assert len(known) == 16
    assert fingerprint(images(labels=(np.arange(30) % 3).astype(np.int8))) == known


@pytest.mark.parametrize(
    "other",
    [
        images(seed=1),
        images(rows=31),
        images(labels=(np.arange(30) + 1) % 3),
        {"validation": images()["train"]},
        {"train": Images(images()["train"].pixels, np.arange(30) % 3, ("a", "b", "d"))},
    ],
    ids=["pixels", "rows", "labels", "split", "classes"],
)
def test_other_rows_have_another(other: dict[str, Images]) -> None:
    assert fingerprint(other) != fingerprint(images())


def test_a_run_keeps_it_and_its_report_says_how_to_do_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    fewer, streamed = {"classes": ["0", "1", "2"]}, {"cache": "stream"}
    for name, change in (("one", {}), ("again", {}), ("fewer", fewer), ("streamed", streamed)):
        data = {"source": "digits", "limit": 100, "validation": 0.2, **change}
        job = {"kind": "train", "name": name, "data": data, "train": {"epochs": 1, "batch_size": 50}}
        lehr.run({**job, "model": {"name": "small_cnn", "width": 8}}, debug=True)
        facts = RunFolder.open(f"runs/{name}").environment.data
        assert facts is not None
        found.append(facts.fingerprint)
    assert found[0] == found[1]
    assert len(set(found)) == 3
    page = Path("runs/one/report.html").read_text()
    assert "To do it again" in page
    assert f"fingerprint {found[0]}" in page
    assert "lehr best runs/one one-job.yaml &amp;&amp; lehr run one-job.yaml" in page
