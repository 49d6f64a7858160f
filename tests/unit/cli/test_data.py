"""What commands accept as a data set."""

from __future__ import annotations

import pytest

from lehr.cli.data import job_of
from lehr.errors import LehrError


@pytest.mark.parametrize("source", ["photso", "photos/", "my photos", "digts"])
def test_a_missing_data_set_is_refused_in_one_sentence_that_also_mentions_paths(source: str) -> None:
    with pytest.raises(LehrError, match=f'^"{source}" is neither a file or folder here nor a source; allowed: a path'):
        job_of(source, [])


@pytest.mark.parametrize("source", ["digits", "torchvision:CIFAR10", "mine.data:rows"])
def test_a_source_is_accepted_by_name(source: str) -> None:
    assert job_of(source, []).data.source == source
