"""The benchmarks run: their code at a size of milliseconds and without Ray. No time is asserted."""

from __future__ import annotations

import io
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.benchmarks import (
    alternating,
    captions,
    cifar10_fast,
    gpu_step,
    growth,
    memory,
    outside_compute,
    recording,
    results,
)

from lehr.curves import write_curves
from lehr.data.load import OpenedSources, splits

CPU = torch.device("cpu")
BY_HAND = {
    "alternating",
    "audits",
    "budgets",
    "bytes_read",
    "captions",
    "cifar",
    "conditions",
    "data_memory",
    "dataset_memory",
    "decoding",
    "diagnosis",
    "ensembles",
    "folds",
    "forms",
    "photographs",
    "practice",
    "preprocessing",
    "simulate_streaming",
    "probes",
    "recipe",
    "results",
    "search_methods",
    "serving",
    "time_left",
    "transfer",
    "usual_rates",
}


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


def test_every_benchmark_is_in_the_list_of_make_bench() -> None:
    there = {path.stem for path in Path(results.__file__).parent.iterdir() if not path.stem.startswith("__")}
    assert there - {"growth.png"} - BY_HAND == set(results.BENCHMARKS)
    assert {row.benchmark for row in results.ROWS} <= set(results.BENCHMARKS)
    for name in results.BENCHMARKS:
        import_module(f"tests.benchmarks.{name}")


def test_the_table_reads_the_output_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    values = iter([3.0, 4.0, 4.0, 2.0])
    alternating.compare("x", "s", {"lehr": lambda: next(values), "bare": lambda: next(values)}, 2, "at most 2")
    printed = capsys.readouterr().out
    (first_step,) = (row for row in results.ROWS if row.benchmark == "first_step")
    assert first_step.read(printed) == pytest.approx(2.5 / 4, abs=1e-3)
    assert first_step.met(1.2) == "yes"
    assert first_step.met(1.21) == "**no**"


def test_the_worst_of_several_figures_counts() -> None:
    (row,) = (row for row in results.ROWS if row.benchmark == "memory")
    printed = "".join(
        f"memory of the {who}, 100 times the data / the data: {by}\n" for who, by in (("a", 1.1), ("b", 1.4))
    )
    assert row.read(printed) == 1.4


def test_results_keep_the_handwritten_part_and_say_why_a_row_is_empty() -> None:
    done = "## help\n\n`lehr --help`. 2026-01-02, 3 s.\n\n```\nlehr --help      0.21   0.20   0.3\n```\n"
    first = results.whole({"help": done}, "")
    again = results.whole(results.parts(first), first + "By hand.\n\n# 1,000 GPUs\n\nSo.\n")
    assert again == first + "By hand.\n\n# 1,000 GPUs\n\nSo.\n"
    assert results.whole(results.parts(again), again) == again
    assert "| `lehr --help`, s | – | ≤ 0.3 | 0.21 | yes | 2026-01-02 |" in first
    assert "needs a CUDA GPU; run: `python -m tests.benchmarks.gpu_step`" in first


def test_both_sides_of_the_gpu_benchmark_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_step.measure(gpu_step.Size(CPU, "small_cnn", pixels=8, rows=24, batch=8, epochs=2, classes=3), 1) > 0
    assert "ratio lehr / by hand" in capsys.readouterr().out


def test_cifar10_fast_trains_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [photographs(tmp_path / f"{name}.parquet", rows) for name, rows in (("train", 48), ("test", 12))]
    tiny = {"model.width": 4, "train.epochs": 2, "train.batch_size": 16, "train.compile": False}
    job = cifar10_fast.job_of(files[0], files[1], **tiny)
    found = splits(job, OpenedSources(job).decode())
    assert (len(found.train), len(found.validation), found.test) == (48, 12, None)
    cifar10_fast.report([cifar10_fast.measure(job, found, CPU, tmp_path / "run")] * 2)
    assert "94 % was reached by" in capsys.readouterr().out


def photographs(path: Path, rows: int) -> Path:
    images = []
    for row in range(rows):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
    table = pa.table({"image": images, "label": [row % 3 for row in range(rows)]})
    pq.write_table(table.replace_schema_metadata({"classes": "a,b,c"}), path)
    return path


def test_a_run_of_recorded_steps_gets_its_report(tmp_path: Path) -> None:
    assert recording.cost_of_a_step(tmp_path / "cost", 300) > 0
    run = recording.million_steps(tmp_path / "long", 3000)
    assert len(run.steps()) == 3000
    assert write_curves(run) == tmp_path / "long/curves.png"


def test_shares_of_time_add_up_to_the_wall_time(capsys: pytest.CaptureFixture[str]) -> None:
    outside_compute.report({"wall": 100.0, "total": 80.0, "startup": 10.0, "compute": 70.0, "evaluation": 5.0})
    printed = capsys.readouterr().out
    assert "outside compute: 25.00 % of 100 s" in printed
    assert "end of the command             10.0 s   10.0 %" in printed


def test_growth_is_drawn_and_data_sets_of_any_size_are_written(tmp_path: Path) -> None:
    found = {"workers": [{"workers": n, "start-up s": 10.0, "added to a step, ms": 1.0 * n} for n in (1.0, 2.0)]}
    assert growth.draw(found).startswith(b"\x89PNG")
    memory.images(tmp_path / "images.parquet", 1100)
    assert pq.read_metadata(tmp_path / "images.parquet").num_rows == 1100


def test_counts_are_read_from_a_sentence_and_measured() -> None:
    assert captions.counts_in("7 red cells, 1 white cell and 12 platelets") == [7, 1, 12]
    assert captions.counts_in("1 white cell") == [0, 1, 0]
    assert captions.errors([[7.0, 1.0, 0.0], [9.0, 1.0, 3.0]], [[5, 1, 0], [9, 2, 0]]) == {
        "RBC": 1.0,
        "WBC": 0.5,
        "Platelets": 1.5,
    }


def test_the_guess_of_captions_looks_at_no_image(tmp_path: Path) -> None:
    said = ["2 red cells", "2 red cells", "1 red cell and 1 white cell"]
    kinds = [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}]
    cells = [[1, 1], [1, 1], [1, 2]]
    for split in ("train", "val"):
        images = [{"id": k, "file_name": f"{split}{k}.png"} for k in range(3)]
        texts = [{"id": k, "image_id": k, "caption": text} for k, text in enumerate(said)]
        boxes = [{"image_id": k, "category_id": kind} for k, some in enumerate(cells) for kind in some]
        for name, each in (("captions", texts), ("instances", boxes)):
            whole = {"images": images, "annotations": each, "categories": kinds}
            (tmp_path / f"{name}_{split}.json").write_text(json.dumps(whole))
    guessed = captions.guess(tmp_path)
    assert (guessed["caption"], guessed["exact match"]) == ("2 red cells", 0.6667)
    assert guessed["MAE of the median"] == {"RBC": 0.333, "WBC": 0.333, "Platelets": 0.0}
