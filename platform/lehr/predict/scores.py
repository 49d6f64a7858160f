"""The outputs of several networks on the validation and test rows of a job: what an ensemble is judged by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lehr.data.dataset import UNREADABLE, DataSubset
from lehr.ensembles.figures import Outputs
from lehr.errors import RunError
from lehr.predict.predictor import Predictor, load_network
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials import TrialCallbacks
from lehr.trials.trainable import Trainable

BATCH = 512


def score_work(members: Sequence[Folder], single: Folder | None) -> Trainable:
    """Work of a trial: writes `outputs/validation.parquet`, and `outputs/test.parquet` where the job has test rows.

    Each holds `id`, `label`, and the logits of each model in a column of its own. Every image goes in once for all.

    Args:
        members: run folders with a model each.
        single: one more, to compare with.
    """
    folders = [*members, *([single] if single else [])]
    return partial(_score, tuple(folders))


def _score(folders: tuple[Folder, ...], plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    if not group.first:
        return
    names = [str(number) for number in range(len(folders))]
    predictor = Predictor([load_network(folder) for folder in folders], names, [1.0] * len(names), "logits")
    predictor.to(group.device)
    splits = {"validation": plan.splits.validation, "test": plan.splits.test}
    wanted = {name: rows for name, rows in splits.items() if rows is not None}
    for number, (name, rows) in enumerate(wanted.items()):
        run.write_progress(_progress("running", number / len(wanted)))
        table = _table(predictor, rows, group, hooks)
        if table is None:
            run.write_progress(_progress("stopped", number / len(wanted)))
            return
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        run.folder.write(f"outputs/{name}.parquet", buffer.getvalue())
    run.write_progress(_progress("finished", 1.0))


@torch.inference_mode()
def _table(predictor: Predictor, rows: DataSubset, group: Group, hooks: TrialCallbacks) -> pa.Table | None:
    """The outputs on all readable rows; None when asked to stop."""
    ids, labels, logits = [], [], []
    for batch in rows.batches(torch.arange(len(rows)).split(BATCH)):
        if hooks.should_stop():
            return None
        found = predictor.logits(batch.to(group.device).inputs).cpu()
        readable = batch.targets != UNREADABLE
        ids.append(batch.ids[readable])
        labels.append(batch.targets[readable])
        logits.append(found[:, readable])
    each = torch.cat(logits, dim=1).contiguous().numpy()
    lists = {
        f"logits {number}": pa.FixedSizeListArray.from_arrays(pa.array(one.reshape(-1)), one.shape[1])
        for number, one in enumerate(each)
    }
    return pa.table({"id": torch.cat(ids).numpy(), "label": torch.cat(labels).numpy(), **lists})


def read_outputs(folder: Folder, members: int) -> tuple[Outputs, Outputs]:
    """(validation, judged): the outputs that `score_work` wrote; judged are the test rows, where there are some.

    Args:
        folder: of the trial that did the work.
        members: how many of the models are members; one more is the network to compare with.

    Raises:
        RunError: there are none.
    """
    if not folder.exists("outputs/validation.parquet"):
        raise RunError(f"{folder.uri}: holds no outputs of members yet; there is nothing to report")
    validation = _read(folder, "validation", members)
    return validation, _read(folder, "test", members) if folder.exists("outputs/test.parquet") else validation


def _read(folder: Folder, split: str, members: int) -> Outputs:
    with folder.open_input_file(f"outputs/{split}.parquet") as file:
        table = pq.read_table(file)
    columns = [name for name in table.column_names if name.startswith("logits")]
    logits = np.stack([_matrix(table[name], table.num_rows) for name in columns])
    single = logits[members] if len(logits) > members else None
    return Outputs(split, table["label"].to_numpy(), logits[:members], single)


def _matrix(column: pa.ChunkedArray, rows: int) -> np.ndarray:
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(rows, -1)


def _progress(status: str, done: float) -> dict[str, Any]:
    message = "all rows done" if status == "finished" else ""
    facts: dict[str, Any] = {"facts": {}, "table": {"columns": [], "rows": []}}
    return {"status": status, "message": message, "done": done, "headline": "outputs of the members", **facts}
