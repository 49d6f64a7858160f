"""A section that gets another name loses what it said, and the error that follows from it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.errors import JobError
from lehr.job import load
from lehr.kinds import check


@pytest.fixture
def transfer(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text("kind: transfer\nbackbone: {name: resnet18, weights: mine.pth}\n")
    return tmp_path / "job.yaml"


@pytest.mark.parametrize("override", ["backbone.name=small_cnn", "backbone=small_cnn"])
def test_the_weights_that_a_new_backbone_drops_are_named(override: str, transfer: Path) -> None:
    with pytest.raises(JobError) as caught:
        check(load(transfer, [override]))
    assert str(caught.value).endswith('to keep what was there, also type backbone.weights="mine.pth")')
    assert "there are no published weights of small_cnn" in str(caught.value)


def test_an_error_elsewhere_and_a_name_that_stays_say_nothing_of_it(transfer: Path) -> None:
    for overrides in (["backbone.name=resnet18"], ["backbone.name=small_cnn", "backbone.weights=others.pth"]):
        with pytest.raises(JobError) as caught:
            check(load(transfer, overrides))
        assert "to keep what was there" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "typed"),
    [
        (["model.weights=other.pth"], "type backbone.weights=other.pth"),
        (["base.model.weights=other.pth"], "type backbone.weights=other.pth"),
        (["base.model=resnet34"], "type backbone.name=resnet34"),
        (["model=resnet34", "model.weights=pretrained"], "type backbone.name=resnet34 backbone.weights=pretrained"),
    ],
)
def test_a_network_in_the_wrong_place_gets_the_whole_assignment(
    overrides: list[str], typed: str, transfer: Path
) -> None:
    with pytest.raises(JobError, match="the network of a transfer is its backbone") as caught:
        load(transfer, overrides)
    assert str(caught.value).endswith(typed)
