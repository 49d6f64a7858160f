"""What the tools leave is read as what it means, and what is no log of a training is refused in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lehr.errors import JobError
from lehr.other_tools import Log, read_logs
from lehr.other_tools.log import LEARNING_RATE, TRAIN_LOSS, VALIDATION_LOSS, Meaning
from lehr.other_tools.names import meaning_of

VALIDATION_ACCURACY, TRAIN_ACCURACY = Meaning("validation", "accuracy"), Meaning("train", "accuracy")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def only(path: Path, **options: object) -> Log:
    (log,) = read_logs(path, **options)  # type: ignore[arg-type]
    return log


def columns(log: Log) -> dict[str, str]:
    return {str(meaning): curve.column for meaning, curve in log.curves.items()}


# ── each tool's form ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_csv_of_keras(tmp_path: Path) -> None:
    text = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.2,0.4,1.3\n1,0.7,0.9,0.6,1.0\n2,0.8,0.7,0.6,0.9\n"
    log = only(written(tmp_path, "log.csv", text))
    assert (log.tool, log.axis, log.epochs) == ("Keras", "epoch", 3)
    assert columns(log) == {
        "training accuracy": "accuracy",
        "training loss": "loss",
        "validation accuracy": "val_accuracy",
        "validation loss": "val_loss",
    }
    np.testing.assert_array_equal(log.curves[VALIDATION_LOSS].y, [1.3, 1.0, 0.9])


def test_what_lightnings_own_logger_writes(tmp_path: Path) -> None:
    loggers = pytest.importorskip("lightning_fabric.loggers", reason="Lightning is not installed")
    logger = loggers.CSVLogger(tmp_path, name="run")
    for epoch in range(2):
        for step in (20 * epoch, 20 * epoch + 10):
            logger.log_metrics({"train_loss_step": 2 - step / 40, "epoch": epoch}, step=step)
        logger.log_metrics({"val_loss": 1.5 - epoch / 2, "val_acc_epoch": 0.5, "epoch": epoch}, step=20 * epoch + 19)
    logger.save()
    log = only(Path(logger.log_dir))
    assert (log.tool, log.axis, log.epochs) == ("Lightning", "step", 2)
    assert log.curves[TRAIN_LOSS].x.tolist() == [0, 10, 20, 30]
    assert log.curves[VALIDATION_LOSS].x.tolist() == [19, 39]
    assert columns(log)["validation accuracy"] == "val_acc_epoch"


def test_the_state_of_hugging_faces_trainer(tmp_path: Path) -> None:
    history = [
        {"epoch": 0.5, "step": 50, "loss": 1.0, "learning_rate": 1e-4, "grad_norm": 2.0},
        {"epoch": 1.0, "step": 100, "loss": 0.8, "learning_rate": 5e-5},
        {"epoch": 1.0, "step": 100, "eval_loss": 0.9, "eval_accuracy": 0.7, "eval_runtime": 3.0},
        {"epoch": 2.0, "step": 200, "eval_loss": 0.7, "eval_accuracy": 0.8},
        {"epoch": 2.0, "step": 200, "train_runtime": 60.0, "train_loss": 0.85, "total_flos": 1e15},
    ]
    path = written(tmp_path, "checkpoint-200/trainer_state.json", json.dumps({"log_history": history, "epoch": 2.0}))
    for where in (path, path.parent):
        log = only(where)
        assert (log.tool, log.axis, log.epochs) == ("Hugging Face", "step", 2)
        assert columns(log)["training loss"] == "loss"  # and not the mean over the whole run
        assert log.curves[VALIDATION_ACCURACY].y.tolist() == [0.7, 0.8]
        assert log.curves[LEARNING_RATE].y.tolist() == [1e-4, 5e-5]
        assert log.unknown == ("grad_norm",)


def test_the_losses_of_ultralytics_are_added_up(tmp_path: Path) -> None:
    head = "                  epoch,   train/box_loss,   train/cls_loss,  metrics/mAP50(B), metrics/mAP50-95(B),   "
    head += "val/box_loss,  val/cls_loss,  lr/pg0\n"
    rows = "".join(f"      {n},   {2 - n},   {3 - n},  0.5,  0.{n + 1},   2.5,  1.5,  0.01\n" for n in range(3))
    log = only(written(tmp_path, "results.csv", head + rows))
    assert log.tool == "Ultralytics"
    assert log.curves[TRAIN_LOSS].y.tolist() == [5, 3, 1]
    assert log.curves[VALIDATION_LOSS].y.tolist() == [4, 4, 4]
    assert log.metric == Meaning("validation", "map")
    assert log.curves[log.metric].y.tolist() == [0.1, 0.2, 0.3]


def test_the_summary_of_timm_is_in_percent(tmp_path: Path) -> None:
    text = "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n0,2.0,1.5,40.0,80.0,0.1\n1,1.5,1.2,62.5,90.0,0.05\n"
    log = only(written(tmp_path, "summary.csv", text))
    assert log.tool == "timm"
    assert log.curves[VALIDATION_ACCURACY].y.tolist() == [0.4, 0.625]
    assert log.unknown == ("eval_top5",)


def test_each_run_in_a_chart_of_weights_and_biases(tmp_path: Path) -> None:
    names = ["Step", *(f"{run} - {key}{end}" for run in ("a - b", "c") for key in ("val/loss",) for end in ENDS)]
    rows = ['"' + '","'.join(names) + '"', "0,1.0,1,1,2.0,2,2", "1,0.9,1,1,1.5,2,2", "2,0.8,1,1,,,"]
    logs = read_logs(written(tmp_path, "wandb_export.csv", "\n".join(rows)))
    assert [log.name for log in logs] == ["wandb_export.csv, a - b", "wandb_export.csv, c"]
    assert logs[0].curves[VALIDATION_LOSS].y.tolist() == [1.0, 0.9, 0.8]
    assert logs[1].curves[VALIDATION_LOSS].x.tolist() == [0, 1]


ENDS = ("", "__MIN", "__MAX")


def test_json_lines_as_the_heirs_of_deit_write_them(tmp_path: Path) -> None:
    rows = [
        {
            "train_lr": 1e-3,
            "train_loss": 3 - n,
            "test_loss": 2.5 - n,
            "test_acc1": 30.0 + n,
            "epoch": n,
            "n_parameters": 5,
        }
        for n in range(3)
    ]
    log = only(written(tmp_path, "log.txt", "\n".join(map(json.dumps, rows))))
    assert columns(log) == {
        "learning rate": "train_lr",
        "training loss": "train_loss",
        "validation loss": "test_loss",
        "validation accuracy": "test_acc1",
    }
    assert log.unknown == ("n_parameters",)


def test_a_history_of_lists(tmp_path: Path) -> None:
    history = {"loss": [1.0, 0.8], "val_loss": [1.1, 0.9], "params": 3}
    assert only(written(tmp_path, "history.json", json.dumps(history))).curves[TRAIN_LOSS].x.tolist() == [1, 2]


def test_a_folder_of_mlflow(tmp_path: Path) -> None:
    written(tmp_path, "run/meta.yaml", "run_id: a")
    written(tmp_path, "run/metrics/val/loss", "1700 1.0 0\n1701 0.5 1\n")
    written(tmp_path, "run/metrics/system/cpu", "1700 40.0 0\n")
    log = only(tmp_path / "run")
    assert (log.tool, columns(log)) == ("MLflow", {"validation loss": "val/loss"})


def test_events_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(100):
            writer.add_scalar("Loss/train", 2 - step / 100, step)
        for epoch in range(5):
            writer.add_scalar("Loss/val", 1.5 - epoch / 5, epoch)
    log = only(tmp_path / "run")
    assert (log.tool, columns(log)) == ("TensorBoard", {"training loss": "Loss/train", "validation loss": "Loss/val"})
    assert len(log.curves[TRAIN_LOSS]) == 100
    # This script counted epochs for one and steps for the other: both end at the end.
    np.testing.assert_allclose(log.curves[VALIDATION_LOSS].x, [19.8, 39.6, 59.4, 79.2, 99.0])


def test_keras_writes_a_folder_of_events_for_each_split(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboardX import SummaryWriter

    for split, shift in (("train", 0.0), ("validation", 0.5)):
        with SummaryWriter(str(tmp_path / split)) as writer:
            for epoch in range(3):
                writer.add_scalar("epoch_loss", 1 - epoch / 3 + shift, epoch)
    assert columns(only(tmp_path)) == {"training loss": "train/epoch_loss", "validation loss": "validation/epoch_loss"}


# ── what columns mean ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        ("val_loss", ("validation", "loss")),
        ("validation/loss", ("validation", "loss")),
        ("Loss/train", ("train", "loss")),
        ("eval_f1", ("validation", "f1")),
        ("metrics/mAP50-95(B)", ("validation", "map")),
        ("metrics/mAP50(B)", ("validation", "map50")),
        ("val_sparse_categorical_accuracy", ("validation", "accuracy")),
        ("train_acc_epoch", ("train", "accuracy")),
        ("test_acc1", ("validation", "accuracy")),
        ("eval_wer", ("validation", "wer")),
        ("lr-AdamW", ("", "learning_rate")),
        ("learning_rate", ("", "learning_rate")),
        ("loss", ("", "loss")),
        ("train/box_loss", ("train", "box_loss")),
    ],
)
def test_what_a_column_means(column: str, meaning: tuple[str, str]) -> None:
    assert meaning_of(column) == meaning


@pytest.mark.parametrize("column", ["val_top5", "epoch_time", "gradient norm", "images"])
def test_a_column_of_no_use_means_nothing(column: str) -> None:
    assert meaning_of(column) is None


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "own.csv", "epoch;verlust;gut\n1;1.0;50\n2;0.8;60\n3;0.7;70\n")
    with pytest.raises(JobError, match=r"no column of own.csv was understood .*verlust, gut.*--column "):
        only(path)
    log = only(path, columns={"validation_loss": "verlust", "validation_accuracy": "gut"}, rows=200)
    assert log.curves[VALIDATION_ACCURACY].y.tolist() == [0.5, 0.6, 0.7]
    assert log.rows == 200


@pytest.mark.parametrize(
    ("mapped", "sentence"),
    [
        ({"validation_los": "loss"}, "validation_los is no meaning of a column; allowed: train_ or validation_"),
        ({"validation_loss": "los"}, "has no column of numbers los; it has loss, other"),
    ],
)
def test_a_wrong_name_is_told(tmp_path: Path, mapped: dict[str, str], sentence: str) -> None:
    path = written(tmp_path, "own.csv", "epoch,loss,other\n1,1.0,2\n2,0.8,3\n")
    with pytest.raises(JobError, match=sentence):
        only(path, columns=mapped)


# ── several trainings, restarts, broken values ──────────────────────────────────────────────────────────────────────


def test_a_file_to_which_trainings_were_appended_holds_each(tmp_path: Path) -> None:
    text = "epoch,loss,val_loss\n0,1,1\n1,0.9,1\n0,2,2\n1,1.9,2\n2,1.8,2\n"
    logs = read_logs(written(tmp_path, "log.csv", text))
    assert [(log.name, log.epochs) for log in logs] == [
        ("log.csv, training 1 of 2", 2),
        ("log.csv, training 2 of 2", 3),
    ]


def test_a_resumed_training_is_one_and_its_later_rows_hold(tmp_path: Path) -> None:
    log = only(written(tmp_path, "log.csv", "epoch,loss,val_loss\n0,1,1\n1,0.9,1\n2,9,9\n1,0.8,1\n2,0.7,1\n"))
    assert log.curves[TRAIN_LOSS].y.tolist() == [1, 0.8, 0.7]


def test_nan_and_infinity_are_values_and_gaps_are_not(tmp_path: Path) -> None:
    log = only(written(tmp_path, "log.csv", "epoch,loss,val_loss\n0,1,\n1,nan,2\n2,inf,\n3,,3\n"))
    assert log.curves[TRAIN_LOSS].x.tolist() == [0, 1, 2]
    assert math.isnan(log.curves[TRAIN_LOSS].y[1])
    assert log.curves[VALIDATION_LOSS].x.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.csv", b"", "is empty"),
        ("numbers.csv", b"1,2,3\n4,5,6\n", "no table with named columns; allowed: a first line such as epoch,loss"),
        ("one.csv", b"epoch,loss\n1,0.5\n", "has 1 row; a curve needs two or more"),
        ("words.csv", b"epoch,loss\na,b\nc,d\n", "has 0 rows; a curve needs two or more"),
        ("photo.jpg", b"\xff\xd8\xff\xe0\x00", "is no text; allowed: CSV, JSON, JSON lines"),
        ("broken.json", b'{"epoch": 1}\n{"epoch": 2\n{"epoch": 3}', "line 2 of .*broken.json is no JSON"),
        (
            "runs.csv",
            b"Name,State,Created,loss\na,finished,today,1\nb,crashed,today,2\n",
            "holds no curves: no column counts epochs or steps",
        ),
        ("models.csv", b"model,val_loss\nresnet,0.5\nvit,0.4\n", "holds no curves: no column counts epochs or steps"),
        ("other.csv", b"epoch,apples\n1,2\n2,3\n", "no column of other.csv was understood"),
    ],
)
def test_what_is_no_log_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(JobError, match=sentence):
        read_logs(path)


# ── what others stumbled over ───────────────────────────────────────────────────────────────────────────────────────


def test_rows_with_more_cells_than_the_head_and_a_part_of_the_loss_that_overflows(tmp_path: Path) -> None:
    """THU-MIG/yolov10#332."""
    rows = "".join(f"{n},{3 - n},2.5,inf,2,9,9\n" for n in range(3))
    log = only(written(tmp_path, "results.csv", "epoch,train/box_loss,val/box_loss,val/cls_loss,lr/pg0\n" + rows))
    assert log.curves[VALIDATION_LOSS].y.tolist() == [2.5, 2.5, 2.5]
    assert log.unknown == ("val/cls_loss (never a number)",)


