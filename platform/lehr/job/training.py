"""What training one network needs: as a job of its own (`TrainJob`), or as the `base` of another kind of job."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from lehr.job.base import Job, Seed
from lehr.job.finetune import FinetuneSection
from lehr.job.sections import (
    CallbackSection,
    DataSection,
    LossSection,
    MetricSection,
    ModelSection,
    OptimizerSection,
    Section,
    TaskSection,
    TrainSection,
    WorkersSection,
)
from lehr.schedules import Constant, Schedule
from lehr.tasks.forms import form_of, lower_is_better
from lehr.usual import usual_of

SectionOf = TypeVar("SectionOf", bound=Section)
SPLITS = ("averaged_validation", "validation", "clean_train", "train", "test")
"""What the name of a measured column begins with."""
NOT_OF_A_BASE = ("kind", "name", "storage", "notes", "notify", "time_limit", "tracking")
"""What a job file says about its own run; left out where the file is the base of another job."""


class Training(Section):
    """The sections of one training. As the `base` of a job: a mapping, or the file of a train job."""

    seed: Seed = Field(default=0, description="Seed of everything random: split, order, weights, augmentation.")
    task: TaskSection = Field(default=TaskSection(), description="What is learned.")
    data: DataSection = Field(default=DataSection(), description="The rows, their split and their augmentation.")
    model: ModelSection = Field(default=ModelSection(), description="The network.")
    loss: LossSection = Field(default=LossSection(), description="What is minimised.")
    metrics: list[MetricSection] = Field(
        default=[], description="What is measured besides loss and accuracy: on validation, training and test rows."
    )
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

    @model_validator(mode="after")
    def _rate_of_pretrained_weights(self) -> Training:
        usual = usual_of(self.optimizer.name)
        if usual and self.model.weights and "lr" not in self.optimizer.model_fields_set:
            clipped = self.train.max_gradient_norm is not None
            rate = usual.of_pretrained(self.optimizer.options, head_first=bool(self.finetune), clipped=clipped)
            self.__dict__["optimizer"] = self.optimizer.at_rate(rate)
        return self

    @model_validator(mode="after")
    def _usual_of_the_task(self) -> Training:
        form = form_of(self.task.name)
        if form.loss and "name" not in self.loss.model_fields_set:
            self.__dict__["loss"] = _with(self.loss, "name", form.loss)
        if "metric" not in self.train.model_fields_set:
            self.__dict__["train"] = _with(self.train, "metric", f"validation_{form.metric}")
        return self

    def metric_entry(self, column: str) -> MetricSection | None:
        """The entry of `metrics` that measures a column of the record, such as `validation_f1`; None for loss, accuracy
        and other columns."""
        column = measured(column)
        named = [each for each in self.metrics if f"{column}_".startswith(f"{each.recorded_as}_")]
        return max(named, key=lambda each: len(each.recorded_as), default=None)

    def lower_is_better(self, column: str) -> bool:
        """Whether lower values of a column of the record are better: those of losses are, and of each of `metrics` that
        says so. Every comparison of values asks this."""
        entry = self.metric_entry(column)
        return entry.better == "lower" if entry else lower_is_better(self.task.name, measured(column))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = super().__get_pydantic_json_schema__(schema, handler)
        if cls is not Training:
            return whole
        return {"anyOf": [{"type": "string", "description": "The file of a train job."}, whole]}


def measured(column: str) -> str:
    """What a column of the record measures, without the name of its split: `accuracy` of `validation_accuracy`."""
    split = next((each for each in SPLITS if column.startswith(f"{each}_")), None)
    return column.removeprefix(f"{split}_") if split else column


def tie_breaker(column: str) -> str:
    """The loss that decides between equal values of a column of the record, the lower the better: that of the same
    rows, such as `validation_loss` of `validation_accuracy`. A loss decides between its own equals: they stay equal."""
    split = next((each for each in SPLITS if column.startswith(f"{each}_")), "validation")
    return f"{split}_loss"


def _with(section: SectionOf, field: str, value: str) -> SectionOf:
    """The section with a value that the job does not say itself."""
    found = section.model_copy()
    found.__dict__[field] = value
    return found


def seeded(base: Training, seed: int) -> Training:
    """The training with the seed of the job whose base it is, unless it says its own."""
    return base if "seed" in base.model_fields_set else base.model_copy(update={"seed": seed})


class TrainJob(Training, Job):
    """Train one network."""

    kind: Literal["train"] = Field(default="train", description="What the job does.")
