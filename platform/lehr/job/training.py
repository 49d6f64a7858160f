"""What training one network needs: as a job of its own (`TrainJob`), or as the `base` of another kind of job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from lehr.job.base import Job
from lehr.job.finetune import FinetuneSection
from lehr.job.sections import (
    CallbackSection,
    DataSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    Section,
    TrainSection,
    WorkersSection,
)
from lehr.schedules import Constant, Schedule

NOT_OF_A_BASE = ("kind", "name", "storage", "notes")
"""What a job file says about its own run; left out where the file is the base of another job."""


class Training(Section):
    """The sections of one training. As the `base` of a job: a mapping, or the file of a train job."""

    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of everything random: split, order, weights, augmentation."
    )
    data: DataSection = Field(default=DataSection(), description="The rows, their split and their augmentation.")
    model: ModelSection = Field(default=ModelSection(), description="The network.")
    loss: LossSection = Field(default=LossSection(), description="What is minimised.")
    finetune: FinetuneSection | None = Field(
        default=None, description="How model.weights are fine-tuned. By default all layers alike, from the first step."
    )
    optimizer: OptimizerSection = Field(default=OptimizerSection(), description="How the weights are updated.")
    schedule: Schedule = Field(default=Constant(), description="The learning rate over the run.")
    train: TrainSection = Field(
        default=TrainSection(), description="Epochs, batch size, stopping, averaging, precision and checkpoints."
    )
    callbacks: list[CallbackSection] = Field(
        default=[],
        description="Objects of your own that see the training and may ask it to stop: my_package.module:Name, or a "
        "mapping with its options.",
    )
    workers: WorkersSection = Field(default=WorkersSection(), description="The processes that train together.")

    @model_validator(mode="after")
    def _finetunes_weights(self) -> Training:
        if self.finetune and not self.model.weights:
            raise ValueError("finetune needs pretrained weights, and model.weights has none")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = super().__get_pydantic_json_schema__(schema, handler)
        if cls is not Training:
            return whole
        return {"anyOf": [{"type": "string", "description": "The file of a train job."}, whole]}


class TrainJob(Training, Job):
    """Train one network."""

    kind: Literal["train"] = Field(default="train", description="What the job does.")
