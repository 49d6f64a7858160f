"""A folder is the same thing on a disk and on S3."""

from __future__ import annotations

import os
import pickle
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lehr.errors import RunError, StorageError
from lehr.runs import Folder, storage
from lehr.runs.stores import Disk, Objects


def test_what_is_written_is_read_back_and_replaced_whole(folder: Folder) -> None:
    folder.write("a.bin", b"one" * 1000)
    folder.write("deep/er/b.bin", b"")
    assert folder.read("a.bin") == b"one" * 1000
    assert folder.read("deep/er/b.bin") == b""
    folder.write("a.bin", b"two")
    assert folder.read("a.bin") == b"two"
    folder.write_json("c.json", {"ä": [1, None, 0.1 + 0.2], "lost": float("-inf")})
    assert folder.read_json("c.json") == {"ä": [1, None, 0.1 + 0.2], "lost": float("-inf")}


def test_listings_are_sorted_and_show_neither_temporary_files_nor_deeper_ones(folder: Folder) -> None:
    for name in ("b", "a", "sub/y", "sub/x", "sub/deeper/z", "other/q"):
        folder.write(name, b"1")
    if folder.is_local:
        (folder.local_path / ".a.123.tmp").write_bytes(b"half")
    assert folder.files() == ["a", "b"]
    assert folder.files("sub") == ["x", "y"]
    assert folder.folders() == ["other", "sub"]
    assert folder.child("sub").files() == ["x", "y"]
    assert folder.files("nowhere") == []
    assert folder.child("nowhere").folders() == []


def test_create_never_replaces(folder: Folder) -> None:
    assert folder.create("x/once", b"first") is True
    assert folder.create("x/once", b"second") is False
    assert folder.read("x/once") == b"first"
    assert folder.files("x") == ["once"]


