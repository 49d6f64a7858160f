"""Every row of a source is predicted once and in order, however it is divided; unreadable rows are reported."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.unit.predict.conftest import make_run

import lehr
from lehr import Run
from lehr.cli.evaluate import class_table
from lehr.data.decode import Decoded
from lehr.errors import LehrError
from lehr.predict import load_predictor, source_parts, worker
from lehr.predict.evaluate import Evaluation, confusion_picture, evaluate
from lehr.predict.part_files import PartResult
from lehr.runs import RunFolder
from lehr.screen import console

ROWS = 50
PIXELS = np.random.default_rng(1).integers(0, 256, (ROWS, 8, 8), dtype=np.uint8)
LABELS = np.arange(ROWS) % 10


def parquet(path: Path, bad: tuple[int, ...] = (), classes: str = "0,1,2,3,4,5,6,7,8,9", group: int = 7) -> Path:
    images = []
    for row, image in enumerate(PIXELS):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        images.append(b"not an image" if row in bad else buffer.getvalue())
    table = pa.table({"image": images, "label": LABELS.tolist()}).replace_schema_metadata({"classes": classes})
    pq.write_table(table, path, row_group_size=group)
    return path


def predict_with(run: str, data: Path, **more: Any) -> tuple[Run, pa.Table]:
    section = {"source": "parquet", "path": str(data), "skip_unreadable": more.pop("skip", 0.01)}
    job = {"kind": "predict", "run": run, "data": section, **more}
    done = lehr.run(job, debug=True)
    return done, pq.read_table(more.get("out") or done.record.folder.child("predictions").local_path)


def test_every_row_is_predicted_once_and_in_order_with_the_probabilities_of_the_run(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_parts, "PART_ROWS", 20)  # row groups of 7 become files of 14
    done, table = predict_with("one", parquet(tmp_path / "data.parquet"), out="out", batch_size=5)
    assert sorted(path.name for path in Path("out").iterdir()) == [f"part-{n:06}.parquet" for n in range(4)]
    assert done.status == "finished"
    assert table["id"].to_pylist() == list(range(ROWS))
    assert table["label"].to_pylist() == LABELS.tolist()
    expected = Run(trained).predict(PIXELS[..., None])
    found = np.stack(table["probabilities"].to_numpy().tolist())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert table["prediction"].to_pylist() == expected.argmax(axis=1).tolist()
    assert table["class"].to_pylist() == [str(best) for best in expected.argmax(axis=1)]
    assert table.schema.metadata[b"classes"] == b"0,1,2,3,4,5,6,7,8,9"


def test_the_members_of_an_ensemble_are_written_as_well_if_asked_for(
    ensemble: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = ensemble((1.0, 0.0, 1.0))
    _, table = predict_with("probabilities", parquet(tmp_path / "data.parquet"), members=True)
    assert [name for name in table.column_names if name.startswith("member")] == ["member 01", "member 03"]
    together = (np.stack(table["member 01"].to_numpy().tolist()) + np.stack(table["member 03"].to_numpy().tolist())) / 2
    np.testing.assert_allclose(np.stack(table["probabilities"].to_numpy().tolist()), together, atol=1e-6)
    third = Run(run.folder.child("members/03").uri).predict(PIXELS[..., None])
    np.testing.assert_allclose(np.stack(table["member 03"].to_numpy().tolist()), third, atol=1e-6)


@pytest.mark.usefixtures("trained")
def test_unreadable_images_keep_their_rows_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = parquet(tmp_path / "data.parquet", bad=(3, 49))
    done, table = predict_with("one", data, skip=0.1)
    assert table.num_rows == ROWS
    assert [row["id"] for row in table.to_pylist() if row["probabilities"] is None] == [3, 49]
    assert table["prediction"].null_count == table["class"].null_count == 2
    assert table["label"].null_count == 0
    assert "2 unreadable images, null in the output: " in (said := capsys.readouterr().out)
    assert f"{data} row 3 (no image of a known format" in said
    about = done.folder.environment.data
    assert about is not None
    assert about.unreadable is not None
    assert about.unreadable.count == 2


@pytest.mark.usefixtures("trained")
def test_more_unreadable_images_than_allowed_fail_the_prediction(tmp_path: Path) -> None:
    data = parquet(tmp_path / "data.parquet", bad=(3, 49))
    with pytest.raises(LehrError, match=r"data: 2 of 50 images are unreadable, more than data.skip_unreadable allows"):
        predict_with("one", data)


@pytest.mark.usefixtures("trained")
def test_a_resumed_prediction_keeps_the_parts_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that ends in the middle resumes with the missing parts."""
    monkeypatch.setattr(source_parts, "PART_ROWS", 10)
    data = parquet(tmp_path / "data.parquet")
    numbers: list[int] = []
    real, stop_after = worker.Worker.predict_part, 3

    def counted(self: worker.Worker, number: int, decoded: Decoded) -> PartResult:
        if len(numbers) == stop_after:
            raise KeyboardInterrupt
        numbers.append(number)
        return real(self, number, decoded)

    monkeypatch.setattr(worker.Worker, "predict_part", counted)
    with pytest.raises(KeyboardInterrupt):
        predict_with("one", data, name="mine")
    assert numbers == [0, 1, 2]
    stop_after = 100
    _, table = predict_with("one", data, name="mine")
    assert numbers == list(range(7))  # of 7 rows each, the last of 8
    assert table["id"].to_pylist() == list(range(ROWS))


