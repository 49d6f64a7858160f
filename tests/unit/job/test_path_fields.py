"""Every path of a job is found, whatever its kind."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import from_dict
from lehr.job.base import path_fields


@pytest.mark.parametrize(
    ("fields", "paths", "runs"),
    [
        ({}, {"storage": "/runs"}, {}),
        ({"data": {"source": "images", "path": "/data"}}, {"storage": "/runs", "data.path": "/data"}, {}),
        (
            {"model": {"name": "resnet18", "weights": "run:/runs/a"}},
            {"storage": "/runs", "model.weights": "run:/runs/a"},
            {},
        ),
        ({"model": {"name": "resnet18", "weights": "pretrained"}}, {"storage": "/runs"}, {}),
        (
            {
                "kind": "transfer",
                "backbone": {"name": "run:a"},
                "base": {"data": {"source": "images", "path": "s3://b"}},
            },
            {"storage": "/runs", "base.data.path": "s3://b"},
            {"backbone.name": "run:a"},
        ),
        ({"kind": "predict", "run": "run:a", "out": "/out"}, {"storage": "/runs", "out": "/out"}, {"run": "run:a"}),
    ],
)
def test_paths_are_found_with_their_field_and_references_to_runs_on_request(
    fields: dict[str, Any], paths: dict[str, str], runs: dict[str, str]
) -> None:
    job = from_dict({"storage": "/runs", **fields})
    assert {".".join(map(str, field)): path for field, path in path_fields(job)} == paths
    assert {".".join(map(str, field)): path for field, path in path_fields(job, runs=True)} == paths | runs
