"""Every kind of job takes its rows through the one data door, which obeys `data.cache`, also with `--debug`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lehr
from lehr.data.dataset import Images
from lehr.data.load import OpenedSources
from lehr.data.streaming import Decoder, Stream
from lehr.runs import DataFacts, UnreadableImages

TRAINING: dict[str, Any] = {
    "data": {"source": "digits", "limit": 128},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "schedule": "constant",
    "train": {"epochs": 1, "batch_size": 64},
}
KINDS: dict[str, dict[str, Any]] = {
    "train": TRAINING,
    "search": {"base": TRAINING, "space": {"optimizer.lr": [0.01, 0.05]}, "method": "grid"},
    "recipe": {"base": TRAINING, "budget": "10ep", "recipe": {"stop_after": "initial_loss"}},
    "ensemble": {"base": TRAINING, "method": "independent", "members": 2, "compare": False},
    "transfer": {
        "base": {name: section for name, section in TRAINING.items() if name != "model"},
        "backbone": "run:six",
        "strategy": ["features", "finetune"],
        "images_per_class": [],
    },
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage that holds a network to transfer from."""
    folder = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)
    six = {**TRAINING, "data": {"source": "digits", "classes": list("012345"), "limit": 128}}
    lehr.run({"kind": "train", "name": "six", "storage": str(folder), **six}, debug=True)
    return folder


class Seen:
    """How the sources of a job were asked for their rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streamed = self.decoded = 0
        stream, decode = OpenedSources.stream, OpenedSources.decode

        def streams(opened: OpenedSources, decoder: Decoder) -> dict[str, Stream]:
            self.streamed += 1
            return stream(opened, decoder)

        def decodes(opened: OpenedSources, *read: Any) -> dict[str, Images]:
            self.decoded += 1
            return decode(opened, *read)

        monkeypatch.setattr(OpenedSources, "stream", streams)
        monkeypatch.setattr(OpenedSources, "decode", decodes)


def run(kind: str, storage: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> tuple[lehr.Run, Seen]:
    seen = Seen(monkeypatch)
    job = {"kind": kind, "name": f"{kind}-{cache}", "storage": str(storage), **KINDS[kind]}
    field = "data.cache" if kind == "train" else "base.data.cache"
    return lehr.run(job, {field: cache}, debug=True), seen


def data_of(run: lehr.Run) -> DataFacts:
    facts = run.folder.environment.data
    assert facts is not None
    return facts


@pytest.mark.parametrize("kind", KINDS)
def test_a_streamed_job_loads_nothing_whole(kind: str, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, seen = run(kind, storage, "stream", monkeypatch)
    assert done.status in ("finished", "stopped")
    assert seen.streamed
    assert not seen.decoded
    assert data_of(done).held == "streamed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_job_decodes_each_set_once(
    kind: str, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, seen = run(kind, storage, "memory", monkeypatch)
    assert done.status in ("finished", "stopped")
    assert not seen.streamed
    assert seen.decoded == 1  # also in a transfer, which needs them for the features and for the trials
    assert data_of(done).held == "cached"
    assert "cached, decoded once" in capsys.readouterr().out


def test_unreadable_images_of_trials_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for number in range(40):
        folder = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (6 * number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes(b"no image")
    base = {**TRAINING, "data": {"source": "images", "path": str(tmp_path / "photos"), "skip_unreadable": "5%"}}
    job = {
        "kind": "search",
        "storage": str(tmp_path),
        "base": base,
        "space": {"optimizer.lr": [0.01]},
        "method": "grid",
    }
    done = lehr.run(job, debug=True)
    assert "1 unreadable image skipped: " in capsys.readouterr().out
    assert (data_of(done).unreadable or UnreadableImages()).count == 1


def test_what_is_usual_is_not_said_and_what_is_said_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe opens its data for every step, and where its few images are held is no news to anybody."""
    run("recipe", tmp_path, "auto", monkeypatch)
    assert "of decoded images" not in capsys.readouterr().out
    run("recipe", tmp_path, "memory", monkeypatch)
    assert capsys.readouterr().out.count("of decoded images") == 1
