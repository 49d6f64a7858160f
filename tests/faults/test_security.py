"""Hostile content of a run folder, a job file or a data set executes nothing and overwrites nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lehr import Run
from lehr.data.decode import decode_image
from lehr.data.pixels import PixelFormat
from lehr.errors import JobError, LehrError, RunError
from lehr.job import from_dict, load
from lehr.runs import Fingerprint, Folder, RunFolder
from lehr.trust import Untrusted
from tests.faults.story import EVERY_EPOCH, command
from tests.faults.test_storage_faults import stop_at
from tests.support import Died, forge, records, train_here

SECRET = "tops3cret-value"


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_in_a_checkpoint_is_skipped_and_the_run_resumes(tmp_path: Path) -> None:
    whole = train_here(EVERY_EPOCH, tmp_path / "whole")
    with pytest.raises(Died):
        train_here(EVERY_EPOCH, tmp_path / "run", prepare=partial(stop_at, 14))
    target, newest = tmp_path / "pwned", sorted((tmp_path / "run/checkpoints").iterdir())[-1]
    bomb = pickle.dumps({"state": {}, "param_groups": Bomb(target)})
    (newest / "optimizer.pt").write_bytes(bomb)
    fingerprint = asdict(Fingerprint.of(bomb))
    forge(newest / "manifest.json", lambda manifest: manifest["files"].update({"optimizer.pt": fingerprint}))
    run = train_here(EVERY_EPOCH, tmp_path / "run")
    assert not target.exists()
    assert any("was not unpickled" in event["message"] for event in run.events())
    assert records(whole)[1].equals(records(run)[1])
    pickle.loads(pickle.dumps(Bomb(target)))  # the bomb does work
    assert target.exists()


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    train_here(EVERY_EPOCH, tmp_path / "runs/run")
    return tmp_path / "runs/run"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("subprocess:call", {"args": ["touch", "pwned"]}),
        ("os:system", {"command": "touch pwned"}),
        ("builtins:exec", {"source": "open('pwned', 'w')"}),
        ("torch.hub:load", {"repo_or_dir": ".", "model": "x", "source": "local"}),
        ("pandas:read_pickle", {"filepath_or_buffer": "bomb"}),
    ],
)
def test_a_model_description_calls_only_registered_networks(
    finished: Path, name: str, options: dict[str, object], tmp_path: Path
) -> None:
    Path("bomb").write_bytes(pickle.dumps(Bomb(tmp_path / "pwned")))
    Path("hubconf.py").write_text("open('pwned', 'w')\ndef x(*a, **k): pass\n")
    network = {"name": name, "options": options}
    forge(finished / "model/model-0001.json", lambda file: file["description"].update(model=network))
    with pytest.raises(Untrusted, match=f"names {name} as its model"):
        Run(finished).best_model()
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "hub"},
        {"dtype": ["float32"]},
        {"model": {"name": ["small_cnn"]}},
        {"model": {"name": "x", "options": 1}},
    ],
)
def test_a_model_description_of_other_things_is_damaged(finished: Path, change: dict[str, object]) -> None:
    forge(finished / "model/model-0001.json", lambda file: file["description"].update(change))
    with pytest.raises(RunError, match="does not describe a model"):
        Run(finished).best_model()


@pytest.fixture
def pickled_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A table with a column `KEY` whose values are pickles to pyarrow, once Ray Data has registered its type."""
    import pyarrow as pa
    import ray.data  # noqa: F401

    kind = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}

    def table(key: str, **columns: Any) -> pa.Table:
        fields = [pa.field(name, values.type) for name, values in columns.items()]
        schema = pa.schema([*fields, pa.field(key, pa.large_binary(), metadata=kind)], {b"classes": b"a,b"})
        bombs = pa.array(
            [pickle.dumps(Bomb(tmp_path / "pwned"))] * len(next(iter(columns.values()))), pa.large_binary()
        )
        return pa.table([*columns.values(), bombs], schema=schema)

    return table


def test_a_pickled_column_in_a_table_of_a_run_is_refused(finished: Path, pickled_column: Any) -> None:
    import pyarrow.parquet as pq

    run = Run(finished)
    (part,) = sorted((finished / "epochs").iterdir())[-1:]
    whole = pq.read_table(part)
    pq.write_table(pickled_column("extra", **{name: whole[name].combine_chunks() for name in whole.column_names}), part)
    with pytest.raises(LehrError, match="its column extra is of type"):
        run.metrics()
    assert not Path("pwned").exists()
    pq.read_table(part).to_pylist()  # the bomb does work
    assert Path("pwned").exists()


