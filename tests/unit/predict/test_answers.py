"""One image in, an answer out: classes with their probabilities, without Ray, and a page for a folder."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import lehr
from lehr.cli.main import app
from lehr.errors import JobError
from lehr.predict import load_predictor
from lehr.predict.answers import BATCH, answers, least_certain
from lehr.predict.page import answers_page
from lehr.runs import RunFolder

Predict = Callable[..., Result]


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.png").write_bytes(image(number))
    (folder / "deep/odd.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def predict(trained: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Predict:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["predict", trained.folder.uri, *map(str, arguments)], input=stdin)

    return call


def test_one_image_gets_its_classes_as_python_does(predict: Predict, photos: Path, trained: RunFolder) -> None:
    shown = predict(photos / "1.png")
    run = lehr.load(trained.folder.uri)
    assert isinstance(run, lehr.Run)
    shares = run.predict(photos / "1.png")[0]
    best = [f"{run.classes[k]} {shares[k]:.1%}" for k in np.argsort(-shares)[:3]]
    assert shown.stdout == f"{photos / '1.png'}  {'   '.join(best)}\n"
    assert shown.exit_code == 0


def test_an_image_may_come_from_standard_input_and_the_answer_be_json(predict: Predict) -> None:
    (answer,) = json.loads(predict("-", "--json", "--top", 2, stdin=image(1)).stdout)
    assert answer["name"] == "-"
    assert [each["class"] for each in answer["top"]][:1] == [answer["class"]]
    assert len(answer["top"]) == 2
    assert answer["top"][0]["probability"] == answer["probability"] >= answer["top"][1]["probability"]


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_answered(predict: Predict, photos: Path) -> None:
    shown = predict(photos / "deep/odd.jpg", photos / "2.png")
    assert shown.exit_code == 1
    assert "odd.jpg: not readable: no image of a known format" in shown.stderr
    assert "2.png  " in shown.stdout
    listed = json.loads(predict(photos / "deep/odd.jpg", photos / "2.png", "--json").stdout)
    assert [sorted(each) for each in listed] == [["error", "name"], ["class", "name", "probability", "top"]]


def test_a_folder_ends_with_a_page_and_its_least_certain_images(predict: Predict, photos: Path, tmp_path: Path) -> None:
    shown = predict(photos)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("6 images: ")
    assert "1 not readable: deep/odd.jpg (no image of a known format" in shown.stdout
    page = (tmp_path / "predictions.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert "deep/odd.jpg" in page
    assert "notes.txt" not in page
    again = predict(photos)
    assert again.exit_code == 0, "a page of lehr's own is replaced"
    (tmp_path / "predictions.html").write_text("mine")
    kept = predict(photos)
    assert "6 images: " in kept.output
    assert "predictions.html exists already" in kept.output
    assert (tmp_path / "predictions.html").read_text() == "mine"
    assert predict(photos, "--force").exit_code == 0
    assert (tmp_path / "predictions.html").read_text() != "mine"


def test_the_least_certain_come_first_and_batches_change_nothing(trained: RunFolder) -> None:
    predictor = load_predictor(trained.folder)
    files = [(f"{number}", lambda number=number: image(number)) for number in range(BATCH + 3)]
    together, alone = list(answers(predictor, files)), [next(answers(predictor, [each])) for each in files]
    assert [each.ranked[0][0] for each in together] == [each.ranked[0][0] for each in alone]
    doubts = [each.ranked[0][1] for each in least_certain(together)]
    assert doubts == sorted(doubts)
    assert len(doubts) == BATCH + 3


def test_names_are_text_on_the_page(trained: RunFolder) -> None:
    files = [("<script>alert(1)</script>.png", lambda: image(1))]
    page = answers_page("run", list(answers(load_predictor(trained.folder), files)), files)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_an_ensemble_answers_as_one(ensemble: Callable[..., RunFolder]) -> None:
    run = ensemble()
    (answer,) = answers(load_predictor(run.folder), [("one", lambda: image(3))])
    pixels = np.asarray(Image.open(io.BytesIO(image(3))))
    shares = lehr.Run(run).predict(pixels)[0]
    assert [share for _, share in answer.ranked] == sorted(map(float, shares), reverse=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope.jpg"], '"nope.jpg" does not exist here; allowed: images, a folder of images, or DATA OUT'),
        (["photoes"], '"photoes" does not exist here; allowed: images, a folder of images, or DATA OUT'),
        (["photos/1.png", "out"], '"out" does not exist here; allowed: several images, one folder of images'),
        (["photos/1.png", "photos"], "photos is not one image; allowed: several images"),
        (["digits"], "digits: name the folder for the Parquet files too: lehr predict "),
        (["photos/1.png", "--split", "test"], "--split belongs to a data set: lehr predict RUN DATA OUT"),
        (["photos/1.png", "-o", "page.html"], "--output belongs to a folder of images"),
        (["photos", "out", "--top", "2"], "--top belongs to images"),
        (["empty"], "empty: there is no image in it"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_type(
    predict: Predict, photos: Path, arguments: list[str], sentence: str
) -> None:
    (photos.parent / "empty").mkdir()
    refused = predict(*arguments)
    assert isinstance(refused.exception, JobError), refused.output
    assert sentence in str(refused.exception)
    shutil.rmtree(photos)  # nothing was written
    assert not (photos.parent / "predictions.html").exists()


def test_an_answer_waits_for_no_charts() -> None:
    imported = "import sys, lehr.predict.answers; print({'altair', 'ray', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
