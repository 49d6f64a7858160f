"""The outputs of an ensemble's members on the validation and test rows of a job, which the ensemble is evaluated on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lehr.data.dataset import DataSubset
from lehr.data.labels import from_column, to_column
from lehr.data.targets import readable as readable_rows
from lehr.ensembles.evaluation import Outputs
from lehr.errors import RunError
from lehr.predict.predictor import Predictor, load_network
from lehr.runs import Folder, Overview, Progress, RunFolder
from lehr.runs.progress import State
from lehr.runs.tables import from_parquet
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials import TrialCallbacks
from lehr.trials.trainable import Trainable

BATCH_SIZE = 512
MOST_VALUES, MOST_AT_ONCE = 1 << 28, 1 << 26
"""Numbers that are kept of masks, for which fewer rows count where there are more, evenly spaced; and of a batch."""


def record_outputs(members: Sequence[Folder], baseline: Folder | None, *, decided: bool = False) -> Trainable:
    """A trainable that writes `outputs/validation.parquet`, and `outputs/test.parquet` if the job has test rows.

    Each file holds `id`, `label`, and one column of logits per model. Every image is decoded once for all models.

    Args:
        members: run folders, each with a model.
        baseline: the run folder of one more model, which the ensemble is compared with.
        decided: keep what each says alone, such as the class of each pixel, in place of what can be averaged.
    """
    folders = [*members, *([baseline] if baseline else [])]
    return partial(_record, tuple(folders), decided)


def _record(
    folders: tuple[Folder, ...], decided: bool, plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks
) -> None:
    if not group.first:
        return
    names = [str(number) for number in range(len(folders))]
    predictor = Predictor([load_network(folder) for folder in folders], names, [1.0] * len(names), "logits")
    predictor.to(group.device)
    splits = {"validation": plan.splits.validation, "test": plan.splits.test}
    wanted = {name: rows for name, rows in splits.items() if rows is not None}
    for number, (name, rows) in enumerate(wanted.items()):
        run.write_progress(_progress("running", number / len(wanted)))
        table = _compute(predictor, rows, group, callbacks, decided)
        if table is None:
            run.write_progress(_progress("stopped", number / len(wanted)))
            return
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        run.folder.write(f"outputs/{name}.parquet", buffer.getvalue())
    run.write_progress(_progress("finished", 1.0))


@torch.inference_mode()
def _compute(
    predictor: Predictor, rows: DataSubset, group: Group, callbacks: TrialCallbacks, decided: bool = False
) -> pa.Table | None:
    """The outputs on all readable rows; None if asked to stop."""
    ids, labels, logits = [], [], []
    asked, at_once = torch.arange(len(rows)), BATCH_SIZE
    if predictor.task.labels == "mask":  # a probability for each class and pixel, of each network
        values = len(predictor.names) * len(predictor.classes) * predictor.size[0] * predictor.size[1]
        most, at_once = max(1, MOST_VALUES // values), max(1, min(BATCH_SIZE, MOST_AT_ONCE // values))
        if not decided:
            asked = torch.linspace(0, len(rows) - 1, min(len(rows), most), dtype=torch.float64).round().long()
    for batch in rows.batches(asked.split(at_once)):
        if callbacks.should_stop():
            return None
        found = predictor.logits(batch.to(group.device).inputs)
        found = torch.stack([predictor.task.decided(each) for each in found]).cpu() if decided else found.cpu()
        readable = readable_rows(batch.targets)
        ids.append(batch.ids[readable])
        labels.append(batch.targets[readable])
        logits.append(found[:, readable])
    each = torch.cat(logits, dim=1).contiguous().numpy()
    lists = {
        f"logits {number}": pa.FixedSizeListArray.from_arrays(pa.array(one.reshape(-1)), one[0].size)
        for number, one in enumerate(each)
    }
    keys = {"id": pa.array(torch.cat(ids).numpy()), "label": to_column(torch.cat(labels).numpy())}
    return pa.table({**keys, **lists})


def read_outputs(folder: Folder, members: int) -> tuple[Outputs, Outputs]:
    """The outputs that `record_outputs` wrote, on the validation rows and on the rows to evaluate the ensemble on.

    The latter are the test rows, or the validation rows again if there are no test rows.

    Args:
        folder: the run folder of the trial.
        members: how many of the models are members; one more is the baseline.

    Raises:
        RunError: there are none.
    """
    if not folder.exists("outputs/validation.parquet"):
        raise RunError(f"{folder.uri}: the members have not been evaluated yet; there is nothing to report")
    validation = _read(folder, "validation", members)
    return validation, _read(folder, "test", members) if folder.exists("outputs/test.parquet") else validation


def _read(folder: Folder, split: str, members: int) -> Outputs:
    name = f"outputs/{split}.parquet"
    try:
        table = from_parquet(folder.read(name))
    except ValueError as error:
        raise RunError(f"{folder.uri}/{name}: is damaged: {error}") from error
    columns = [name for name in table.column_names if name.startswith("logits")]
    logits = np.stack([_matrix(table[name], table.num_rows) for name in columns])
    baseline = logits[members] if len(logits) > members else None
    return Outputs(split, np.asarray(from_column(table["label"])), logits[:members], baseline)


def _matrix(column: pa.ChunkedArray, rows: int) -> np.ndarray:
    lists = column.combine_chunks()
    assert isinstance(lists, pa.FixedSizeListArray)
    return lists.flatten().to_numpy().reshape(rows, -1)


def _progress(status: State, done: float) -> Progress:
    message = "evaluated on all rows" if status == "finished" else ""
    return Progress(status=status, message=message, overview=Overview(headline="evaluating the members", done=done))
