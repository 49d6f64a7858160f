"""Opening a run reads its job only when it is asked for, and finds the same mistakes as ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.errors import RunError
from lehr.runs import Folder, RunFolder
from lehr.runs.job_file import JobFile

JOB = {"kind": "train", "train": {"epochs": 3}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    RunFolder.create(Folder.at(tmp_path / "run"), JOB)
    return tmp_path / "run" / "job.yaml"


def test_what_lehr_wrote_is_read_when_its_job_is_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    of = JobFile.of

    def noted(data: bytes, folder: Folder) -> JobFile:
        read.append(folder.uri)
        return of(data, folder)

    monkeypatch.setattr(JobFile, "of", noted)
    run = RunFolder.open(file.parent)
    assert run.status() == "new"
    assert not read
    file.unlink()  # what was opened stays known, whatever becomes of the folder
    assert run.job["train"]["epochs"] == 3
    assert len(read) == 1


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"epochs: 3", b"epochs: 4", "was changed after lehr had written it"),
        (b"format: 4\n", b"format: 99\n", "was changed after lehr had written it"),
        (b"format: 4\n", b"", "has no format"),
        (b"kind: train", b"kind: [", "is damaged: it is not YAML"),
    ],
)
def test_a_changed_file_is_refused_when_it_is_opened(file: Path, old: bytes, new: bytes, sentence: str) -> None:
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(RunError, match=sentence):
        RunFolder.open(file.parent)


def test_a_file_without_a_checksum_is_read_whole(file: Path) -> None:
    file.write_bytes(b"format: 99\nkind: train\n")
    with pytest.raises(RunError, match="was written by a newer lehr"):
        RunFolder.open(file.parent)
    file.write_bytes(b"kind: train\nformat: 4\n")
    assert RunFolder.open(file.parent).job["kind"] == "train"
