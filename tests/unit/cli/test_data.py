"""What the commands take as a data set."""

from __future__ import annotations

import pytest

from lehr.cli.data import job_of
from lehr.errors import LehrError


@pytest.mark.parametrize("source", ["photso", "photos/", "my photos", "digts"])
def test_a_data_set_that_is_not_there_gets_one_sentence_that_names_paths_too(source: str) -> None:
    with pytest.raises(LehrError, match=f'^"{source}" is neither a file or folder here nor a source; allowed: a path'):
        job_of(source, [])


@pytest.mark.parametrize("source", ["digits", "torchvision:CIFAR10", "mine.data:rows"])
def test_a_source_is_taken_by_its_name(source: str) -> None:
    assert job_of(source, []).data.source == source
