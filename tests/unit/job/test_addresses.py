"""An address that is misspelt is refused with the right spelling, in every field that holds a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lehr.data.sources.base import file_system
from lehr.errors import JobError, LehrError
from lehr.job import from_dict, load
from lehr.paths import misspelt_address
from lehr.runs import Folder

MISSPELT = {
    "s3:/bucket/x": "s3://bucket/x",
    "s3:bucket/x": "s3://bucket/x",
    "s3:///bucket/x": "s3://bucket/x",
    "S3://bucket/x": "s3://bucket/x",
    "s3a://bucket/x": "s3://bucket/x",
    "gs:/bucket": "gs://bucket",
    "gs:bucket": "gs://bucket",
    "GS://bucket": "gs://bucket",
    "gcs:/bucket": "gcs://bucket",
    "hdfs:/name/x": "hdfs://name/x",
    "file:/tmp/x": "file:///tmp/x",
    "file:tmp/x": "file:///tmp/x",
    "FILE:///tmp/x": "file:///tmp/x",
}
RIGHT = (
    "s3://b/x",
    "gs://b",
    "gcs://b",
    "file:///tmp/x",
    "/tmp/s3:/x",
    "./s3:/x",
    "runs",
    "a:b",
    "c:/x",
    "run:x",
    "none",
)


@pytest.mark.parametrize("text", MISSPELT)
def test_a_misspelt_address_names_the_right_one(text: str) -> None:
    assert misspelt_address(text) == f'"{text}" is not an address of files; did you mean {MISSPELT[text]}?'
    assert not misspelt_address(MISSPELT[text])


@pytest.mark.parametrize("text", RIGHT)
def test_paths_and_right_addresses_pass(text: str) -> None:
    assert misspelt_address(text) == ""


@pytest.mark.parametrize("text", ["http://host/x", "https://host/x.zip", "ftp://host/x", "hf://datasets/x", "HTTP:/x"])
def test_an_address_of_the_web_says_what_is_read_instead(text: str) -> None:
    assert "is an address of the web, from which files cannot be read" in misspelt_address(text)


@pytest.mark.parametrize(
    ("job", "field"),
    [
        ({"kind": "train", "storage": "s3:/b/x"}, "storage"),
        ({"kind": "train", "data": {"source": "images", "path": "s3:/b/x"}}, "data.path"),
        ({"kind": "train", "data": {"validation": "s3:/b/x"}}, "data.validation"),
        ({"kind": "train", "data": {"test": "s3:/b/x"}}, "data.test"),
        ({"kind": "train", "model": {"weights": "s3:/b/x.pth"}}, "model.weights"),
        ({"kind": "predict", "run": "r", "out": "s3:/b/x", "data": {"source": "digits"}}, "out"),
        ({"kind": "search", "base": {"data": {"source": "images", "path": "s3:/b/x"}}}, "base.data.path"),
    ],
)
def test_every_field_that_holds_a_path_refuses_it(job: dict[str, Any], field: str) -> None:
    with pytest.raises(JobError) as caught:
        from_dict(job)
    assert caught.value.field == field
    assert "did you mean s3://b/x" in str(caught.value)


def test_the_sentence_points_to_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.yaml").write_text("kind: train\nstorage: s3:/bucket/x\n")
    with pytest.raises(JobError, match=r'job\.yaml:2: storage: "s3:/bucket/x" .* did you mean s3://bucket/x\?'):
        load(tmp_path / "job.yaml")
    monkeypatch.setenv("LEHR_STORAGE", "gs:/bucket")
    with pytest.raises(JobError, match=r"did you mean gs://bucket\?"):
        from_dict({"kind": "train"})


def test_every_other_way_to_files_refuses_it_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LehrError, match="did you mean s3://bucket/x"):
        Folder.at("s3:/bucket/x")
    with pytest.raises(ValueError, match="did you mean s3://bucket/x"):
        file_system("s3:/bucket/x")
    assert not [*tmp_path.iterdir()]