def test_of_many_racing_creators_on_a_disk_exactly_one_wins_and_nobody_sees_a_part(local: Folder) -> None:
    contents = [bytes([65 + i]) * 200_000 for i in range(8)]
    for round_ in range(20):
        gate = threading.Barrier(len(contents))
        won: list[bytes] = []

        def take(content: bytes, name: str = f"r{round_}", gate: Any = gate, won: list[bytes] = won) -> None:
            gate.wait()
            if local.create(name, content):
                won.append(content)
            assert local.read(name) in contents

        threads = [threading.Thread(target=take, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert local.read(f"r{round_}") == won[0]
    assert not [name for name in os.listdir(local.local_path) if name.startswith(".")]


def test_create_stays_exclusive_without_hard_links(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert local.create("once", b"first") is True
    assert local.create("once", b"second") is False
    assert local.read("once") == b"first"


def test_missing_files_are_file_not_found(folder: Folder) -> None:
    for missing in (folder.read, folder.read_json, folder.open_input_file):
        with pytest.raises(FileNotFoundError):
            missing("nothing")
    assert not folder.exists("nothing")


def test_deleting_is_complete_and_may_be_repeated(folder: Folder) -> None:
    folder.write("a", b"1")
    folder.write("sub/deep/b", b"1")
    assert folder.exists("a")
    assert folder.exists("sub")
    folder.delete("a")
    folder.delete("a")
    assert not folder.exists("a")
    folder.child("sub").delete_all()
    folder.child("sub").delete_all()
    assert not folder.exists("sub/deep/b")
    assert folder.child("sub").folders() == []


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/", ".", "a/.", ".hidden", "a\\b", "a\nb", "a\0b"]
)
def test_names_that_lead_elsewhere_are_refused(local: Folder, name: str) -> None:
    for use in (local.exists, local.read, local.delete, lambda n: local.write(n, b""), local.child):
        with pytest.raises(RunError, match="cannot be a name in a run folder"):
            use(name)
    assert not local.local_path.exists()


@pytest.mark.parametrize("name", ["lr=0.1,wd=1e-4", "with space", "50% ünï", "q?x#y"])
def test_any_printable_name_works_and_its_uri_leads_back(folder: Folder, name: str) -> None:
    child = folder.child(name, "deep")
    child.write("file " + name, b"1")
    again = Folder.at(child.uri)
    assert again == child
    assert again.read("file " + name) == b"1"
    assert folder.folders() == [name]
    assert child.name == "deep"
    assert folder.child(name).name == name


def test_folders_survive_pickling_by_their_uri(folder: Folder) -> None:
    folder.write("a", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert hash(again) == hash(folder)
    assert again.read("a") == b"1"


def test_a_local_folder_may_be_a_path_relative_or_a_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Folder.at("some dir/x")
    assert here == Folder.at(tmp_path / "some dir" / "x") == Folder.at(f"file://{tmp_path}/some%20dir/x")
    assert here.is_local
    assert here.local_path == tmp_path / "some dir" / "x"
    assert here.name == "x"


def test_a_remote_folder_has_no_local_path(s3: str) -> None:
    folder = Folder.at(s3 + "/r?region=us-east-1")
    assert not folder.is_local
    assert folder.child("a").uri == s3 + "/r/a?region=us-east-1"
    with pytest.raises(RunError, match="not on a local disk"):
        _ = folder.local_path


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "is not a folder"),
        ("nonsense://x/y", "no such storage"),
        ("s3://", "has no bucket"),
        ("s3://bucket/with space", "no such storage"),
        ("s3://key:secret@bucket/x", "credentials belong in the environment"),
        ("s3://KEY:with/slash/secret@bucket/x", "credentials belong in the environment"),
        ("s3://KEY:99/secret@bucket/x", "credentials belong in the environment"),
        ("s3://KEY:99 and secret@bucket/x", "credentials belong in the environment"),
        ("s3://bucket/x?session_token=secret", "credentials belong in the environment"),
    ],
)
def test_an_impossible_address_is_one_sentence_without_secrets(uri: str, says: str) -> None:
    with pytest.raises(StorageError, match=says) as caught:
        Folder.at(uri)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_readers_can_seek_in_files(folder: Folder) -> None:
    folder.write("a", b"0123456789")
    with folder.open_input_file("a") as file:
        file.seek(4)
        assert file.read(2) == b"45"


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(local: Folder) -> None:
    local.write("a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StorageError) as caught:
            local.write("a", b"x" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"{local.uri}/a: cannot write: File too large"
    assert local.read("a") == b"old"
    assert os.listdir(local.local_path) == ["a"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    folder = Folder.at(tmp_path / "file" / "run")
    with pytest.raises(StorageError, match="cannot write: "):
        folder.write("a", b"")
    with pytest.raises(StorageError, match="cannot list: "):
        folder.files()


class Flaky(Disk):
    """A disk that fails a few times before each success, as a remote store may."""

    tries = 5

    def __init__(self, failures: int, message: str = "SLOW_DOWN") -> None:
        self.failures, self.message, self.calls = failures, message, 0

    def read(self, path: str, limit: int | None = None) -> bytes:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(self.message)
        return super().read(path, limit)


@pytest.fixture
def flaky(local: Folder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Folder, Flaky]]:
    monkeypatch.setattr(storage, "FIRST_WAIT_SECONDS", 1e-4)
    local.write("a", b"1")

    def make(*arguments: Any) -> tuple[Folder, Flaky]:
        store = Flaky(*arguments)
        return Folder(local.uri, store, local.uri), store

    return make


def test_an_outage_that_ends_is_not_noticed(flaky: Callable[..., tuple[Folder, Flaky]]) -> None:
    folder, store = flaky(4)
    assert folder.read("a") == b"1"
    assert store.calls == 5


def test_retries_are_bounded_and_end_in_one_sentence(flaky: Callable[..., tuple[Folder, Flaky]]) -> None:
    folder, store = flaky(99)
    with pytest.raises(StorageError) as caught:
        folder.read("a")
    assert str(caught.value) == f"{folder.uri}/a: cannot read: SLOW_DOWN (tried 5 times in 0 s)"
    assert store.calls == 5


def test_errors_that_waiting_cannot_cure_are_not_retried(flaky: Callable[..., tuple[Folder, Flaky]]) -> None:
    folder, store = flaky(99, "AWS Error ACCESS_DENIED during GetObject")
    with pytest.raises(StorageError, match="ACCESS_DENIED"):
        folder.read("a")
    assert store.calls == 1


def test_a_bucket_that_does_not_exist_is_one_sentence(s3: str) -> None:
    with pytest.raises(StorageError, match=r"cannot write: .*NO_SUCH_BUCKET") as caught:
        Folder.at("s3://no-such-bucket/x").write("a", b"1")
    assert "tried" not in str(caught.value)


def test_a_server_that_is_down_is_one_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(Objects, "tries", 1)  # pyarrow itself takes seconds for each try
    with pytest.raises(StorageError, match=r"cannot read: .*NETWORK_CONNECTION"):
        Folder.at("s3://lehr-tests/x").read("a")


def test_a_long_outage_stalls_a_job_that_is_patient_and_loses_nothing(
    flaky: Callable[..., tuple[Folder, Flaky]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = flaky(200)
    store.patience = 60.0
    monkeypatch.setattr(storage, "LONGEST_WAIT_SECONDS", 1e-4)
    assert folder.read("a") == b"1"
    assert store.calls == 201
    impatient, store = flaky(200)
    store.patience = 0.01
    with pytest.raises(StorageError, match=r"SLOW_DOWN \(tried \d+ times in \d+ s\)"):
        impatient.read("a")
    denied, store = flaky(200, "AWS Error ACCESS_DENIED during GetObject")
    store.patience = 60.0
    with pytest.raises(StorageError):
        denied.read("a")
    assert store.calls == 1


def test_a_job_on_a_cluster_is_patient_and_a_command_is_not(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Folder.at("s3://lehr-tests/x")._patience() == 0
    assert Folder.at("s3://lehr-tests/x", known=True)._patience() == storage.PATIENCE_SECONDS
    monkeypatch.setenv(storage.PATIENCE, "900")
    assert Folder.at("s3://lehr-tests/x")._patience() == 900
    assert Folder.at("s3://lehr-tests/x", patience=0)._patience() == 0
    assert Folder.at("here")._patience() == 0
