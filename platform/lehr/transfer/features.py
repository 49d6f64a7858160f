"""Features of a frozen network, computed once: what its head takes, in evaluation mode, kept as Parquet.

The last stage of a network as a feature extractor: Donahue et al., "DeCAF", 2014; Sharif Razavian et al., "CNN features
off-the-shelf", 2014.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from lehr import models
from lehr.data.dataset import DataSubset
from lehr.data.load import augmentations
from lehr.data.randomness import key, permutation
from lehr.errors import LehrError
from lehr.runs import Folder
from lehr.training.setup import Plan

BATCH = 256  # images per forward pass


@dataclass(frozen=True)
class Features:
    """The features of some rows.

    Attributes:
        ids: int64 [rows], the row numbers in the source.
        labels: int64 [rows].
        views: int64 [rows]: 0 the image as it is, from 1 on augmented.
        values: float32 [rows, dimension].
    """

    ids: Tensor
    labels: Tensor
    views: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, ids: Tensor, augmented: bool = True) -> Features:
        """Those of the rows with these ids, in the order they lie here; without augmented views if so asked."""
        chosen = torch.isin(self.ids, ids) if augmented else torch.isin(self.ids, ids) & (self.views == 0)
        return Features(self.ids[chosen], self.labels[chosen], self.views[chosen], self.values[chosen])

    @classmethod
    def together(cls, parts: list[Features]) -> Features:
        """All parts as one, in the order of (view, id)."""
        ids, labels, views, values = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "labels", "views", "values")
        )
        order = torch.from_numpy(np.lexsort((ids.numpy(), views.numpy())))
        return cls(ids[order], labels[order], views[order], values[order])


class Extractor:
    """Computes the features of a plan's network: the pretrained one, or the same with random weights."""

    def __init__(self, plan: Plan, device: torch.device, random: bool = False) -> None:
        """Raises JobError when the network has no linear head, before which features could be taken."""
        self.plan, self.device = plan, device
        section = plan.job.model
        if random:
            channels, seed = plan.preprocess.channels, plan.job.seed
            model = models.build(section.name, channels, plan.task.outputs, section.options, seed).to(plan.dtype)
        else:
            model = plan.build_model()
        head = linear_head(plan, model)
        self._augment = augmentations(plan.job)  # not compiled: features are taken once
        self.model = model.to(device, memory_format=plan.memory_format).eval()  # type: ignore[call-overload]
        self._taken: list[Tensor] = []
        head.register_forward_pre_hook(lambda _, inputs: self._taken.append(inputs[0]))

    @torch.inference_mode()
    def __call__(self, rows: DataSubset, positions: Tensor, view: int = 0) -> Features:
        """The features of the rows at `positions`, without those that cannot be read. View 0 is not augmented."""
        parts: list[Features] = []
        for batch in rows.batches(positions.split(BATCH)):
            batch = batch.to(self.device)
            if view:
                batch = self._augment(batch, view)
            self._taken.clear()
            self.model(self.plan.inputs(batch.inputs))
            (values,) = self._taken
            known = batch.targets >= 0
            ids, labels = batch.ids[known].cpu(), batch.targets[known].cpu()
            parts.append(Features(ids, labels, torch.full_like(ids, view), values[known].float().cpu()))
        return Features.together(parts)


def linear_head(plan: Plan, model: nn.Module) -> nn.Linear:
    """The head of a plan's network. Raises JobError unless it is a linear layer with a bias."""
    try:
        head = model.get_submodule(models.head_of(model, plan.task.outputs))
    except ValueError as error:
        raise plan.job.error("backbone", str(error)) from None
    if not isinstance(head, nn.Linear) or head.bias is None:
        what = f"the head of {plan.job.model.name} is no linear layer with a bias, so it has no features to take"
        raise plan.job.error("backbone", f"{what}; allowed: strategy finetune or scratch")
    return head


def compute(plan: Plan, split: str, positions: Tensor, *, views: int = 1, random: bool = False) -> Iterator[Features]:
    """The features of the rows of a split at `positions`, one view after the other, in this process."""
    extractor = Extractor(plan, torch.device("cuda" if torch.cuda.is_available() else "cpu"), random)
    for view in range(views):
        yield extractor(rows_of(plan, split), positions, view)


def rows_of(plan: Plan, split: str) -> DataSubset:
    """The rows of a split by name."""
    rows: DataSubset | None = getattr(plan.splits, split)
    assert rows is not None, f"the job has no {split} split"
    return rows


def splits_of(plan: Plan) -> list[str]:
    """The splits that the plan has."""
    return ["train", "validation", *(["test"] if plan.splits.test is not None else [])]


def some_rows(rows: DataSubset, most: int, seed: int) -> Tensor:
    """Positions of at most `most` rows, fixed by the seed, in order."""
    return permutation(key(seed, "some rows"), len(rows))[:most].sort().values


# ── on storage ────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Folder, name: str, features: Features) -> None:
    """Writes `features/NAME.parquet` of a run folder: columns id, label, view and features (float32 list)."""
    dimension = features.values.shape[1]
    flat = pa.array(features.values.contiguous().numpy().reshape(-1))
    columns = {
        "id": pa.array(features.ids.numpy()),
        "label": pa.array(features.labels.numpy()),
        "view": pa.array(features.views.numpy().astype(np.int32)),
        "features": pa.FixedSizeListArray.from_arrays(flat, dimension),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    folder.write(f"features/{name}.parquet", buffer.getvalue())


def read(folder: Folder, name: str) -> Features:
    """Reads what `write` wrote. Raises LehrError where it is missing or damaged."""
    try:
        table = pq.read_table(io.BytesIO(folder.read(f"features/{name}.parquet"))).combine_chunks()
        values = table["features"].chunk(0) if table.num_rows else table["features"].combine_chunks()
        array = values.values.to_numpy(zero_copy_only=False).reshape(len(table), values.type.list_size)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise LehrError(f"{folder.uri}/features/{name}.parquet: is missing or damaged; start over: --fresh") from error
    ids, labels, views = (torch.from_numpy(table[c].to_numpy().astype(np.int64)) for c in ("id", "label", "view"))
    return Features(ids, labels, views, torch.from_numpy(array.copy()))
