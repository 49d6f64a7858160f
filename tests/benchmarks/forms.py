"""Data in the forms that people have them, each trained one epoch with nothing but its path.

Every data set is written by the library that people use for it, from the bundled digits. What lehr says it understood,
and whether one epoch trained, becomes a row of the table. Needs `datasets`, `webdataset` and `polars` beside lehr.

    python -m tests.benchmarks.forms FOLDER [NAME…]
"""

from __future__ import annotations

import csv
import functools
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.load import OpenedSources
from lehr.job import TrainJob, from_dict

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROWS = 600
SPLITS = {"train": slice(0, 480), "test": slice(480, 600)}
OWN = '''"""Functions that return data sets of several libraries, for a job that names one of them."""
import numpy as np

X, Y = np.load("{0}/x.npy"), np.load("{0}/y.npy")


def torch_dataset():
    import torch
    class Digits(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            return torch.from_numpy(X[row])[None].float() / 255, int(Y[row])

    return Digits()


def torch_iterable():
    import torch

    class Digits(torch.utils.data.IterableDataset):
        def __iter__(self):
            return ((x, int(y)) for x, y in zip(X, Y))

    return Digits()


def hugging_face():
    import datasets  # type: ignore[import-not-found,unused-ignore]

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names={1}))
    from PIL import Image

    return datasets.Dataset.from_dict(
        dict(image=[Image.fromarray(x) for x in X], label=Y.tolist()), features=features
    )


def ray_dataset():
    import ray

    return ray.data.from_items([dict(image=x, label=int(y)) for x, y in zip(X, Y)])


def dicts():
    return [dict(image=x, label=str(y)) for x, y in zip(X, Y)]


def arrays():
    return X, Y
'''


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [600, 8, 8] and int64 [600]."""
    job = from_dict({"kind": "train"})
    assert isinstance(job, TrainJob)
    images = OpenedSources(job).decode()["train"]
    return images.pixels[:ROWS, :, :, 0], np.asarray(images.labels[:ROWS])


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(digits()[0][row]).save(file, "PNG")
    return file.getvalue()


def encoded() -> list[bytes]:
    return [png(row) for row in range(ROWS)]


def named() -> list[str]:
    return [NAMES[label] for label in digits()[1]]


def save(folder: Path, name: str, row: int) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(png(row))
    return name


def data_set(rows: slice = slice(None)) -> Any:
    """As `datasets.Dataset` with an Image and a ClassLabel."""
    import datasets  # type: ignore[import-not-found,unused-ignore]

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    images = [Image.fromarray(image) for image in digits()[0][rows]]
    return datasets.Dataset.from_dict({"image": images, "label": digits()[1][rows].tolist()}, features=features)


# ── the forms ───────────────────────────────────────────────────────────────────────────────────────────────────────

Data = str | Mapping[str, Any]
"""The path of what was written, or a whole `data` section."""


def hf_file(at: Path) -> Data:
    data_set().to_parquet(at / "train.parquet")
    return "train.parquet"


def hf_repository(at: Path) -> Data:
    (at / "data").mkdir()
    halves = [slice(0, 240), slice(240, 480)]
    for number, rows in enumerate(halves):
        data_set(rows).to_parquet(at / f"data/train-{number:05d}-of-00002.parquet")
    data_set(SPLITS["test"]).to_parquet(at / "data/test-00000-of-00001.parquet")
    (at / "README.md").write_text("---\ndataset_info:\n---\n")
    return "."


def hf_glob(at: Path) -> Data:
    hf_repository(at)
    return "data/*.parquet"


def hf_saved(at: Path) -> Data:
    import datasets  # type: ignore[import-not-found,unused-ignore]

    datasets.DatasetDict({name: data_set(rows) for name, rows in SPLITS.items()}).save_to_disk(at / "set")
    return "set"


def hf_array2d(at: Path) -> Data:
    import datasets  # type: ignore[import-not-found,unused-ignore]

    features = datasets.Features({"img": datasets.Array2D((8, 8), "uint8"), "fine_label": datasets.Value("int32")})
    rows = {"img": digits()[0].tolist(), "fine_label": digits()[1].tolist()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(at / "arrays.parquet")
    return "arrays.parquet"


def hf_several(at: Path) -> Data:
    import datasets  # type: ignore[import-not-found,unused-ignore]

    each = datasets.List(datasets.ClassLabel(names=["even", "large"]))
    features = datasets.Features({"image": datasets.Image(), "labels": each})
    labels = [[k for k, has in enumerate((y % 2 == 0, y > 4)) if has] for y in digits()[1]]
    rows = {"image": [Image.fromarray(image) for image in digits()[0]], "labels": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(at / "several.parquet")
    return {"path": "several.parquet", "task": "multilabel"}


def pandas_strings(at: Path) -> Data:
    import pandas as pd

    pd.DataFrame({"image": encoded(), "species": named()}).to_parquet(at / "rows.parquet")
    return "rows.parquet"


def pandas_categories(at: Path) -> Data:
    import pandas as pd

    frame = pd.DataFrame({"image_bytes": encoded(), "class": pd.Categorical(named())}, index=range(7, 7 + ROWS))
    frame.to_parquet(at / "rows.parquet")
    return "rows.parquet"


def pandas_from_one(at: Path) -> Data:
    import pandas as pd

    pd.DataFrame({"image": encoded(), "label": (digits()[1] + 1).astype(np.uint8)}).to_parquet(at / "rows.parquet")
    return "rows.parquet"


def pandas_bools(at: Path) -> Data:
    import pandas as pd

    pd.DataFrame({"image": encoded(), "label": digits()[1] % 2 == 0}).to_parquet(at / "rows.parquet")
    return "rows.parquet"


def pandas_floats(at: Path) -> Data:
    import pandas as pd

    pd.DataFrame({"image": encoded(), "label": digits()[1] + 0.5}).to_parquet(at / "rows.parquet")
    return {"path": "rows.parquet", "task": "regression"}


def pandas_pixels_csv(at: Path) -> Data:
    """As Kaggle has MNIST."""
    import pandas as pd

    pixels = pd.DataFrame(digits()[0].reshape(ROWS, 64), columns=[f"pixel{k}" for k in range(64)])
    pixels.insert(0, "label", digits()[1])
    pixels.to_csv(at / "train.csv", index=False)
    return "train.csv"


def polars_lists(at: Path) -> Data:
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    pl.DataFrame({"pixels": digits()[0].tolist(), "label": digits()[1]}).write_parquet(at / "rows.parquet")
    return "rows.parquet"


def polars_array(at: Path) -> Data:
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    image = pl.Series("image", digits()[0], dtype=pl.Array(pl.UInt8, (8, 8)))
    label = pl.Series("label", named(), dtype=pl.Enum(list(NAMES)))
    pl.DataFrame([image, label]).write_parquet(at / "rows.parquet")
    return "rows.parquet"


def polars_ipc(at: Path) -> Data:
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    pl.DataFrame({"image": encoded(), "label": named()}).write_ipc(at / "rows.arrow")
    return "rows.arrow"


def pandas_csv(at: Path) -> Data:
    import pandas as pd

    files = [save(at, f"images/{row:04d}.png", row) for row in range(ROWS)]
    pd.DataFrame({"filename": files, "label": named()}).to_csv(at / "labels.csv", index=False)
    return "labels.csv"


def csv_without_endings(at: Path) -> Data:
    """As Kaggle has dog breeds: an id and a class, files in a folder beside."""
    for row in range(ROWS):
        save(at, f"train/{row:04x}.png", row)
    with (at / "labels.csv").open("w") as file:
        csv.writer(file).writerows([("id", "breed"), *((f"{row:04x}", name) for row, name in enumerate(named()))])
    return "."


def polars_tsv(at: Path) -> Data:
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    files = [save(at, f"{row:04d}.png", row) for row in range(ROWS)]
    pl.DataFrame({"path": files, "category": digits()[1]}).write_csv(at / "index.tsv", separator="\t")
    return "index.tsv"


def json_lines(at: Path) -> Data:
    """As `datasets` has an image folder with metadata."""
    for split, rows in SPLITS.items():
        lines = [
            {"file_name": save(at / split, f"{row:04d}.png", row), "label": named()[row]} for row in range(ROWS)[rows]
        ]
        (at / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "."


def csv_of_addresses(at: Path) -> Data:
    server = serve(at)
    with (at / "urls.csv").open("w") as file:
        rows = [(f"{server}/{save(at, f'im/{row}.png', row)}", named()[row]) for row in range(ROWS)]
        csv.writer(file).writerows([("image_url", "label"), *rows])
    return "urls.csv"


def web_dataset(at: Path) -> Data:
    import webdataset as wds  # type: ignore[import-not-found,unused-ignore]

    with wds.ShardWriter(str(at / "digits-%06d.tar"), maxcount=200, verbose=0) as sink:
        for row, label in enumerate(digits()[1]):
            sink.write({"__key__": f"{row:06d}", "png": png(row), "cls": int(label)})
    return "digits-{000000..000002}.tar"


def web_dataset_json(at: Path) -> Data:
    import webdataset as wds  # type: ignore[import-not-found,unused-ignore]

    for split, rows in SPLITS.items():
        with wds.ShardWriter(str(at / f"{split}-%04d.tar"), maxcount=200, verbose=0) as sink:
            for row in range(ROWS)[rows]:
                sink.write({"__key__": f"a/{row:06d}", "png": png(row), "json": {"label": named()[row], "id": row}})
    return "."


def class_folders(at: Path) -> Data:
    for row, name in enumerate(named()):
        save(at, f"{name}/{row}.png", row)
    return "."


def imagenette(at: Path) -> Data:
    """Folders of WordNet ids in train and val, and the tables of noisy labels that it ships beside them."""
    lines = ["path,noisy_labels_0,noisy_labels_1,is_valid"]
    for row, label in enumerate(digits()[1]):
        split = "train" if row < 480 else "val"
        file = save(at, f"{split}/n{label:08d}/n{label:08d}_{row}.png", row)
        lines.append(f"{file},n{label:08d},n{label:08d},{split == 'val'}")
    (at / "noisy_digits.csv").write_text("\n".join(lines))
    return "."


def numbered_folders(at: Path) -> Data:
    for row, label in enumerate(digits()[1]):
        save(at, f"images/{'training' if row < 480 else 'testing'}/{label}/{row}.png", row)
    (at / "images/classes.txt").write_text("\n".join(NAMES))
    return "images"


def keras_npz(at: Path) -> Data:
    x, y = digits()
    np.savez(at / "mnist.npz", x_train=x[:480], y_train=y[:480], x_test=x[480:], y_test=y[480:])
    return "mnist.npz"


def medmnist_npz(at: Path) -> Data:
    x, y = digits()
    splits = {"train": slice(0, 400), "val": slice(400, 500), "test": slice(500, 600)}
    arrays = {f"{split}_images": x[rows] for split, rows in splits.items()}
    arrays |= {f"{split}_labels": y[rows, None].astype(np.uint8) for split, rows in splits.items()}
    np.savez_compressed(at / "digits.npz", **arrays)  # type: ignore[arg-type]
    return "digits.npz"


def npy_pair(at: Path) -> Data:
    np.save(at / "images.npy", digits()[0])
    np.save(at / "labels.npy", digits()[1])
    return "."


def torchvision_folder(at: Path) -> Data:
    """`torchvision.datasets.ImageFolder` reads it; it follows folders to any depth."""
    for row, name in enumerate(named()):
        save(at, f"{name}/part{row % 3}/{row}.png", row)
    return "."


def own(function: str) -> Callable[[Path], Data]:
    def write(at: Path) -> Data:
        np.save(at / "x.npy", digits()[0])
        np.save(at / "y.npy", digits()[1])
        (at / "my_data.py").write_text(OWN.replace("{0}", str(at)).replace("{1}", str(list(NAMES))))
        return {"source": f"my_data:{function}"}

    return write


FORMS: dict[str, tuple[str, Callable[[Path], Data]]] = {
    "Parquet file": ("datasets", hf_file),
    "folder of shards with splits": ("datasets", hf_repository),
    "shards as a glob": ("datasets", hf_glob),
    "save_to_disk": ("datasets", hf_saved),
    "Parquet of Array2D": ("datasets", hf_array2d),
    "Parquet of several classes": ("datasets", hf_several),
    "Parquet, names": ("pandas", pandas_strings),
    "Parquet, categories": ("pandas", pandas_categories),
    "Parquet, numbers from 1": ("pandas", pandas_from_one),
    "Parquet, true and false": ("pandas", pandas_bools),
    "Parquet, floats": ("pandas", pandas_floats),
    "CSV of pixels": ("pandas", pandas_pixels_csv),
    "CSV of files": ("pandas", pandas_csv),
    "Parquet of nested lists": ("polars", polars_lists),
    "Parquet of arrays and an Enum": ("polars", polars_array),
    "Arrow file": ("polars", polars_ipc),
    "TSV of files": ("polars", polars_tsv),
    "CSV of ids without endings": ("csv", csv_without_endings),
    "CSV of addresses": ("csv", csv_of_addresses),
    "image folder with metadata.jsonl": ("json", json_lines),
    "tar shards, cls": ("webdataset", web_dataset),
    "tar shards, json, splits": ("webdataset", web_dataset_json),
    "class folders": ("Pillow", class_folders),
    "class folders, deeper": ("Pillow", torchvision_folder),
    "Imagenette": ("Pillow", imagenette),
    "numbered folders, classes.txt": ("Pillow", numbered_folders),
    "npz of Keras": ("NumPy", keras_npz),
    "npz of MedMNIST": ("NumPy", medmnist_npz),
    "npy beside npy": ("NumPy", npy_pair),
    "torch Dataset": ("torch", own("torch_dataset")),
    "torch IterableDataset": ("torch", own("torch_iterable")),
    "datasets.Dataset": ("datasets", own("hugging_face")),
    "Ray Dataset": ("ray", own("ray_dataset")),
    "list of dicts": ("Python", own("dicts")),
    "pair of arrays": ("NumPy", own("arrays")),
}


# ── trained ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def serve(folder: Path) -> str:
    """Serves a folder on this machine; returns the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Row:
    """What became of one form."""

    form: str
    library: str
    trained: bool
    said: str


