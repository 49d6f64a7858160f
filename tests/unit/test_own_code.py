"""What a user's code raises becomes one sentence: what, where in their file, with which values."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lehr.errors import LehrError
from lehr.own_code import OwnCodeError, calling, shape

MODULE = """\
import json

import torch


def helper(outputs, targets):
    return outputs + targets


def loss(outputs, targets):
    return helper(outputs, targets)


def inside_a_library(outputs, targets):
    return json.loads("no JSON")
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "their_losses.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("their_losses")


def test_an_error_names_the_last_line_of_their_file_and_the_shapes(theirs: object) -> None:
    outputs, targets = torch.zeros(64, 10), torch.zeros(7, dtype=torch.int64)
    with pytest.raises(OwnCodeError) as caught, calling("their_losses:loss", outputs=outputs, targets=targets):
        theirs.loss(outputs, targets)  # type: ignore[attr-defined]
    sentence = str(caught.value)
    assert sentence.startswith("their_losses:loss failed: RuntimeError: The size of tensor a (10) must match")
    assert "their_losses.py:7 (return outputs + targets)" in sentence
    assert "called with outputs: float32 [64, 10], targets: int64 [7]" in sentence
    assert sentence.endswith("put breakpoint() there and run with --debug")
    assert caught.value.exit_code == 1


def test_an_error_inside_a_library_names_the_line_that_called_it(theirs: object) -> None:
    with pytest.raises(OwnCodeError, match=r"their_losses.py:15 \(return json.loads"), calling("their_losses:x"):
        theirs.inside_a_library(None, None)  # type: ignore[attr-defined]


def test_a_call_that_does_not_fit_has_no_line_of_theirs(theirs: object) -> None:
    with (
        pytest.raises(OwnCodeError, match=r"failed: TypeError: loss\(\) missing 1 required"),
        calling("their_losses:loss"),
    ):
        theirs.loss(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [LehrError("known"), MemoryError(), RuntimeError("CUDA out of memory. Tried …")])
def test_known_errors_and_full_memory_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, calling("their_losses:loss"):
        raise error
    assert caught.value is error


def test_values_are_told_in_a_few_words() -> None:
    assert shape(np.zeros((2, 3), np.uint8)) == "uint8 [2, 3]"
    assert shape([torch.zeros(1), 3]) == "list of float32 [1], 3"
    assert shape({"a": 1}) == "dict"
    assert shape("x" * 99) == repr("x" * 99)[:60]