def test_the_files_of_another_prediction_are_not_kept(trained: RunFolder, tmp_path: Path) -> None:
    data = parquet(tmp_path / "data.parquet")
    predict_with("one", data, out="out", name="first")
    make_run(tmp_path / "runs/two", seed=1)
    _, table = predict_with("two", data, out="out", name="second")
    other = Run(tmp_path / "runs/two").predict(PIXELS[..., None])
    np.testing.assert_allclose(np.stack(table["probabilities"].to_numpy().tolist()), other, atol=1e-6)
    assert not np.allclose(other, Run(trained).predict(PIXELS[..., None]), atol=1e-3)


@pytest.mark.usefixtures("trained")
def test_labels_are_matched_by_class_name(tmp_path: Path) -> None:
    """The classes of the data are in another order than those of the run, and one is unknown to it."""
    data = parquet(tmp_path / "data.parquet", classes="9,8,7,6,5,4,3,2,1,cat")
    _, table = predict_with("one", data)
    assert table["label"].to_pylist() == [None if label == 9 else 9 - label for label in LABELS.tolist()]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run": "two"}, 'no run "two" in '),
        (
            {"data": {"source": "digits", "limit": 3}},
            "data.limit: has no effect on a prediction, which uses every image, prepared as for the training",
        ),
        ({"data": {"source": "digits", "augment": ["flip"]}}, "data.augment: has no effect on a prediction"),
        ({"split": "test"}, "split: digits has no split test of its own; allowed: train"),
        ({"out": "."}, "holds note.txt, which is not a prediction; allowed: an empty or new folder"),
    ],
)
def test_a_wrong_prediction_gets_one_sentence(change: dict[str, Any], sentence: str) -> None:
    Path("note.txt").write_text("mine")
    with pytest.raises(LehrError, match=re.escape(sentence)):
        lehr.run({"kind": "predict", "run": "one", **change}, debug=True)
    assert Path("note.txt").exists()


# ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_equals_the_metrics_computed_from_the_predictions(
    ensemble: Callable[..., RunFolder], tmp_path: Path
) -> None:
    from lehr.data.sources import open_source
    from lehr.job import DataSection

    run = ensemble()
    section = DataSection(source="parquet", path=str(parquet(tmp_path / "data.parquet", bad=(4,))))
    source = open_source(section, lambda field, what: AssertionError(what))  # type: ignore[arg-type,return-value]
    found = evaluate(load_predictor(run.folder), source)
    keep = np.arange(ROWS) != 4
    chosen = Run(run).predict(PIXELS[..., None]).argmax(axis=1)[keep]
    assert found.rows == ROWS - 1
    assert [row for row, _ in found.unreadable] == [4]
    assert found.accuracy == pytest.approx((chosen == LABELS[keep]).mean())
    for number in range(10):
        rows_of, recall, precision = found.of_class(number)
        true, predicted = LABELS[keep] == number, chosen == number
        assert rows_of == true.sum()
        assert recall == pytest.approx((true & predicted).sum() / true.sum())
        if predicted.any():
            assert precision == pytest.approx((true & predicted).sum() / predicted.sum())
        else:
            assert np.isnan(precision)
    alone = Run(run.folder.child("members/02").uri).predict(PIXELS[..., None]).argmax(axis=1)[keep]
    assert found.members["02"] == pytest.approx((alone == LABELS[keep]).mean())
    with Image.open(io.BytesIO(confusion_picture(found, "mine"))) as picture:
        assert min(picture.size) > 400


def test_a_folder_of_images_without_labels_is_predicted_with_their_names(trained: RunFolder) -> None:
    from typer.testing import CliRunner

    from lehr.cli.main import app

    Path("photos/deep").mkdir(parents=True)
    for row, name in enumerate(("b.png", "a.png", "deep/c.png")):
        Image.fromarray(PIXELS[row]).save(Path("photos", name))
    Path("photos/.hidden.png").write_bytes(b"")
    Path("photos/notes.txt").write_text("mine")
    for _ in range(2):  # a finished prediction is repeated
        done = CliRunner().invoke(app, ["predict", "one", "photos", "out", "--debug"], catch_exceptions=False)
        assert "3 rows in " in done.output
    table = pq.read_table("out")
    assert [Path(str(name)).name for name in table["name"].to_pylist()] == ["a.png", "b.png", "c.png"]
    assert table["label"].null_count == 3
    expected = Run(trained).predict(PIXELS[[1, 0, 2]][..., None])
    np.testing.assert_allclose(np.stack(table["probabilities"].to_numpy().tolist()), expected, atol=1e-6)
    refused = CliRunner().invoke(app, ["evaluate", "one", "photos"])
    sentence = "photos: its images have no labels; allowed: a folder for each class, or Parquet files"
    assert str(refused.exception).endswith(sentence)


def test_training_on_images_without_labels_is_refused() -> None:
    Path("photos").mkdir()
    Image.fromarray(PIXELS[0]).save("photos/a.png")
    with pytest.raises(LehrError, match=r"data.source: files has no labels to train with; allowed: in a prediction"):
        lehr.run({"kind": "train", "data": {"source": "files", "path": "photos"}}, debug=True)


def test_no_line_of_the_table_of_classes_wraps_in_80_columns() -> None:
    """With all intervals, the header took three rows and each class two."""
    classes = ("Platelets", "RBC", "WBC")
    confusion = np.array([[38, 1, 41], [1, 79, 0], [0, 0, 80]])
    found = Evaluation(classes, confusion, 0.7, 0.3)
    for width, narrow in ((80, True), (100, False)):
        output = io.StringIO()
        console(output, width=width).print(class_table(found, narrow=narrow))
        lines = output.getvalue().rstrip("\n").split("\n")
        assert len(lines) == 1 + len(classes)
        assert "97.4%" in lines[1]
        assert ("97.4% (" in lines[1]) != narrow