def train(at: Path, data: Data) -> tuple[bool, str]:
    """Trains one epoch with `lehr run`; returns whether it did, and what was said of the data."""
    section = {"path": data} if isinstance(data, str) else dict(data)
    job: dict[str, Any] = {"kind": "train", "storage": str(at / "runs"), "train": {"epochs": 1}}
    if task := section.pop("task", None):
        job["task"] = task
    (at / "job.yaml").write_text(json.dumps({**job, "data": section}))
    command = [sys.executable, "-m", "lehr", "run", str(at / "job.yaml")]
    command += [] if "source" in section else ["--debug"]
    wide = {**os.environ, "COLUMNS": "400"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=at, env=wide)
    lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    if ended.returncode:
        return False, next((line for line in lines if "data" in line), lines[-1] if lines else "")
    return True, next((line for line in lines if "rows" in line and ":" in line), lines[0])


def rows(folder: Path, wanted: list[str]) -> Iterator[Row]:
    for number, (form, (library, write)) in enumerate(FORMS.items()):
        if wanted and not any(each in form for each in wanted):
            continue
        at = folder / f"{number:02d}"
        at.mkdir(parents=True)
        yield Row(form, library, *train(at, write(at)))


def main(folder: str, *wanted: str) -> None:
    print("| form | written by | trained | said |\n|---|---|---|---|")
    for row in rows(Path(folder).absolute(), list(wanted)):
        said = row.said.replace("|", "\\|")
        print(f"| {row.form} | {row.library} | {'yes' if row.trained else '**no**'} | {said} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
