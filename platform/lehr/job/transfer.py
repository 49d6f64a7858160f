"""`kind: transfer`: a network that was pretrained on other images, adapted to these."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from lehr.errors import JobError
from lehr.job.base import Job, Seed
from lehr.job.finetune import FinetuneSection
from lehr.job.sections import (
    LOCAL_PATH,
    ModelSection,
    NamedSection,
    PreprocessingSection,
    Section,
    weights_reference,
)
from lehr.job.text import show
from lehr.job.training import Training, seeded

Strategy = Literal["features", "finetune", "scratch"]
STRATEGIES: tuple[Strategy, ...] = ("features", "finetune", "scratch")


class BackboneSection(NamedSection):
    """The pretrained network; other keys are options of the network itself."""

    short: ClassVar[str | None] = "name"

    name: str = Field(
        min_length=1,
        description="run:NAME, a run of your own; a torchvision name (resnet18), timm/NAME, or my_package.nets:Net.",
    )
    weights: Annotated[str | None, LOCAL_PATH, AfterValidator(weights_reference)] = Field(
        default=None,
        description="pretrained (the best published), pretrained:NAME, or a .pth or .safetensors file. By default "
        "pretrained; a run brings its own.",
    )
    preprocessing: PreprocessingSection | None = Field(
        default=None, description="How images are prepared. By default as for the weights."
    )


class FeaturesSection(Section):
    """Strategy features: the head is trained on features that are computed once."""

    views: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Views of each training image: the first as it is, the others augmented by base.data.augment.",
    )
    hidden: int = Field(default=0, ge=0, description="Hidden units of the head. 0: a linear head.")
    rates: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.001, 0.003, 0.01, 0.03], min_length=1, description="Learning rates of the head to try."
    )
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(
        default=[0.0, 0.3, 3.0, 10.0],
        min_length=1,
        description="Weight decays of the head to try, as AdamW defines it.",
    )
    steps: int = Field(default=500, ge=1, description="Optimizer steps of the head.")
    batch_size: int = Field(default=1024, ge=1, description="Rows per step of the head.")


def _strategies(value: Any) -> Literal["auto"] | list[Strategy]:
    if value == "auto":
        return "auto"
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(name in STRATEGIES for name in names):
        return list(dict.fromkeys(names))
    raise ValueError(f"{show(value)} is not a strategy; allowed: auto, {', '.join(STRATEGIES)}, or a list of them")


StrategyChoice = Annotated[
    Literal["auto"] | list[Strategy],
    BeforeValidator(_strategies, json_schema_input_type=Literal["auto"] | Strategy | list[Strategy]),
]


def _is_usual(model: Any) -> bool:
    """Whether a model section says nothing, as in the job of a run, in which every default is written down."""
    try:
        return ModelSection.model_validate(model) == ModelSection()
    except ValidationError:
        return False


class TransferJob(Job):
    """Adapt a pretrained network to new images: by its features, by fine-tuning it, or by the better of them."""

    kind: Literal["transfer"] = Field(default="transfer", description="What the job does.")
    seed: Seed = Field(
        default=0, description="Seed of everything random in the trainings, unless base has one of its own."
    )
    backbone: BackboneSection = Field(description="The pretrained network.")
    strategy: StrategyChoice = Field(
        default="auto",
        description="features: freeze it and train a head; finetune: train it further; scratch: the same network "
        "without its weights; auto: what the amount of data and its similarity to the pretraining suggest, decided on "
        "validation rows. A list tries several.",
    )
    base: Training = Field(
        default=Training(), description="The data, and the training for fine-tuning and from scratch: a train job."
    )
    features: FeaturesSection = Field(default=FeaturesSection(), description="How strategy features trains its head.")
    finetune: FinetuneSection = Field(default=FinetuneSection(), description="How strategy finetune trains.")
    compare_scratch: bool = Field(
        default=False,
        description="Also train from scratch, for the report, where that is none of the strategies to choose from. It "
        "takes as long as fine-tuning.",
    )
    images_per_class: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="Also try the strategies with only this many training images of each class."
    )

    @model_validator(mode="before")
    @classmethod
    def _network_is_said_in_backbone(cls, value: Any) -> Any:
        base = value.get("base") if isinstance(value, dict) else None
        for at, holder in (("model", value), ("base.model", base)):
            said = holder.get("model") if isinstance(holder, dict) else None
            if said is not None and not _is_usual(said):
                whole = said if isinstance(said, dict) else {"name": said}
                typed = " ".join(f"backbone.{key}={show(each).strip(chr(34))}" for key, each in whole.items())
                raise JobError(f"the network of a transfer is its backbone; type {typed}", field=at)
        return value

    @model_validator(mode="after")
    def _base_has_the_seed(self) -> TransferJob:
        self.__dict__["base"] = seeded(self.base, self.seed)
        return self

    @model_validator(mode="after")
    def _fine_tuning_is_beside_base(self) -> TransferJob:
        if self.base.finetune is not None:
            raise ValueError("base.finetune: fine-tuning is set in finetune, beside base; remove it from base")
        return self
