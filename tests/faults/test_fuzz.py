"""Any arguments, job file or run folder lead to an answer or to one error message: never a traceback, never a hang."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lehr.cli import main as cli
from tests.support import tiny, train_here

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ", "40"))
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
READING = ["runs", "show", "diagnose", "report", "compare", "evaluate", "schedule", "schema"]
COMMANDS = [*READING, "predict", "export", "rm"]
WORDS = """
    run small other job.yaml missing.yaml . .. / ../small small/ run:small s3://x small/trials/0001 --yes --json
    --storage runs nowhere --help --format onnx --out out cosine step linear constant 5ep -1 1e999 nan '' --steps
    --epochs 10 data=1 optimizer.lr=0 schedule=cosine train.epochs=x =x x= a.b.c=d kind=search --fresh
"""
words = st.sampled_from(WORDS.split()) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def run_lehr(*arguments: str) -> tuple[int, str]:
    """The exit code and output of `lehr` with these arguments."""
    out = io.StringIO()
    before = sys.argv
    sys.argv = ["lehr", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.argv = before
    return code, out.getvalue()


def assert_answered(*arguments: str) -> None:
    """Fails on a traceback, on an exit code of an internal error, and on a command that hangs."""
    began = time.monotonic()
    code, text = run_lehr(*arguments)
    assert code in (0, 1, 2), (arguments, code, text)
    assert "Traceback" not in text, (arguments, text)
    assert time.monotonic() - began < 30, arguments


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    train_here(tiny(train__epochs=1), folder / "runs/small")
    return folder


@bounded
@given(command=st.sampled_from(COMMANDS), rest=st.lists(words, max_size=4))
def test_any_arguments_are_answered(small: Path, command: str, rest: list[str]) -> None:
    os.chdir(small)
    if command == "rm":
        rest = [word for word in rest if "small" not in word and word not in (".", "..", "/")]
    assert_answered(command, *rest)


JOB_WORDS = st.sampled_from(
    [
        "kind:",
        "train",
        "search",
        "predict",
        "finetune",
        "ensemble",
        "recipe",
        "name:",
        "x",
        "data:",
        "{source:",
        "images",
        "digits",
        "path:",
        "/nowhere}",
        "model:",
        "small_cnn",
        "optimizer:",
        "{lr:",
        "0.1}",
        "adamw",
        "schedule:",
        "cosine",
        "train:",
        "{epochs:",
        "1}",
        "workers:",
        "2",
        "base:",
        "-",
        ",",
        ":",
        "{",
        "}",
        "[",
        "]",
        "null",
        "~",
        "1e9",
        "-5",
        "!!python/name:os.system",
        "&a",
        "*a",
        "\t",
    ]
) | st.text(max_size=4)


@bounded
@given(text=st.lists(JOB_WORDS | st.just("\n"), max_size=20).map(" ".join), more=st.lists(words, max_size=3))
def test_any_job_file_is_answered(tmp_path: Path, text: str, more: list[str]) -> None:
    os.chdir(tmp_path)
    Path("any.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    # The missing data folder makes even a valid job fail before it starts.
    assert_answered("run", "any.yaml", *more, "--debug", "data.source=images", "data.path=/nowhere", "storage=here")


@pytest.mark.parametrize("seed", range(max(6, EXAMPLES // 8)))
def test_a_run_folder_with_corrupted_files_is_shown_or_refused(seed: int, small: Path, tmp_path: Path) -> None:
    import shutil

    draw = random.Random(seed)
    folder = tmp_path / "runs/small"
    shutil.copytree(small / "runs/small", folder)
    os.chdir(tmp_path)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in draw.sample(files, 2):
        content = bytearray(file.read_bytes())
        for _ in range(draw.choice([1, 3, 200])):
            if content:
                content[draw.randrange(len(content))] = draw.randrange(256)
        file.write_bytes(content[: draw.choice([None, len(content) // 2, 0])])
    for command in (("show", "small"), ("runs",), ("diagnose", "small"), ("report", "small")):
        assert_answered(*command)


@pytest.mark.parametrize("name", ["progress.json", "diagnosis.json", "environment.json", "model/model-0001.json"])
@pytest.mark.parametrize("value", [[], {}, {"best": 1, "metrics": [], "seconds": None, "status": 7}, 3, None, "x"])
def test_json_of_an_unexpected_shape_is_shown_or_refused(name: str, value: object, small: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(small / "runs/small", tmp_path / "runs/small")
    os.chdir(tmp_path)
    (tmp_path / "runs/small" / name).write_text(json.dumps(value))
    for command in (("show", "small"), ("runs",), ("report", "small")):
        assert_answered(*command)
