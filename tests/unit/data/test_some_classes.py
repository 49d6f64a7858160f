"""Some classes of a data set, and a few rows of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lehr.data.load import OpenedSources, splits
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict


def job_of(**data: object) -> TrainJob:
    job = from_dict({"data": {"source": "digits", **data}})
    assert isinstance(job, TrainJob)
    return job


def test_only_rows_of_the_chosen_classes_remain_with_labels_in_the_given_order() -> None:
    everything = OpenedSources(job_of()).decode()["train"]
    some = OpenedSources(job_of(classes=["7", "2", "5"])).decode()["train"]
    assert some.classes == ("7", "2", "5")
    for label, digit in enumerate((7, 2, 5)):
        assert np.array_equal(some.pixels[some.labels == label], everything.pixels[everything.labels == digit])


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["1", "two"], 'data.classes.1: "two" is not a class of the data'),
        (["1", "1"], 'data.classes.1: "1" is listed twice'),
        (["1"], "data.classes: "),
    ],
)
def test_wrong_classes_get_one_sentence(classes: list[str], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        OpenedSources(job_of(classes=classes))
    assert str(caught.value).startswith(sentence)


def test_the_splits_of_a_source_have_the_same_classes(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(("ant", "bee", "cat")):
            (tmp_path / split / name).mkdir(parents=True)
            for row in range(count):
                Image.new("L", (8, 8), 80 * number + row).save(tmp_path / split / name / f"{row}.png")
    job = job_of(source="images", path=str(tmp_path), classes=["cat", "ant"])
    opened = OpenedSources(job)
    images = opened.decode()
    for split, count in (("train", 4), ("validation", 2)):
        labels = images[split].labels
        assert np.bincount(labels).tolist() == [count, count]
        assert (images[split].pixels[labels == 0] >= 160).all()
        assert (images[split].pixels[labels == 1] < 80).all()
        name = opened.sources[split].name_of(int(np.flatnonzero(labels == 0)[0]))
        assert "cat" in name
    streamed = opened.stream(ThreadDecoder(1))["train"].rows(torch.arange(8))
    batch = next(streamed.batches([torch.arange(8)]))
    assert torch.equal(batch.inputs.permute(0, 2, 3, 1), torch.from_numpy(images["train"].pixels))


def test_rows_per_class_limit_the_training_rows_and_not_the_validation_rows() -> None:
    full, ten, five = (
        splits(job, OpenedSources(job).decode()) for job in (job_of(), job_of(per_class=10), job_of(per_class=5))
    )
    assert torch.bincount(ten.train.labels).tolist() == [10] * 10
    assert set(five.train.ids.tolist()) < set(ten.train.ids.tolist()) < set(full.train.ids.tolist())
    assert torch.equal(ten.validation.ids, full.validation.ids)
    assert len(splits(job_of(per_class=10_000), OpenedSources(job_of()).decode()).train) == len(full.train)
