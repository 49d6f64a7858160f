"""What counts as code, who may allow it, and what is remembered of that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import lehr
from lehr import models, trust
from lehr.errors import LehrError
from lehr.job import derive, from_dict, load, to_dict
from lehr.job.search import SearchJob
from lehr.own_modules import look_in
from lehr.paths import user_folder
from lehr.trust import Call, Untrusted, allow, calls_of, is_allowed, remember

NET = Call("model", "my_nets:Net", {"width": 8})


@pytest.fixture
def my_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, which is imported afresh."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/my_nets.py").write_text("from lehr.models.small_cnn import SmallCNN as Net\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path / "code"


def forget() -> None:
    """As in a new process: only what is remembered is left."""
    trust._granted.clear()


# ── what counts as code ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("job", "paths"),
    [
        ({"model": "small_cnn"}, []),
        ({"model": {"name": "timm/resnet18", "weights": "run:theirs"}}, []),
        ({"data": {"source": "torchvision:CIFAR10", "path": None}}, []),
        ({"model": "my_nets:Net"}, ["my_nets:Net"]),
        ({"data": {"source": "os:system", "path": "touch x"}}, ["os:system"]),
        ({"data": {"source": "torchvision:LSUN", "path": "there"}}, ["torchvision:LSUN"]),  # it reads pickles there
        ({"data": {"source": "a:b", "path": "c", "validation": "d", "test": "none"}}, ["a:b", "a:b"]),
        ({"base": {"model": {"name": "a:b"}, "data": {"source": "c:d"}}}, ["a:b", "c:d"]),
        ({"backbone": {"name": "run:theirs"}}, []),
        ({"backbone": {"name": "a:b"}}, ["a:b"]),
        ({"base": {}, "space": {"model": {"choice": ["small_cnn", {"name": "a:b"}]}}}, ["a:b"]),
        ({"base": {}, "space": {"model.name": ["a:b", "c:d"]}}, ["a:b", "c:d"]),
        ({"base": {}, "space": {"data.source": {"grid": ["a:b"], "when": None}}}, ["a:b"]),
        ({"base": {}, "members": [{"model": "a:b"}, {"model.name": "c:d"}]}, ["a:b", "c:d"]),
        ({"base": {}, "members": ["run:a", "run:b"]}, []),
        ({"base": {"base": [{"model": {"name": "a:b"}}]}}, ["a:b"]),  # wherever it stands
    ],
)
def test_every_import_path_in_a_job_counts_as_code(job: dict[str, Any], paths: list[str]) -> None:
    assert [call.path for call in calls_of(job)] == paths


def test_a_digest_changes_with_everything_that_the_code_is_called_with() -> None:
    calls = [
        NET,
        Call("data source", NET.path, NET.options),
        Call("model", "my_nets:Other", NET.options),
        Call("model", NET.path, {"width": 9}),
        Call("model", NET.path, {"width": 8, "weights": "x"}),
        *calls_of({"base": {"model": {"name": NET.path, "width": 8}}, "space": {"model.width": [1, 2]}}),
        *calls_of({"base": {"model": {"name": NET.path, "width": 8}}, "space": {"model.width": [1, 3]}}),
    ]
    assert len({call.digest for call in calls}) == len(calls)
    assert NET.digest == Call("model", NET.path, {"width": 8}).digest


# ── who may allow it ────────────────────────────────────────────────────────────────────────────────────────────────


def test_code_is_denied_until_somebody_allows_it(my_nets: Path) -> None:
    with pytest.raises(Untrusted, match=r"names my_nets:Net as its model\. That is code, and somebody else"):
        trust.load(NET)
    assert "my_nets" not in sys.modules
    allow([NET])
    assert trust.load(NET).__name__ == "SmallCNN"
    with pytest.raises(Untrusted):
        trust.load(Call("model", "my_nets:Net", {"width": 9}))


def test_a_mapping_allows_nothing_and_a_job_file_allows_what_it_names(my_nets: Path) -> None:
    job = {"model": {"name": "my_nets:Net", "width": 8}}
    from_dict(job)
    assert not is_allowed(NET)
    Path("job.yaml").write_text(json.dumps(job))
    load("job.yaml")
    assert is_allowed(NET)
    assert not is_allowed(Call("model", "my_nets:Net", {"width": 4}))


def test_the_job_of_a_run_given_as_a_job_file_allows_nothing(my_nets: Path) -> None:
    Path("job.yaml").write_text("format: 2\nkind: train\nmodel: {name: my_nets:Net, width: 8}\n")
    for text in (None, "extends: job.yaml\n", "kind: search\nbase: job.yaml\nspace: {seed: [1, 2]}\n"):
        if text:
            Path("mine.yaml").write_text(text)
        with pytest.raises(LehrError, match="format"):
            load("mine.yaml" if text else "job.yaml")
    assert not is_allowed(NET)


SEARCH = {"kind": "search", "base": {"model": "my_nets:Net"}, "space": {"model.width": [4, 8], "seed": [1, 2]}}


def test_the_trials_of_a_job_may_call_what_the_job_names_if_it_may(my_nets: Path) -> None:
    job = from_dict(SEARCH)
    assert isinstance(job, SearchJob)
    derive(job.base, {"model.width": 8}, parent=job, name="trials/1")
    assert not is_allowed(NET)
    allow(calls_of(to_dict(job)))
    derive(job.base, {"model.width": 8}, parent=job, name="trials/1")
    assert is_allowed(NET)
    derive(job.base, {"model": "from_a_run:Net"}, parent=job, name="trials/2")  # the job itself does not name it
    assert not is_allowed(Call("model", "from_a_run:Net"))


def test_a_search_whose_space_was_changed_must_be_trusted_again(my_nets: Path) -> None:
    allow(calls_of(to_dict(from_dict(SEARCH))))
    changed = from_dict({**SEARCH, "space": {"model.width": [4, 99], "seed": [1, 2]}})
    with pytest.raises(Untrusted):
        trust.check(calls_of(to_dict(changed)), "x")


def test_code_in_a_run_folder_is_never_imported_even_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "runs/x/checkpoints"
    inside.mkdir(parents=True)
    (tmp_path / "runs/x/job.yaml").write_text("format: 2\nkind: train\n")
    (inside / "planted.py").write_text("open('pwned', 'w')\n")
    look_in(inside)
    assert str(inside) not in sys.path
    monkeypatch.syspath_prepend(inside)
    call = Call("model", "planted:Net")
    allow([call])
    with pytest.raises(LehrError, match=r"in the run folder .*/runs/x; move the code out"):
        trust.load(call)
    assert not Path("pwned").exists()


def test_the_sentence_comes_whole_from_another_process() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(Untrusted) as caught:
        pool.submit(trust.check, [NET], "runs/x").result()
    assert caught.value.call == NET
    assert str(caught.value).startswith("runs/x names my_nets:Net as its model")


def test_the_sentence_says_the_whole_command_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lehr", "predict", "runs/x", "my photos", "out"])
    assert str(Untrusted(NET, "runs/x")) == (
        "runs/x names my_nets:Net as its model. That is code, and somebody else may have written the run. "
        "To run it: lehr predict runs/x 'my photos' out --trust runs/x"
    )
    assert Untrusted(NET).exit_code == 2
    assert str(Untrusted(Call("model", "a\x1b[2J\nb:c"), "x")).startswith(
        "x names a?[2J?b:c as its model. That is code"
    )
    monkeypatch.setattr(sys, "argv", ["notebook.py"])
    assert str(Untrusted(NET, "runs/x")).endswith("To run it: lehr.Run('runs/x', trust=True)")


NAMES = ("no_such:Net", "json:Net", "json:", ":", ":b", ".a:b", "a/b:c", "..:x", "a b:c", "\0:x", "json:a:b")


@pytest.mark.parametrize("trusted", [Call("model", f"{name}") for name in NAMES])
def test_what_is_not_there_is_said_in_a_sentence(trusted: Call) -> None:
    allow([trusted])
    with pytest.raises(ValueError, match=r"there is no module no_such|json has no |is not the name of a module"):
        trust.load(trusted)


# ── registered names reach no code through their options ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("option", [{"pretrained": True}, {"weights": "IMAGENET1K_V1"}, {"num_classes": 3}])
def test_an_option_of_torchvision_that_loads_weights_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not take"):
        models.build("resnet18", 3, 10, option, seed=0)


@pytest.mark.parametrize(
    "option",
    [
        {"checkpoint_path": "evil.pth"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "evil.pth"}},
        {"pretrained_cfg_overlay": {"url": "http://evil"}},
        {"cache_dir": "there"},
    ],
)
def test_an_option_of_timm_that_loads_a_file_is_refused(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("timm was asked to build it")

    timm = types.ModuleType("timm")
    timm.is_model, timm.create_model = lambda name: True, never  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    with pytest.raises(ValueError, match="does not take"):
        models.build("timm/resnet18", 3, 10, option, seed=0)


# ── what is remembered ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_allowed_is_remembered_for_the_same_code_in_the_same_place(
    my_nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow([NET])
    remember([NET])
    forget()
    assert is_allowed(NET)
    assert not is_allowed(Call("model", "my_nets:Net", {"width": 9}))
    forget()
    (tmp_path / "elsewhere").mkdir()
    (my_nets / "my_nets.py").rename(tmp_path / "elsewhere/my_nets.py")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert not is_allowed(NET)


def test_nothing_is_remembered_that_was_not_allowed(my_nets: Path) -> None:
    remember([NET])
    assert not user_folder().exists()
    allow([NET])
    remember([NET, Call("model", "no_such:Net")])
    assert list(json.loads((user_folder() / trust.FILE).read_text())["calls"].values()) == ["model my_nets:Net"]


def test_the_file_is_for_its_owner_alone_and_whole_at_every_moment(my_nets: Path) -> None:
    allow([NET])
    remember([NET])
    file = user_folder() / trust.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert user_folder().stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in user_folder().iterdir()] == [trust.FILE]


def test_processes_that_remember_at_once_lose_nothing(my_nets: Path) -> None:
    code = (
        "import sys; from lehr.trust import *; "
        "calls = [Call('model', 'my_nets:Net', {'n': [sys.argv[1], i]}) for i in range(20)]; allow(calls); "
        "[remember([call]) for call in calls]"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=environment) for n in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(json.loads((user_folder() / trust.FILE).read_text())["calls"]) == 60


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 9, "calls": {}}', '{"format": 1, "calls": []}', "[" * 9999]
)
def test_a_damaged_file_is_told_and_counts_as_empty(
    content: str, my_nets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_said", set())
    user_folder().mkdir(parents=True)
    (user_folder() / trust.FILE).write_text(content)
    assert not is_allowed(NET)
    assert "is damaged and counts as empty" in capsys.readouterr().err
    allow([NET])
    remember([NET])
    forget()
    assert is_allowed(NET)


def test_a_file_that_others_may_write_counts_as_empty(
    my_nets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_said", set())
    allow([NET])
    remember([NET])
    forget()
    (user_folder() / trust.FILE).chmod(0o666)
    assert not is_allowed(NET)
    assert "others may write it" in capsys.readouterr().err


def test_a_user_folder_that_cannot_be_written_is_told_and_stops_nothing(
    my_nets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("LEHR_STATE", "file/state")
    allow([NET])
    remember([NET])
    assert "cannot be written" in capsys.readouterr().err


def test_a_job_given_in_python_runs_its_code_and_is_remembered(my_nets: Path) -> None:
    job = {
        "name": "mine",
        "data": {"limit": 60},
        "model": {"name": "my_nets:Net", "width": 8},
        "train": {"epochs": 1},
    }
    lehr.run(job, debug=True)
    forget()
    assert lehr.Run("runs/mine").best_model() is not None
