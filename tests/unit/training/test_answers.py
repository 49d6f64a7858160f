"""What the kept model says of each validation row is recorded, and the report shows it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support import tiny, train_here

import lehr
from lehr.runs import Folder, RunFolder
from lehr.runs.answers import NAME, Answers
from lehr.runs.row_names import read_row_names


def given() -> Answers:
    """Eight rows of three classes; the sure mistakes are those at 5 and 2."""
    labels, predicted = np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 2, 2, 0])
    probability = np.array([0.9, 0.8, 0.7, 0.9, 0.9, 0.95, 0.6, 0.5])
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 9).save(buffer, "PNG")
    return Answers(("a", "<i>b</i>", "c"), np.arange(8) * 10, labels, predicted, probability, {5: buffer.getvalue()})


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    given().write(Folder.at(tmp_path))
    found = Answers.read(Folder.at(tmp_path))
    assert found is not None
    assert found.classes == given().classes
    assert found.rows.tolist() == given().rows.tolist()
    assert found.probability == pytest.approx(given().probability)
    assert found.pictures == given().pictures
    assert found.mistakes(2) == [5, 2]
    assert found.confusion().tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 1]]


@pytest.mark.parametrize("change", ["gone", "short", "bit", "class"])
def test_damaged_answers_cost_a_report_nothing_else(tmp_path: Path, change: str) -> None:
    answers = given()
    if change == "class":
        answers.labels[3] = 7
    answers.write(Folder.at(tmp_path))
    file = tmp_path / NAME
    content = bytearray(file.read_bytes())
    if change == "gone":
        file.unlink()
    elif change == "short":
        file.write_bytes(content[:-20])
    elif change == "bit":
        content[40] ^= 1
        file.write_bytes(content)
    assert Answers.read(Folder.at(tmp_path)) is None


def test_the_answers_are_those_of_the_kept_model_for_any_number_of_workers(tmp_path: Path) -> None:
    job = tiny(train__epochs=2)
    runs = [train_here(job, tmp_path / str(workers), workers) for workers in (1, 2)]
    one, two = (Answers.read(run.folder) for run in runs)
    assert one is not None
    assert two is not None
    right = float((one.labels == one.predicted).mean())
    assert right == pytest.approx(runs[0].outcome().best.value)  # type: ignore[union-attr]
    assert len(set(one.rows.tolist())) == len(one.rows)
    for name in ("rows", "labels", "predicted"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.pictures.keys() == two.pictures.keys()
    assert set(one.mistakes(5)) <= one.pictures.keys()


def test_the_report_shows_them_and_escapes_their_names(tmp_path: Path) -> None:
    from lehr.curves import write_curves

    run: RunFolder = train_here(tiny(train__epochs=1), tmp_path / "run")
    given().write(run.folder)
    write_curves(run)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "is right on 5 of 8 validation rows, 62.5%" in page
    assert "All 3. Where an answer looks right" not in page  # of the three only one has a picture
    assert "The 1 of 3 that the model is surest of" in page
    assert "taken for c, 95%" in page
    assert "&lt;i&gt;b&lt;/i&gt;" in page
    assert "<i>b</i>" not in page


def test_with_many_classes_the_pairs_confused_most_are_listed(tmp_path: Path) -> None:
    from lehr.curves.answers import answer_sections

    run: RunFolder = train_here(tiny(train__epochs=1), tmp_path / "run")
    classes = tuple(f"class {number}" for number in range(40))
    labels = np.repeat(np.arange(40), 3)
    predicted = labels.copy()
    predicted[9:11] = 30  # of the three rows of class 3
    Answers(classes, np.arange(120), labels, predicted, np.full(120, 0.5)).write(run.folder)
    confused = str(answer_sections(run)[0].body)
    assert "2 of 3" in confused
    assert 'class="heat"' not in confused


def test_a_picture_in_the_report_has_the_name_of_its_file(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(40):
        file = tmp_path / "photos" / ["dark", "light"][number % 2] / f"shot-{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 90 + 2 * number, np.uint8)).save(file)
    job = {
        "kind": "train",
        "name": "named",
        "storage": str(tmp_path / "runs"),
        "model": {"name": "small_cnn", "width": 8},
    }
    data = {"path": str(tmp_path / "photos"), "image_size": 8, "validation": 0.5}
    run = lehr.run({**job, "data": data, "train": {"epochs": 1, "batch_size": 20}}, debug=True).record
    names, answers = read_row_names(run.folder), Answers.read(run.folder)
    assert answers
    assert set(names) == {int(answers.rows[at]) for at in answers.pictures}
    for at in answers.pictures:
        assert Path(names[int(answers.rows[at])]).parent.name == answers.classes[answers.labels[at]]
    page = run.folder.read("report.html").decode()
    assert all("/".join(name.split("/")[-2:]) in page for name in names.values())
    run.folder.write("row_names.json", b"{")
    assert read_row_names(run.folder) == {}
