"""Files for the user are whole or absent, and never replace others unasked."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from tests.support import tiny, train_here

from lehr.cli.best import best
from lehr.cli.compare import compare
from lehr.cli.data import pack, show
from lehr.cli.evaluate import evaluate
from lehr.cli.export import export
from lehr.cli.new import new
from lehr.cli.predict import predict
from lehr.cli.schedule import schedule
from lehr.errors import LehrError, StorageError
from lehr.output import is_ours, refuse_existing, whole, write_whole

COMMANDS = {
    "best": (lambda out: best("any", out / "best.yaml"), "best.yaml"),
    "compare": (lambda out: compare(["a", "b"], out=out), "compare.png"),
    "data show": (lambda out: show("digits", output=str(out / "samples.png")), "samples.png"),
    "export": (lambda out: export("any", out), "model.onnx"),
    "export, its classes": (lambda out: export("any", out), "classes.json"),
    "new": (lambda out: new("train", [str(out / "train.yaml")]), "train.yaml"),
    "schedule": (lambda out: schedule(["cosine"], out=out / "rates.svg"), "rates.svg"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_replaces_no_file_unasked(name: str, tmp_path: Path) -> None:
    command, file = COMMANDS[name]
    (tmp_path / file).write_text("mine")
    with pytest.raises(LehrError, match=rf"{file} exists already; name another .*, or overwrite it with --force$"):
        command(tmp_path)
    assert (tmp_path / file).read_text() == "mine"
    assert os.listdir(tmp_path) == [file]


def test_a_command_replaces_a_file_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "rates.svg").write_text("mine")
    schedule(["cosine"], epochs=2, steps_per_epoch=10, out=tmp_path / "rates.svg", force=True)
    assert (tmp_path / "rates.svg").read_text().startswith("<svg")


def test_evaluate_replaces_no_file_unasked(tmp_path: Path) -> None:
    run = train_here(tiny(train__epochs=1), tmp_path / "run")
    (tmp_path / "confusion.png").write_text("mine")
    with pytest.raises(
        LehrError, match=r"confusion\.png exists already; name another .*, or overwrite it with --force$"
    ):
        evaluate(run.folder.uri, "digits", output=tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_text() == "mine"


def test_pages_and_pictures_that_lehr_made_are_replaced_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train_here(tiny(train__epochs=1), tmp_path / "run").folder.uri
    photographs = tmp_path / "photos"
    photographs.mkdir()
    for number in range(2):
        Image.new("L", (8, 8), 100 * number).save(photographs / f"{number}.png")
    commands = {
        "confusion.png": lambda: evaluate(run, "digits"),
        "predictions.html": lambda: predict(run, [str(photographs)]),
        "samples.png": lambda: show("digits", epochs=0, samples=1),
        "compare.png": lambda: compare([run, run]),
    }
    for file, command in commands.items():
        command()
        assert is_ours(Path(file))
        if file.endswith(".png"):
            with Image.open(file) as picture:
                picture.load()
        os.utime(file, (0, 0))
        command()
        assert Path(file).stat().st_mtime > 0
    assert is_ours(Path("compare.html"))


@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_figures_are_shown_where_a_file_of_the_users_has_the_name_of_the_picture(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train_here(tiny(train__epochs=1), tmp_path / "run").folder.uri
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "0.png")
    file = {"evaluate": "confusion.png", "predict": "predictions.html"}[what]
    Path(file).write_text("<p>mine</p>")
    if what == "evaluate":
        evaluate(run, "digits")
    else:
        predict(run, ["photos"])
    told = " ".join(capsys.readouterr().out.split())
    assert ("Accuracy " if what == "evaluate" else "1 image: ") in told
    assert f"Not written: {file} exists already; name another file, or overwrite it with --force" in told
    assert Path(file).read_text() == "<p>mine</p>"


@pytest.mark.parametrize("what", ["folder", "device", "link"])
def test_not_even_force_replaces_what_is_no_file(what: str, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    if what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/null")
    else:
        path.symlink_to("nowhere")
    with pytest.raises(LehrError, match=r"out\.png is not a file that can be replaced"):
        refuse_existing(path, force=True)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/model.onnx"
    with suppress(KeyboardInterrupt), whole(path) as part:
        assert part.suffix == ".onnx"
        part.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []
    write_whole(path, "old")
    with suppress(KeyboardInterrupt), whole(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["model.onnx"]


def test_a_file_has_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write_whole(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o664


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/inside\.png: cannot be written: "):
        write_whole(tmp_path / "file/inside.png", b"x")


def test_a_pack_that_fails_leaves_no_data_set_of_fewer_rows(tmp_path: Path) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    from lehr.cli.data import job_of
    from lehr.data.load import OpenedSources
    from lehr.data.pack import pack as write

    source = OpenedSources(job_of("digits", [])).main
    with pytest.raises(KeyboardInterrupt):
        write(source, str(tmp_path / "packed"), stop)
    assert os.listdir(tmp_path) == []
    (tmp_path / "packed").mkdir()
    pack("digits", str(tmp_path / "packed"))
    assert os.listdir(tmp_path) == ["packed"]
    with pytest.raises(LehrError, match="is not empty"):
        pack("digits", str(tmp_path / "packed"))