def test_a_registered_type_is_found_however_deep_it_lies() -> None:
    import pyarrow as pa

    from lehr.runs.tables import is_extension

    held: Any = pa.uuid()
    kinds = [held, pa.list_(held), pa.struct([("a", pa.int64()), ("b", pa.list_(held))]), pa.map_(pa.string(), held)]
    assert all(map(is_extension, kinds))
    assert not any(map(is_extension, [pa.int64(), pa.list_(pa.float32(), 3), pa.dictionary(pa.int32(), pa.string())]))


@pytest.mark.parametrize("column", ["image", "label", "shape"])
def test_a_pickled_column_in_a_data_set_is_refused(column: str, pickled_column: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lehr.data.load import OpenedSources

    plain = {"image": pa.array([small_picture()] * 4, pa.large_binary()), "label": pa.array([0, 1, 0, 1])}
    pq.write_table(pickled_column(column, **{k: v for k, v in plain.items() if k != column}), "set.parquet")
    with pytest.raises(
        JobError, match=rf"column {column} of type|{column} \(extension<ray\.data\.arrow_pickled_object"
    ):
        OpenedSources(from_dict({"data": {"source": "parquet", "path": "set.parquet"}}))  # type: ignore[arg-type]
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc", "..", ".hidden", "a\\b", "a\nb"])
def test_no_name_leads_outside_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    folder = Folder.at(tmp_path / "storage")
    for use in (folder.child, folder.read, folder.exists, folder.delete, partial(folder.write, data=b"")):
        with pytest.raises(RunError, match="cannot be a name"):
            use(name)
    with pytest.raises(JobError):
        from_dict({"name": name})
    assert (tmp_path / "outside/file").read_text() == "mine"


def test_a_checkpoint_that_is_a_link_never_deletes_its_target(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/step-0000000006-0001").symlink_to(mine)
    with pytest.raises(Died):
        train_here(EVERY_EPOCH, run)
    assert (mine / "file").read_text() == "mine"


def test_an_ensemble_reads_no_member_outside_its_folder(finished: Path) -> None:
    about = {"format": 1, "by": "probabilities", "members": [{"run": "../../elsewhere", "weight": 1.0}]}
    (finished / "ensemble.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="cannot be a name"):
        Run(finished).predict([])


YAML_BOMBS = {
    "a tag": "kind: !!python/object/apply:os.system ['touch pwned']\n",
    "a tag in a value": "kind: train\nnotes: !!python/object/new:os.system ['touch pwned']\n",
    "billions of aliases": "a0: &a0 {x: 1, y: 2}\n"
    + "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}, z: *a{i - 1}}}\n" for i in range(1, 40)),
    "a cycle": "kind: train\ndata: &a {source: digits, augment: *a}\n",
}


@pytest.mark.parametrize("text", YAML_BOMBS.values(), ids=YAML_BOMBS.keys())
def test_hostile_yaml_is_refused_quickly_and_runs_nothing(text: str, tmp_path: Path) -> None:
    began = time.monotonic()
    Path("job.yaml").write_text(text)
    with pytest.raises(JobError):
        load("job.yaml")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.yaml").write_text("format: 1\n" + text)
    with pytest.raises(LehrError):
        from_dict(RunFolder.open(folder).job)
    assert not Path("pwned").exists()
    assert time.monotonic() - began < 10


def test_an_image_that_decompresses_to_gigabytes_is_unreadable() -> None:
    """A PNG of a few hundred bytes that claims 60,000 × 60,000 pixels, 10.8 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000)))
    picture += chunk(b"IEND", b"")
    import pyarrow as pa

    from lehr.data.decode import decode

    began = time.monotonic()
    table = pa.table({"image": pa.array([picture, small_picture()], pa.large_binary()), "label": [0, 1]})
    decoded = decode(table, PixelFormat((8, 8)))
    assert [row for row, _ in decoded.unreadable] == [0]
    assert "decompression bomb" in decoded.unreadable[0][1]
    assert time.monotonic() - began < 5


def small_picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    assert decode_image(buffer.getvalue()).shape == (8, 8, 3)
    return buffer.getvalue()


@pytest.mark.parametrize("field", ["storage", "data.path"])
def test_a_password_in_a_uri_is_refused_and_never_printed(field: str) -> None:
    overrides = {"data.source": "images", "data.path": "x", field: f"s3://key:{SECRET}@bucket/path"}
    with pytest.raises(JobError, match="credentials in the environment") as caught:
        from_dict({}, overrides)
    assert SECRET not in str(caught.value)


def test_secrets_of_the_environment_are_written_to_no_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "GRAFANA_TOKEN", "PASSWORD")
    command(EVERY_EPOCH, tmp_path / "runs/run", partial(set_secrets, names))
    files = [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    assert len(files) > 15
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


def set_secrets(names: tuple[str, ...]) -> None:
    os.environ |= dict.fromkeys(names, SECRET)
