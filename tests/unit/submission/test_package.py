"""What goes to a cluster with a job, and what stays."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from lehr.errors import LehrError
from lehr.submission import package as packaging
from lehr.submission.package import package


def make(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_user_s_own_modules_go_and_what_is_ignored_recorded_or_installed_stays(tmp_path: Path) -> None:
    make(tmp_path, "jobs/mine.yaml", "my_package/nets.py", "my_package/__init__.py", "notes.txt", "tool.sh")
    make(tmp_path, ".git/config", "__pycache__/a.pyc", "venv/pyvenv.cfg", "venv/lib/torch.py", "runs/other/log.txt")
    make(tmp_path, "old/run/job.yaml", text="format: 1\nkind: train\n")
    make(tmp_path, "old/run/model.safetensors", "secret.key", "build/out.o", "my_package/deep/big.bin")
    make(tmp_path, ".gitignore", text="*.key\n/build/\n!kept.key\n")
    make(tmp_path, "kept.key")
    make(tmp_path, "my_package/.gitignore", text="*.bin\n")
    made = package(tmp_path, without=[tmp_path / "runs"])
    assert [name for name in made.files if ".gitignore" not in name] == [
        "jobs/mine.yaml", "kept.key", "my_package/__init__.py", "my_package/nets.py", "notes.txt", "tool.sh",
    ]  # fmt: skip


def test_the_job_s_own_data_go_along_when_they_are_small_even_if_git_ignores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "job.yaml", "photos/cat/1.png", "photos/dog/2.png")
    make(tmp_path, ".gitignore", text="photos/\n")
    photos = [tmp_path / "photos"]
    assert "photos/cat/1.png" not in package(tmp_path).files
    assert {"photos/cat/1.png", "photos/dog/2.png"} <= set(package(tmp_path, data=photos).files)
    monkeypatch.setattr(packaging, "DATA_LIMIT", 1)
    assert package(tmp_path, data=photos).files == (".gitignore", "job.yaml")
    assert package(tmp_path, data=[tmp_path.parent / "elsewhere"]).files == (".gitignore", "job.yaml")


def test_the_same_files_make_the_same_package_and_any_change_another(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "b/c.py")
    before = package(tmp_path)
    os.utime(tmp_path / "a.py", (1, 1))
    again = package(tmp_path)
    assert again.name == before.name
    assert again.zip() == before.zip()
    os.chmod(tmp_path / "a.py", 0o755)
    executable = package(tmp_path)
    make(tmp_path, "a.py", text="y")
    changed = package(tmp_path)
    os.rename(tmp_path / "a.py", tmp_path / "d.py")
    renamed = package(tmp_path)
    assert len({each.name for each in (before, executable, changed, renamed)}) == 4


def test_the_zip_holds_the_files_as_they_are(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "b/ü c.py", text="print('ü')")
    (tmp_path / "b/run.sh").write_bytes(bytes(range(256)))
    os.chmod(tmp_path / "b/run.sh", 0o755)
    with zipfile.ZipFile(io.BytesIO(package(tmp_path).zip())) as archive:
        assert sorted(archive.namelist()) == ["a.py", "b/run.sh", "b/ü c.py"]
        assert archive.read("b/run.sh") == bytes(range(256))
        assert archive.getinfo("b/run.sh").external_attr >> 16 & 0o111
        assert not archive.getinfo("a.py").external_attr >> 16 & 0o111


def test_too_large_a_folder_is_refused_with_its_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "small.py")
    (tmp_path / "weights.bin").write_bytes(os.urandom(3000))
    (tmp_path / "more.bin").write_bytes(os.urandom(2000))
    monkeypatch.setattr(packaging, "LIMIT", 4000)
    with pytest.raises(LehrError) as refused:
        package(tmp_path).zip()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.index("weights.bin (3 KiB)") < sentence.index("more.bin (2 KiB)")
    assert ".rayignore" in sentence
    monkeypatch.setattr(packaging, "LIMIT", 10_000)
    assert len(package(tmp_path).zip()) < 10_000


def test_links_are_followed_once_and_links_to_nowhere_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "real/a.py")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "real/circle").symlink_to("..")
    (tmp_path / "nowhere").symlink_to("gone")
    assert {"real/a.py", "linked/a.py"} <= set(package(tmp_path).files)
    assert all("nowhere" not in name and name.count("circle") <= 1 for name in package(tmp_path).files)


def test_a_folder_that_is_none_and_a_file_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(LehrError, match=r"gone is not a folder"):
        package(tmp_path / "gone")
