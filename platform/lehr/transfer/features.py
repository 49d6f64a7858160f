"""Features of a frozen network: the inputs of its head in evaluation mode, computed once and stored as Parquet.

The penultimate layer of a network as a feature extractor: Donahue et al., "DeCAF", 2014; Sharif Razavian et al., "CNN
features off-the-shelf", 2014.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

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
from lehr.runs.tables import from_parquet
from lehr.training.setup import Plan

BATCH_SIZE = 256  # images per forward pass


@dataclass(frozen=True)
class Features:
    """The features of a set of rows, one entry per image and view.

    Attributes:
        ids: int64 [rows], the row numbers in the source.
        labels: int64 [rows].
        views: int64 [rows]: 0 for the original image, from 1 on for augmented versions.
        values: float32 [rows, dimension].
    """

    ids: Tensor
    labels: Tensor
    views: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> Features:
        """The entries at these positions, or where a boolean mask is true."""
        return Features(self.ids[rows], self.labels[rows], self.views[rows], self.values[rows])

    def originals(self) -> Features:
        """The entries of original images, without augmented views."""
        return self[self.views == 0]

    def select(self, ids: Tensor) -> Features:
        """The entries of the rows with these ids, in their present order."""
        return self[torch.isin(self.ids, ids)]

    @classmethod
    def concatenate(cls, parts: Sequence[Features]) -> Features:
        """All parts in one, sorted by (view, id)."""
        whole = cls(
            torch.cat([part.ids for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.views for part in parts]),
            torch.cat([part.values for part in parts]),
        )
        return whole[torch.from_numpy(np.lexsort((whole.ids.numpy(), whole.views.numpy())))]

    @classmethod
    def read(cls, folder: Folder, split: str) -> Features:
        """Reads `features/SPLIT.parquet` of a run folder. Raises LehrError if it is missing or damaged."""
        name = f"features/{split}.parquet"
        try:
            table = from_parquet(folder.read(name)).combine_chunks()
            values = table["features"].chunk(0) if table.num_rows else table["features"].combine_chunks()
            assert isinstance(values, pa.FixedSizeListArray)
            array = values.values.to_numpy(zero_copy_only=False).reshape(len(table), values.type.list_size)
        except (FileNotFoundError, ValueError, pa.ArrowException) as error:
            raise LehrError(f"{folder.uri}/{name}: missing or damaged; start over with --fresh") from error
        ids, labels, views = (torch.from_numpy(table[c].to_numpy().astype(np.int64)) for c in ("id", "label", "view"))
        return cls(ids, labels, views, torch.from_numpy(array.copy()))

    def write(self, folder: Folder, split: str) -> None:
        """Writes `features/SPLIT.parquet` of a run folder: columns id, label, view and features (float32 list)."""
        flat = pa.array(self.values.contiguous().numpy().reshape(-1))
        columns = {
            "id": pa.array(self.ids.numpy()),
            "label": pa.array(self.labels.numpy()),
            "view": pa.array(self.views.numpy().astype(np.int32)),
            "features": pa.FixedSizeListArray.from_arrays(flat, self.values.shape[1]),
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        folder.write(f"features/{split}.parquet", buffer.getvalue())


class FeatureExtractor:
    """Computes features with a plan's network: the pretrained one, or the same architecture with random weights."""

    def __init__(self, plan: Plan, device: torch.device, random_weights: bool = False) -> None:
        """Raises JobError if the network does not end in a linear head, whose inputs are the features."""
        self.plan, self.device = plan, device
        section = plan.job.model
        if random_weights:
            channels, seed = plan.preprocess.channels, plan.job.seed
            model = models.build(section.name, channels, plan.task.outputs, section.options, seed).to(plan.dtype)
        else:
            model = plan.build_model()
        head = linear_head(plan, model)
        self._augment = augmentations(plan.job)  # not compiled: each image is seen only once per view
        self.model = model.to(device, memory_format=plan.memory_format).eval()  # type: ignore[call-overload]
        self._captured: list[Tensor] = []
        head.register_forward_pre_hook(self._capture)

    def _capture(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._captured.append(inputs[0])

    @torch.inference_mode()
    def __call__(
        self, rows: DataSubset, positions: Tensor, view: int = 0, told: Callable[[int], None] = lambda done: None
    ) -> Features:
        """The features of the rows at `positions`; unreadable images are left out. View 0 is not augmented.

        Args:
            told: called after each batch with the number of images done.
        """
        parts: list[Features] = []
        for batch in rows.batches(positions.split(BATCH_SIZE)):
            batch = batch.to(self.device)
            if view:
                batch = self._augment(batch, view)
            self._captured.clear()
            self.model(self.plan.inputs(batch.inputs))
            (values,) = self._captured
            readable = batch.targets >= 0
            ids, labels = batch.ids[readable].cpu(), batch.targets[readable].cpu()
            parts.append(Features(ids, labels, torch.full_like(ids, view), values[readable].float().cpu()))
            told(min(len(positions), len(parts) * BATCH_SIZE))
        return Features.concatenate(parts)


def _told_from(told: Callable[[int], None], before: int, done: int) -> None:
    told(before + done)


def linear_head(plan: Plan, model: nn.Module) -> nn.Linear:
    """The head of a plan's network. Raises JobError unless it is a linear layer with a bias."""
    try:
        head = model.get_submodule(models.head_of(model, plan.task.outputs))
    except ValueError as error:
        raise plan.job.error("backbone", str(error)) from None
    if not isinstance(head, nn.Linear) or head.bias is None:
        what = f"the head of {plan.job.model.name} is not a linear layer with a bias, so features cannot be extracted"
        raise plan.job.error("backbone", f"{what}; allowed: strategy finetune or scratch")
    return head


def compute_locally(
    plan: Plan,
    split: str,
    positions: Tensor,
    *,
    views: int = 1,
    random_weights: bool = False,
    told: Callable[[int], None] = lambda done: None,
) -> Iterator[Features]:
    """The features of the rows of a split at `positions`, one view after the other, in this process.

    Args:
        told: called after each batch with the number of images done.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = FeatureExtractor(plan, device, random_weights)
    for view in range(views):
        before = view * len(positions)
        yield extractor(rows_of_split(plan, split), positions, view, partial(_told_from, told, before))


def rows_of_split(plan: Plan, split: str) -> DataSubset:
    """The rows of the split with this name."""
    rows: DataSubset | None = getattr(plan.splits, split)
    assert rows is not None, f"the job has no {split} split"
    return rows


def split_names(plan: Plan) -> list[str]:
    """The names of the splits that the plan has."""
    return ["train", "validation", *(["test"] if plan.splits.test is not None else [])]


def sample_positions(rows: DataSubset, most: int, seed: int) -> Tensor:
    """Positions of a random sample of at most `most` rows, in ascending order; the same for the same seed."""
    return permutation(key(seed, "some rows"), len(rows))[:most].sort().values