def test_epochs_without_an_evaluation(tmp_path: Path) -> None:
    """tensorflow/tensorflow#40216: what Keras has not measured in an epoch is NA."""
    log = only(written(tmp_path, "log.csv", "epoch,loss,val_loss\n0,1,NA\n1,0.9,1.1\n2,0.8,NA\n3,0.7,1.0\n"))
    assert log.curves[VALIDATION_LOSS].x.tolist() == [1, 3]


def test_a_line_that_was_cut_off_by_the_end_of_the_training(tmp_path: Path) -> None:
    """dbolya/yolact#710."""
    text = '{"epoch": 0, "train_loss": 1.0}\n{"epoch": 1, "train_loss": NaN}\n{"epoch": 2, "trai'
    assert len(only(written(tmp_path, "log.txt", text)).curves[TRAIN_LOSS]) == 2


def test_steps_that_a_restarted_training_repeats(tmp_path: Path) -> None:
    """tensorflow/tensorboard#803, #1272."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboardX import SummaryWriter

    for attempt, (first, last) in enumerate([(0, 10), (5, 12)]):
        with SummaryWriter(str(tmp_path / "run"), filename_suffix=f".{attempt}") as writer:
            for step in range(first, last):
                writer.add_scalar("train/loss", 100.0 * attempt + step, step)
    curve = only(tmp_path / "run").curves[TRAIN_LOSS]
    assert curve.x.tolist() == list(range(12))
    assert curve.y.tolist() == [0, 1, 2, 3, 4, 105, 106, 107, 108, 109, 110, 111]
