"""What goes to a cluster with a job, and what stays."""

from __future__ import annotations

import io
import os
import re
import socket
import time
import zipfile
from pathlib import Path

import pytest

from lehr.errors import JobError, LehrError
from lehr.submission import package as packaging
from lehr.submission import survey as surveying
from lehr.submission.package import include_names, package


def make(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_user_s_own_modules_go_and_what_is_ignored_recorded_or_installed_stays(tmp_path: Path) -> None:
    make(tmp_path, "jobs/mine.yaml", "my_package/nets.py", "my_package/__init__.py", "notes.txt", "tool.sh")
    make(tmp_path, ".git/config", "__pycache__/a.pyc", "venv/pyvenv.cfg", "venv/lib/torch.py", "runs/other/log.txt")
    make(tmp_path, "old/run/job.yaml", text="format: 1\nkind: train\n")
    make(tmp_path, "old/run/model.safetensors", "secret.tmp", "build/out.o", "my_package/deep/big.bin")
    make(tmp_path, ".gitignore", text="*.tmp\n/build/\n!kept.tmp\n")
    make(tmp_path, "kept.tmp")
    make(tmp_path, "my_package/.gitignore", text="*.bin\n")
    made = package(tmp_path, without={tmp_path / "runs": "run folders"})
    assert [name for name in made.files if ".gitignore" not in name] == [
        "jobs/mine.yaml", "kept.tmp", "my_package/__init__.py", "my_package/nets.py", "notes.txt", "tool.sh",
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


SECRET_NAMES = [
    ".env", ".env.local", ".envrc", "prod.env", ".ENV", "deep/er/.env", ".aws/credentials", ".ssh/id_rsa", ".netrc",
    "_netrc", ".git-credentials", ".gitconfig", ".kube/config", "kubeconfig", "kubeconfig-prod.yaml", "tls.pem",
    "tls.key", "id_rsa", "id_ed25519.old", "cert.p12", "cert.pfx", ".pypirc", ".npmrc", ".docker/config.json",
    "application_default_credentials.json", "terraform.tfstate", "terraform.tfstate.backup", ".huggingface/token",
    ".config/gcloud/access_tokens.db", ".cache/huggingface/token", ".ray/auth_token", "secrets.yaml", ".pgpass",
]  # fmt: skip
ORDINARY = [
    "environment.yml", "env.py", "tokens.txt", "keys.py", "secrets.py", "kubeconfig.py", "kubeconfigs/notes.md",
    "monkey.py", "id_rsa_notes/a.md", "docker/config.json", ".config/tool.yaml", "token",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_never_travels_unasked_and_is_named(name: str, tmp_path: Path) -> None:
    make(tmp_path, "job.yaml", name)
    made = package(tmp_path)
    assert made.files == ("job.yaml",)
    told = made.told()
    if "/.cache/" not in f"/{name}":  # a cache, which nobody expects to travel
        assert len(told) == 1
        assert told[0].startswith("left out, since they look like secrets: ")
        assert name.split("/")[0] in told[0]
    assert package(tmp_path, include=[name]).files == tuple(sorted(["job.yaml", name]))


def test_what_only_sounds_like_a_secret_travels(tmp_path: Path) -> None:
    make(tmp_path, *ORDINARY)
    made = package(tmp_path)
    assert made.files == tuple(sorted(ORDINARY))
    assert made.told() == []


def test_a_key_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "deploy", text="-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    make(tmp_path, "robot.json", text='{\n  "type": "service_account",\n  "project_id": "x"\n}')
    make(tmp_path, "check.py", text='KEY = "-----BEGIN PRIVATE KEY-----"\n')
    make(tmp_path, "notes.json", text='{"type": "note"}')
    made = package(tmp_path)
    assert made.files == ("check.py", "notes.json")
    assert "deploy" in made.told()[0]
    assert "robot.json" in made.told()[0]
    assert "robot.json" in package(tmp_path, include=["robot.json"]).files


@pytest.mark.parametrize("name", ["requirements.txt", "deep/dev-requirements.txt", "pyproject.toml", "setup.cfg"])
def test_a_password_that_a_tool_wrote_into_an_address_stays(name: str, tmp_path: Path) -> None:
    make(tmp_path, name, text="# pip-compile --index-url=https://me:word@host/simple\ntimm==1.0\n")
    made = package(tmp_path)
    assert made.files == ()
    assert [(each.name, each.kind, each.why) for each in made.left_out] == [
        (name, "secret", "an address with credentials")
    ]
    make(tmp_path, name, text="--index-url https://me:${TOKEN}@host/simple\nx @ git+ssh://git@host/x.git@v1\n")
    assert package(tmp_path).files == (name,)


def test_the_job_s_own_data_are_no_way_around(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(outside, "salaries.csv")
    root = tmp_path / "project"
    make(root, "job.yaml", "photos/.env", "photos/1.png", ".aws/data/1.png")
    (root / "linked").symlink_to(outside)
    (root / "photos/2.png").symlink_to(outside / "salaries.csv")
    made = package(root, data=[root / "photos", root / "linked", root / ".aws/data"])
    assert made.files == ("job.yaml", "photos/1.png")
    secret, outer = made.told()
    assert "photos/.env" in secret
    assert ".aws/data" in secret
    assert f"linked/ (to {outside})" in outer
    assert "photos/2.png" in outer
    assert "--include" in outer
    asked = package(root, data=[root / "linked"], include=["linked"])
    assert "linked/salaries.csv" in asked.files


def test_links_lead_nowhere_that_must_not_travel(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(outside, "a.txt", "deep/b.txt")
    root = tmp_path / "project"
    make(root, "net.py", ".env", ".git/config", ".aws/credentials", "real/x.py")
    links = {
        "file": "../outside/a.txt", "folder": "../outside", "absolute": str(outside / "deep"), "home": "..",
        "root": "/", "config.txt": ".env", "git": ".git", "cloud": ".aws", "fine.py": "net.py", "also": "real",
        "chain": "file",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    made = package(root)
    assert made.files == ("also/x.py", "fine.py", "net.py", "real/x.py")
    kinds = {each.name: each.kind for each in made.left_out}
    for name in ("file", "folder/", "absolute/", "home/", "root/", "chain"):
        assert kinds[name] == "outside"
    assert (kinds["config.txt"], kinds["cloud/"], kinds["git/"]) == ("secret", "secret", "quiet")


def test_ignore_files_have_the_last_word_of_the_deepest_as_in_git(tmp_path: Path) -> None:
    make(tmp_path, ".gitignore", text="\ufeff*.log\n!kept.log\n/data/*\n!/data/kept\n")
    make(tmp_path, "a.log", "kept.log", "data/big", "data/kept", "sub/a.log", "sub/b.log", "sub/kept.log")
    make(tmp_path, "sub/.gitignore", text="!b.log\nkept.log\n")
    make(tmp_path, ".rayignore", text="!a.log\n")
    names = [name for name in package(tmp_path).files if "ignore" not in name]
    assert names == ["a.log", "data/kept", "kept.log", "sub/a.log", "sub/b.log"]
    make(tmp_path, ".gitignore", text="!.env\n")
    make(tmp_path, ".env")
    assert ".env" not in package(tmp_path).files  # what git keeps may still be a secret


def test_a_folder_of_fifty_gigabytes_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    make(tmp_path, "job.yaml", "src/net.py")
    (tmp_path / "src/data").mkdir()
    for number in range(50):
        with open(tmp_path / f"src/data/{number}.bin", "wb") as file:
            file.truncate(2**30)  # sparse
    (tmp_path / "src/data/most").mkdir()
    with open(tmp_path / "src/data/most/all.bin", "wb") as file:
        file.truncate(5 * 2**30)
    began = time.monotonic()
    with pytest.raises(LehrError) as refused:
        package(tmp_path)
    assert time.monotonic() - began < 1
    sentence = str(refused.value)
    assert (
        "is too large for a cluster (55 GiB); the largest entries are src/data/ (55 GiB), src/data/most/ (5 GiB), src/"
        in sentence
    )
    assert "list what the job does not need in .gitignore or .rayignore" in sentence


def test_a_folder_of_countless_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveying, "MOST_FILES", 20)
    make(tmp_path, *(f"photos/{number}.png" for number in range(30)))
    with pytest.raises(LehrError, match=r"more than 20,000 files\); the largest entries are photos/ \(19 files\)"):
        package(tmp_path)
    made = package(tmp_path, data=[tmp_path / "photos"])
    assert made.files == ()
    assert made.told() == [
        "left out, since they are data of more than 20 MiB: photos/ (more than 20,000 files); put them on storage that "
        "the cluster reaches (s3://…, gs://…, a shared file system)"
    ]


def test_what_no_package_can_hold_is_one_line_each(tmp_path: Path) -> None:
    make(tmp_path, "net.py")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "job.yaml")  # where a run folder would have its job
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
    (tmp_path / "line\nbreak").write_text("x")
    (tmp_path / "back\\slash").write_text("x")
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.py")).write_text("x")
    (tmp_path / "\x1b[31mred").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "self").symlink_to("self")
    made = package(tmp_path)
    assert made.files == ("net.py",)
    (told,) = made.told()
    for name in ("pipe", "job.yaml", "sock", "line\\nbreak", "back\\slash", "\\udcff.py", "\\x1b[31mred", "zero"):
        assert name in told
    assert told.isprintable()
    assert all(line.isprintable() for line in made.listing())


def test_a_bottomless_folder_and_an_ignore_file_without_end_are_one_sentence(tmp_path: Path) -> None:
    make(tmp_path, "net.py")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    made = package(tmp_path)
    assert made.files == ("net.py",)
    assert "deeper than 100 folders" in made.told()[0]
    with open(tmp_path / ".gitignore", "wb") as file:
        file.truncate(2**35)
    with pytest.raises(LehrError, match=r"\.gitignore: cannot be read: it is larger than 1 MiB"):
        package(tmp_path)


def test_a_file_that_cannot_be_read_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "net.py", "closed.bin")
    opened = os.open

    def refuse(path: str, *rest: int, **named: int) -> int:
        if str(path).endswith("closed.bin"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **named)

    monkeypatch.setattr(packaging.os, "open", refuse)
    made = package(tmp_path)
    assert made.files == ("net.py",)
    assert made.told() == ["left out, since they cannot travel: closed.bin (cannot be read: Permission denied)"]


def test_files_that_change_while_they_are_packed_never_make_a_package_that_is_not_theirs(tmp_path: Path) -> None:
    make(tmp_path, "net.py", "log.txt", text="one\n")
    made = package(tmp_path)
    with open(tmp_path / "log.txt", "a") as file:
        file.write("two\n")
    with zipfile.ZipFile(io.BytesIO(made.zip())) as archive:
        assert archive.read("log.txt") == b"one\n"  # as it was; what only grows does no harm
    (tmp_path / "net.py").write_text("two\n")
    with pytest.raises(LehrError, match=r"net.py changed while it was packed; submit again"):
        made.zip()
    (tmp_path / "net.py").unlink()
    os.mkfifo(tmp_path / "net.py")
    with pytest.raises(LehrError, match=r"net.py changed while it was packed"):
        made.zip()


def test_unpacked_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """As Ray's own code unpacks them, for a user whose files are readable for everyone."""
    from ray._private.runtime_env.packaging import unzip_package

    root = tmp_path / "project"
    make(root, "a.py", "b/run.sh")
    os.chmod(root / "a.py", 0o666)
    os.chmod(root / "b/run.sh", 0o755)
    (tmp_path / "package.zip").write_bytes(package(root).zip())
    unzip_package(str(tmp_path / "package.zip"), str(tmp_path / "out"), False, True)
    modes = {name: os.stat(tmp_path / "out" / name).st_mode & 0o777 for name in ("a.py", "b/run.sh")}
    assert modes == {"a.py": 0o600, "b/run.sh": 0o700}


def test_a_listing_names_everything_that_is_sent_and_everything_that_is_not(tmp_path: Path) -> None:
    make(tmp_path, "net.py", ".env", ".gitignore", "big.log", ".git/config", text="*.log\n")
    lines = package(tmp_path).listing()
    assert lines[0].split() == ["1", "KiB", ".gitignore"]
    assert "2 files, 1 KiB, from" in lines[2]
    rest = "\n".join(lines[3:])
    assert re.search(r"\.env +looks like a secret: environment variables", rest)
    assert re.search(r"big\.log +ignored by \.gitignore", rest)
    assert re.search(r"\.git/ +version control", rest)


def test_what_is_to_be_included_must_be_there(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "sub/.env")
    assert include_names(tmp_path, [Path("sub/.env"), tmp_path / "sub"]) == ("sub/.env", "sub")
    for path in ("gone", "/etc/passwd", ".."):
        with pytest.raises(JobError, match=r"--include: .* is not in "):
            include_names(tmp_path, [Path(path)])
