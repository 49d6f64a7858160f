"""Pictures of predictions that a run recorded are drawn, and damaged ones leave the report whole."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.curves.answer_panels import panel_sections


def test_a_confusion_tells_shares_of_each_true_class_and_with_many_classes_pairs() -> None:
    few = {"kind": "confusion", "title": "Confusion", "content": {"names": ["a", "b<"], "counts": [[90, 10], [0, 0]]}}
    (section,) = panel_sections([few])
    assert section.heading == "Confusion"
    assert "90%" in section.body
    assert "b&lt;" in section.body
    counts = [[0] * 20 for _ in range(20)]
    counts[3][7], counts[3][3] = 25, 75
    many = {"kind": "confusion", "title": "", "content": {"names": [f"c{k}" for k in range(20)], "counts": counts}}
    body = str(panel_sections([many])[0].body)
    assert "c3" in body
    assert "25%" in body
    assert "c5" not in body


def test_curves_are_small_pictures_with_their_names() -> None:
    line = {"name": "cat & dog", "told": "81.0%", "x": [0.0, 1.0], "y": [1.0, 0.5]}
    panel = {"kind": "curves", "title": "PR", "content": {"lines": [line], "x": "recall", "y": "Precision"}}
    body = str(panel_sections([panel])[0].body)
    assert "cat &amp; dog" in body
    assert 'points="0.0,0.0 100.0,50.0"' in body


@pytest.mark.parametrize(
    "panel",
    [
        {"kind": "unknown", "title": "x", "content": {}},
        {"kind": "confusion", "title": "x"},
        {"kind": "confusion", "title": "x", "content": {"names": ["a"], "counts": [[1, 2]]}},
        {"kind": "confusion", "title": "x", "content": {"names": ["a"], "counts": "many"}},
        {"kind": "curves", "title": "x", "content": {"lines": [{"name": "a", "x": [0], "y": [float("nan")]}]}},
        {"kind": "curves", "title": "x", "content": {"lines": 7}},
        {},
    ],
)
def test_a_damaged_panel_is_left_out(panel: dict[str, Any]) -> None:
    assert panel_sections([panel]) == []
