"""The sections of a job file: one typed, frozen class per concern; each field has its unit and a default that works.

Validators raise ValueError with what was there and what is allowed; `lehr.job.messages` makes it a sentence that says
where.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from lehr.durations import Duration
from lehr.errors import JobError
from lehr.job.sources import SOURCES, source_form
from lehr.job.text import not_a_choice, show
from lehr.tasks.forms import TASKS, USUAL
from lehr.usual import usual_of

LOCAL_PATH = "local path"
"""Marks a field whose text is made absolute when a job is built, relative to the file that sets it."""
NO_PATHS = ("auto", "none", "pretrained")
"""Words that such a field may hold instead of a path."""


class Section(BaseModel):
    """The base of all sections: unknown keys are errors, `null` means the default, and there may be a short form.

    `short` names the key that a bare value stands for: `optimizer: adam` is `optimizer: {name: adam}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)
    short: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if cls.short and isinstance(value, str | int | float):
            return {cls.short: value}
        if isinstance(value, dict):
            known = value if cls.model_config["extra"] == "allow" else cls.model_fields
            return {key: item for key, item in value.items() if item is not None or key not in known}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(schema)
        if not cls.short:
            return whole
        bare = handler.resolve_ref_schema(whole)["properties"][cls.short]
        return {"anyOf": [{key: bare[key] for key in ("type", "anyOf") if key in bare}, whole]}


def _plain(value: Any) -> Any:
    """A free option: what YAML can hold, which is text, finite numbers, true, false, null, lists and mappings."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{show(value)} is not a finite number")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{show(value)} is not a plain value; allowed: text, numbers, true, false, lists and mappings")


class NamedSection(Section):
    """A name and its free options; a bare name is enough. What is named decides which options there are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_plain)]] = Field(init=False)
    short: ClassVar[str | None] = "name"

    name: str = Field(min_length=1, description="A registered name, or my_package.module:name.")

    @property
    def options(self) -> dict[str, Any]:
        """The free options, without the fields that every section of this kind has."""
        return dict(self.__pydantic_extra__)


class TaskSection(NamedSection):
    """What is learned; other keys are options of the task itself."""

    name: str = Field(
        default=USUAL,
        min_length=1,
        description=f"{', '.join(TASKS)}, or my_package.tasks:Task, a subclass of lehr.tasks.base.Task.",
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in TASKS and ":" not in name:
            raise ValueError(not_a_choice(name, "task", [*TASKS, "my_package.tasks:Task"]))
        return name


class Augment(NamedSection):
    """One augmentation of the training images with its options, such as `shift` or `{name: shift, pixels: 2}`."""


def _source(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.-]*(:[\w.-]+)?", value, re.ASCII) and source_form(value):
        return value
    raise ValueError(not_a_choice(value, "data source", SOURCES))


def _number(value: Any) -> float | None:
    """A number or a percentage as a number; None for anything else."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([-+]?\d*\.?\d+)\s*(%?)\s*", value, re.ASCII)):
        return float(match[1]) / (100 if match[2] else 1)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _share_or_path(value: Any) -> float | str:
    share = _number(value)
    if share is not None and 0 < share < 1:
        return share
    if isinstance(value, str) and value and share is None:
        return value
    raise ValueError(f"{show(value)} is not a share or a path; allowed: above 0 and below 1 (0.2 or 20%), or a path")


def _fold(value: Any) -> str:
    found = re.fullmatch(r"([1-9][0-9]{0,2})/([1-9][0-9]{0,2})", value, re.ASCII) if isinstance(value, str) else None
    if found and 2 <= int(found[2]) >= int(found[1]):
        return found[0]
    raise ValueError(f"{show(value)} is not a fold; allowed: which one of how many, such as 1/5, 2/5 to 5/5")


FOLDER = "folder"
"""What `data.group` is where the folder that holds a file says what its rows share."""


def wrong_pattern(group: str) -> str:
    """What is wrong with what groups files; empty if nothing is."""
    allowed = "allowed: folder, or a regular expression with parentheses around what the rows share, as '(p[0-9]+)_'"
    try:
        found = group == FOLDER or re.compile(group).groups == 1
    except re.error as error:
        return f"{show(group)} is not a regular expression ({error}); {allowed}"
    return "" if found else f"{show(group)} has not one pair of parentheses; {allowed}"


def _small_share(value: Any) -> float:
    share = 0.0 if value == 0 or value == "0%" else _number(value)
    if share is not None and 0 <= share < 1:
        return share
    raise ValueError(f"{show(value)} is not a share; allowed: from 0 to below 1 (0.01 or 1%)")


def _image_size(value: Any) -> int | tuple[int, int]:
    sides = value if isinstance(value, list | tuple) else [value, value]
    if len(sides) == 2 and all(type(side) is int and side >= 1 for side in sides):
        return (sides[0], sides[1]) if sides is value else sides[0]
    raise ValueError(f"{show(value)} is not an image size; allowed: pixels (32) or [height, width] ([32, 48])")


def _channels(value: Any) -> Literal["auto"] | int:
    if value == "auto" or (type(value) is int and value in (1, 3, 4)):
        return "auto" if value == "auto" else value
    raise ValueError(f"{show(value)} is not a number of channels; allowed: auto, 1, 3, 4")


def _pixel_range(value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, list | tuple) else []
    if len(ends) == 2 and all(type(end) in (int, float) and math.isfinite(end) for end in ends) and ends[0] < ends[1]:
        return float(ends[0]), float(ends[1])
    raise ValueError(f"{show(value)} is not a range of values; allowed: [BLACK, WHITE], such as [0, 4095]")


Channels = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_channels, json_schema_input_type=Literal["auto", 1, 3, 4]),
]
PixelRange = Annotated[tuple[float, float], BeforeValidator(_pixel_range, json_schema_input_type=list[float])]
SmallShare = Annotated[float, BeforeValidator(_small_share, json_schema_input_type=float | str)]
SourceName = Annotated[str, BeforeValidator(_source, json_schema_input_type=str)]
ShareOrPath = Annotated[float | str, BeforeValidator(_share_or_path, json_schema_input_type=float | str)]
ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_image_size, json_schema_input_type=int | list[int])]


class ColumnsSection(Section):
    """Which columns of the data hold what, where their names do not say so."""

    image: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the images: encoded files, pixels, paths or addresses; of tar shards, an ending such as "
        "png. By default the only one that can be.",
    )
    label: str | list[str] | None = Field(
        default=None,
        min_length=1,
        description="Column of the labels: one, or one for each class (0 or 1) or number. By default label or labels, "
        "else the only one that can be.",
    )

    @field_validator("label")
    @classmethod
    def _are_different(cls, label: str | list[str] | None) -> str | list[str] | None:
        if isinstance(label, list) and (not all(label) or len(set(label)) < len(label)):
            raise ValueError(f"{show(label)} names a column twice, or none; allowed: different columns")
        return label


class DataSection(Section):
    """Where the rows come from, how they are split, and how the training images are varied."""

    source: SourceName = Field(
        default="digits",
        description=f"{', '.join(SOURCES)}. By default auto where there is a path: the form of the data is found by "
        "looking at them; else digits.",
    )
    path: Annotated[str | None, LOCAL_PATH] = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="Folder or file of the source, several files (train-*.parquet, {000..009}.tar), or s3://…, gs://….",
    )
    columns: ColumnsSection = Field(
        default=ColumnsSection(),
        validate_default=True,
        description="Which columns hold the images and the labels, such as {image: photo, label: species}.",
    )
    validation: Annotated[ShareOrPath, LOCAL_PATH] = Field(
        default="auto",
        description="Share of the rows to hold out, stratified by class (0.2 or 20%), or a path to more of the source. "
        "auto: the source's own validation split, else 0.2.",
    )
    test: Annotated[str, LOCAL_PATH] = Field(
        default="auto",
        min_length=1,
        description="Path to rows of the source that are evaluated once, at the end. auto: the source's own test "
        "split, if it has one. none: no test.",
    )
    augment: list[Augment] = Field(default=[], description="Augmentations of the training images, in order.")
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Train on only this many rows, drawn by the seed; validation and test keep all of theirs. By "
        "default all.",
    )
    classes: list[str] | None = Field(
        default=None, min_length=2, description="Use only the rows of these classes. By default all."
    )
    per_class: int | None = Field(
        default=None, ge=1, description="Train on only this many rows of each class, drawn by the seed. By default all."
    )
    split_seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split and of limit, for runs of several seeds on the same rows. By default the job's.",
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        description="Column of a table or of Parquet files that says of each row: train, validation or test. By "
        "default split, where there is such a column. none: all rows together, whatever a column says.",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="What rows share that must not be in two splits, such as a patient: a column; of Parquet files "
        "also file; of images folder, the folder that holds a file, or a regular expression for its path with "
        "parentheses around what they share: '(p[0-9]+)_'. By default each row is for itself.",
    )
    stratify: Literal["auto", "labels", "none"] = Field(
        default="auto",
        description="labels: the same share of each class in every split, of each of several classes, or of small and "
        "large numbers; none: drawn without a look at labels. auto: by class, where a row has one, and with folds by "
        "all labels.",
    )
    fold: Annotated[str, BeforeValidator(_fold)] | None = Field(
        default=None,
        description="2/5: validate on the second of five parts, and train on the others. By default on one share.",
    )
    image_size: ImageSize | None = Field(
        default=None,
        description="In pixels: one side or [height, width]. By default the size that published weights want, else "
        "that in the source. Images with boxes or masks are letterboxed into it: proportions kept, grey beside them.",
    )
    channels: Channels = Field(
        default="auto",
        description="1: grey; 3: red, green and blue; 4: with transparency, which is left out otherwise. All images "
        "are converted. auto: 3 if any training image is in colour, else 1.",
    )
    pixel_range: PixelRange | None = Field(
        default=None,
        description="[BLACK, WHITE]: the values in the files that become black and white. By default those of the "
        "images' depth, such as 0 and 65535 of 16 bits, and 0 and 1 of floats; other values need it.",
    )
    decode: Literal["full", "scaled"] = Field(
        default="full",
        description="scaled: JPEG files that are at least twice as large as what they are resized to are decoded to a "
        "half, a quarter or an eighth of their sides, and then resized: faster, with slightly other pixels. full: as "
        "they are.",
    )
    skip_unreadable: SmallShare = Field(
        default=0.01, description="Share of the images that may be unreadable; they are skipped, named and counted."
    )
    cache: Literal["auto", "memory", "device", "stream"] = Field(
        default="auto",
        description="memory: keep the decoded images in shared memory; device: in each GPU's memory too, for small "
        "data sets and fast networks (without a GPU: memory); stream: decode them when they are needed. auto: memory, "
        "if they fit.",
    )
    shards: int = Field(
        default=16,
        ge=1,
        le=65536,
        description="Data shards of streamed images: each batch takes as many rows from each, and workers divide them "
        "among themselves, so that the batches are the same for any number of workers. Where the number of workers "
        "divides it, each worker reads its own part of the data. Fewer are used where the data have few parts.",
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description="Rows of an epoch. shuffle: each row once; balanced: as many rows, every class equally often.",
    )

    @field_validator("validation", "test")
    @classmethod
    def _a_word_that_has_a_meaning(cls, value: float | str, info: ValidationInfo) -> float | str:
        if value == "pretrained" or (value == "none" and info.field_name == "validation"):
            allowed = (
                "auto, a share (0.2 or 20%), or a path" if info.field_name == "validation" else "auto, none, a path"
            )
            raise ValueError(f"{show(value)} means nothing here; allowed: {allowed}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _looked_at_where_there_is_a_path(cls, given: Any) -> Any:
        """A path without a source is looked at. `labels` is what `columns.label` was called."""
        if not isinstance(given, dict):
            return given
        found = dict(given)
        if found.get("path") is not None and "source" not in found:
            found["source"] = "auto"
        columns = found.get("columns") or {}
        if "labels" in found and isinstance(columns, dict) and "label" not in columns:
            labels = found.pop("labels")
            found |= {} if labels is None else {"columns": {**columns, "label": labels}}
        return found

    @field_validator("columns")
    @classmethod
    def _columns_fit_source(cls, columns: ColumnsSection, info: ValidationInfo) -> ColumnsSection:
        source = info.data.get("source", "")
        form = source_form(source)
        if columns != ColumnsSection() and form and not form.labels:
            named = ", ".join(name for name, each in SOURCES.items() if each.labels)
            raise ValueError(f"the source {source} has no columns; allowed with: {named}")
        return columns

    @field_validator("split", "group")
    @classmethod
    def _split_and_group_fit_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        form = source_form(info.data.get("source", ""))
        if value is None or not form:
            return value
        with_columns = [name for name, each in SOURCES.items() if each.labels and not each.needs_ray]
        if info.field_name == "split" and (not form.labels or form.needs_ray):
            named = ", ".join(with_columns)
            raise ValueError(f"the source {info.data['source']} has no columns; allowed with: {named}")
        if info.field_name == "group" and (form.needs_ray or not (form.labels or form.files)):
            named = ", ".join([*with_columns, *(name for name, each in SOURCES.items() if each.files)])
            what = f"the source {info.data['source']} has neither columns nor files to group its rows by"
            raise ValueError(f"{what}; allowed with: {named}")
        if info.field_name == "group" and not form.labels and (problem := wrong_pattern(value)):
            raise ValueError(problem)
        return value

    @property
    def fold_of(self) -> tuple[int, int] | None:
        """Which fold validates, from 1, and how many there are; None without folds."""
        number, _, count = (self.fold or "").partition("/")
        return (int(number), int(count)) if self.fold else None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that `columns.label` names; none where it names none."""
        label = self.columns.label
        return (label,) if isinstance(label, str) else tuple(label or ())

    @field_validator("path")
    @classmethod
    def _path_fits_source(cls, path: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source", "")
        form = source_form(source)
        if form and form.path == "none" and path is not None:
            raise ValueError(f"the source {source} comes with lehr and takes no path; did you mean source: images?")
        if form and form.path == "required" and path is None:
            raise ValueError(f"is missing; the source {source} needs the path of its data")
        return path


START_FROM_PRETRAINED = "model.name=resnet18 model.weights=pretrained"
"""What to type to start from published weights; in a job file, `model: {name: resnet18, weights: pretrained}`. Without
internet access the error says what to download, and to type `model.weights=path/to/FILE.pth` instead."""
WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors", ".pth.tar", ".ckpt")


def weights_reference(value: str | None) -> str | None:
    """The reference itself. Raises ValueError for one that cannot be weights to start from."""
    endings = "|".join(map(re.escape, WEIGHT_FILES))
    if value is None or re.fullmatch(rf"run:.+|pretrained(:\w+)?|.+({endings})", value, re.DOTALL):
        return value
    allowed = f"run:NAME, pretrained, pretrained:NAME or a file that ends in {', '.join(WEIGHT_FILES)}"
    raise ValueError(f"{show(value)} is not a valid weights reference; allowed: {allowed}")


def _per_channel(value: Any) -> list[float]:
    numbers = value if isinstance(value, list | tuple) else [value]
    fine = all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in numbers)
    if fine and len(numbers) in (1, 3, 4):
        return [float(each) for each in numbers]
    raise ValueError(f"{show(value)} is not one number, or one for each of 1, 3 or 4 channels; such as 0.5")


def _resize(value: Any) -> int | Literal["squash"]:
    if value == "squash" or (type(value) is int and value >= 1):
        return "squash" if value == "squash" else value
    raise ValueError(f"{show(value)} is not a way to resize; allowed: pixels of the shorter side (256), or squash")


PerChannel = Annotated[list[float], BeforeValidator(_per_channel, json_schema_input_type=float | list[float])]
Resize = Annotated[int | Literal["squash"], BeforeValidator(_resize, json_schema_input_type=int | Literal["squash"])]


class PreprocessingSection(Section):
    """How images are prepared for the weights: as they were when the weights were made. What is not said here is what
    torchvision, timm, the file or the run says of the weights; a line at the start says what, and what was guessed."""

    mean: PerChannel | None = Field(
        default=None,
        description="Subtracted from each channel: one number, or one for each. By default that of the weights, else "
        "that of the training rows.",
    )
    std: PerChannel | None = Field(
        default=None, description="What each channel is divided by after that: one number, or one for each. With mean."
    )
    range: PixelRange | None = Field(
        default=None,
        description="[BLACK, WHITE]: what black and white are in the unit of mean and std, such as [0, 255]. By "
        "default [0, 1].",
    )
    resize: Resize | None = Field(
        default=None,
        description="Pixels that the shorter side is resized to before the middle is cut out; squash: both sides are "
        "resized to crop or data.image_size, whatever that does to the proportions; without either, images keep their "
        "size. By default as for the weights, else squash.",
    )
    crop: ImageSize | None = Field(
        default=None,
        description="What is cut out of the middle, the network's input, in pixels: one side or [height, width]. By "
        "default data.image_size, else that of the weights.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        default=None, description="How pixels are resized. By default as for the weights, else bilinear."
    )

    @model_validator(mode="after")
    def _one_scale(self) -> PreprocessingSection:
        low, high = self.range or (0.0, 1.0)
        if (self.mean is None) != (self.std is None):
            there, missing = ("mean", "std") if self.std is None else ("std", "mean")
            raise ValueError(f"{there} needs {missing} beside it; set both, or neither")
        if self.mean is None or self.std is None:
            if self.range is not None:
                raise ValueError("range is the unit of mean and std, which are not set; set them, or remove it")
            return self
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError(f"mean is of {len(self.mean)} channels and std of {len(self.std)}; allowed: the same")
        hint = "; set range: [0, 255], if that is what white is" if self.range is None else "; correct one of them"
        if any(not low <= each <= high for each in self.mean):
            raise ValueError(f"mean {show(self.mean)} is not within range, {low:g} to {high:g}{hint}")
        if any(each * 255.5 < high - low for each in self.std):  # less than one step of 8 bits
            raise ValueError(f"std {show(self.std)} is too small for range, {low:g} to {high:g}; correct one of them")
        return self


class ModelSection(NamedSection):
    """The network; other keys are options of the network itself."""

    name: str = Field(
        default="small_cnn", min_length=1, description="A registered, torchvision or timm name, or my_package.nets:Net."
    )
    weights: Annotated[str | None, LOCAL_PATH, AfterValidator(weights_reference)] = Field(
        default=None,
        description="Weights to start from: run:NAME; pretrained, the best that torchvision or timm has for this "
        "network, or pretrained:IMAGENET1K_V1; or a .pth or .safetensors file. By default random, by the seed.",
    )
    preprocessing: PreprocessingSection | None = Field(
        default=None, description="How images are prepared. By default as for the weights."
    )


def _class_weights(value: Any) -> Literal["none", "balanced"] | list[float]:
    for choice in ("none", "balanced"):
        if value == choice:
            return choice
    weights = value if isinstance(value, list | tuple) else []
    if weights and all(type(weight) in (int, float) and 0 <= weight < math.inf for weight in weights):
        return [float(weight) for weight in weights]
    allowed = "none, balanced, or a list with a number from 0 for each class"
    raise ValueError(f"{show(value)} is not a set of class weights; allowed: {allowed}")


_WeightsForm = Literal["none", "balanced"] | list[float]
ClassWeights = Annotated[_WeightsForm, BeforeValidator(_class_weights, json_schema_input_type=_WeightsForm)]


class LossSection(NamedSection):
    """What is minimised; other keys are options of the loss itself. `validation_loss` is the same loss, without label
    smoothing and class weights."""

    name: str = Field(
        default="cross_entropy",
        min_length=1,
        description="cross_entropy, focal, bce or poly, or my_package.module:name: a function (outputs, targets, "
        "**options) that returns the loss of each row, or its mean; or an nn.Module class made with the options.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each target spread evenly over all classes, for a loss that has this parameter.",
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="none, balanced (by inverse frequency), or the weight of each class, for a loss that has this "
        "parameter.",
    )


class MetricSection(NamedSection):
    """A metric that is measured on every evaluated split besides loss and accuracy; other keys are its own options."""

    name: str = Field(
        min_length=1,
        description="top_k_accuracy, balanced_accuracy, per_class_accuracy, precision, recall or f1; a class of "
        "torchmetrics, such as F1Score; or my_package.module:name: a function (outputs, targets, **options) of a whole "
        "split, or a class with update and compute.",
    )
    label: str | None = Field(
        default=None,
        min_length=1,
        max_length=60,
        description="Name in the record, after that of the split: validation_LABEL. By default its own.",
    )
    better: Literal["higher", "lower"] | None = Field(
        default=None,
        description="Which values are better. By default what the metric itself says (higher_is_better).",
    )

    @field_validator("label")
    @classmethod
    def _whole_label(cls, label: str | None) -> str | None:
        if label is not None and not re.fullmatch(r"[A-Za-z0-9_]+", label, re.ASCII):
            raise ValueError(f"{show(label)} is not a label; allowed: letters, digits and underscores")
        return label

    @property
    def recorded_as(self) -> str:
        """Its name in the record: its label, else its name in lower case with underscores."""
        name = re.split(r"[:.]", self.name)[-1]
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
        return self.label or name.replace("top_k_", f"top_{self.options.get('k', 5)}_")


class CallbackSection(NamedSection):
    """A callback with its options: `my_package.module:Name`, an object with some methods of the protocol."""

    @field_validator("name")
    @classmethod
    def _is_code(cls, name: str) -> str:
        if ":" not in name:
            raise ValueError(f"{show(name)} is not a callback; allowed: my_package.module:Name")
        return name


class ScaleRate(Section):
    """The linear scaling rule: with a batch k times as large the learning rate is k times as high, after a warmup."""

    base_batch: int = Field(default=256, ge=1, description="The global batch that optimizer.lr is meant for, in rows.")
    warmup: Duration = Field(
        default=Duration(5, "ep"), description="Linear rise from lr to the scaled rate, if that is higher. A duration."
    )


class OptimizerSection(NamedSection):
    """How the weights are updated; other keys (momentum, betas) are options of the optimizer itself."""

    name: str = Field(
        default="sgd",
        min_length=1,
        description="An optimizer of torch.optim (sgd, adam, adamw, …), lamb, lars, muon, one of timm's as "
        "timm/NAME, or my_package.module:Name, a torch.optim.Optimizer.",
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Base learning rate; the schedule multiplies it. By default the usual one of this optimizer: 0.1 "
        "for sgd, 0.001 for adam and adamw, and a tenth of it with model.weights (of sgd without momentum "
        "0.1 too, unless finetune is set without train.max_gradient_norm); for one that lehr has no usual rate of, "
        "the default of its constructor.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay, as the optimizer itself defines it.")
    decay_norms: bool = Field(default=False, description="Whether weight decay also acts on norms and biases.")
    scale_lr: ScaleRate | None = Field(default=None, description="By default lr does not depend on the batch size.")

    @model_validator(mode="after")
    def _usual_values(self) -> OptimizerSection:
        usual = usual_of(self.name)
        if self.lr is None and usual:
            self.__dict__["lr"] = usual.rate
        if usual:
            self.__pydantic_extra__.update({key: v for key, v in usual.options.items() if key not in self.options})
        return self

    @property
    def rate(self) -> float:
        """The learning rate.

        Raises:
            JobError: the job says none, and this optimizer has no usual one.
        """
        if self.lr is None:
            what = f"is missing, and {self.name} has no usual rate; write optimizer.lr=0.001"
            raise JobError(what, field="optimizer.lr")
        return self.lr

    def at_rate(self, rate: float) -> OptimizerSection:
        """The same with another learning rate, one that the job does not say itself."""
        found = self.model_copy()
        found.__dict__["lr"] = rate
        return found


class EarlyStopping(Section):
    """Stop when the metric has not improved for a while."""

    patience: int = Field(default=5, ge=1, description="Epochs without improvement before training stops.")
    min_change: float = Field(
        default=0.0, ge=0, description="Smallest change that is an improvement, in the metric's unit."
    )
    metric: str | None = Field(default=None, min_length=1, description="What to watch. By default train.metric.")


class Averaging(Section):
    """An average of the weights, kept beside them: `ema`, exponential, or `swa`, the mean over the end of the run."""

    short: ClassVar[str | None] = "kind"

    kind: Literal["ema", "swa"] = Field(default="ema", description="ema: exponential moving average; swa: plain mean.")
    decay: float | None = Field(
        default=None, gt=0, lt=1, description="ema: share of the average kept at each optimizer step. By default 0.999."
    )
    start: Duration | None = Field(default=None, description="swa: when the average begins. By default 75%.")
    every: Duration | None = Field(default=None, description="swa: how often the weights are added. By default 1ep.")
    statistics_rows: int | None = Field(
        default=None, ge=1, description="swa: training rows for recomputing batch-norm statistics. By default 10000."
    )

    @model_validator(mode="after")
    def _options_of_the_kind(self) -> Averaging:
        wrong = ("start", "every", "statistics_rows") if self.kind == "ema" else ("decay",)
        for name in wrong:
            if getattr(self, name) is not None:
                other = "swa" if self.kind == "ema" else "ema"
                raise ValueError(f"{name} belongs to {other}, not to {self.kind}; did you mean kind: {other}?")
        return self


class CheckpointSection(Section):
    """When checkpoints are written and how many are kept."""

    every: Duration = Field(default=Duration(1, "ep"), description="A duration: 1ep, 500step or 10%.")
    keep: int = Field(default=2, ge=1, description="How many of the newest checkpoints are kept, besides the best.")
    snapshots: bool = Field(
        default=False, description="Also keep one from the end of every cycle of a cyclic schedule."
    )

    @field_validator("every")
    @classmethod
    def _takes_time(cls, every: Duration) -> Duration:
        if not every:
            raise ValueError("0 is too short; allowed: a duration above 0, such as 1ep, 500step or 10%")
        return every


def _auto_or_not(value: Any) -> Literal["auto"] | bool:
    if isinstance(value, bool):
        return value
    if value == "auto":
        return "auto"
    raise ValueError(f"{show(value)} is not a choice; allowed: auto, true, false")


AutoOrNot = Annotated[
    Literal["auto"] | bool, BeforeValidator(_auto_or_not, json_schema_input_type=Literal["auto"] | bool)
]


def _compile(value: Any) -> bool | str:
    if isinstance(value, bool) or value == "reduce-overhead":
        return value if isinstance(value, bool) else "reduce-overhead"
    raise ValueError(f"{show(value)} is not a choice; allowed: true, false, reduce-overhead")


Compile = Annotated[
    bool | Literal["reduce-overhead"],
    BeforeValidator(_compile, json_schema_input_type=bool | Literal["reduce-overhead"]),
]


class TrainSection(Section):
    """How long and how to train."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(default=128, ge=1, description="Global batch: rows per optimizer step, over all workers.")
    early_stopping: EarlyStopping | None = Field(default=None, description="By default training runs all its epochs.")
    averaging: Averaging | None = Field(
        default=None,
        description="By default weights are not averaged. With metric: averaged_validation_accuracy the run's model is "
        "the average in its best epoch.",
    )
    metric: str = Field(
        default="validation_accuracy",
        min_length=1,
        description="Decides which checkpoint is the best: a split and what is measured on it. The loss is minimised, "
        "accuracy is maximised, and each of `metrics` knows which is better. Of equal values, that with the lower loss "
        "on the same rows is the best. By default what the task names: "
        "validation_accuracy of classification.",
    )
    precision: Literal["fp32", "fp64", "bf16", "fp16"] = Field(
        default="fp32", description="Floating-point type of the forward pass."
    )
    checkpoint: CheckpointSection = Field(default=CheckpointSection(), description="When checkpoints are written.")
    max_gradient_norm: float | None = Field(
        default=None,
        gt=0,
        description="Largest gradient norm; larger gradients are scaled down to it. By default no limit.",
    )
    gradient_accumulation: int = Field(
        default=1,
        ge=1,
        description="In how many parts each global batch is computed, one after the other, to save memory. The result "
        "is that of the whole batch, except that batch norm has the statistics of each part.",
    )
    channels_last: AutoOrNot = Field(
        default="auto",
        description="Memory layout of images and convolutions. auto: channels last, which is faster on GPUs and CPUs.",
    )
    compile: Compile = Field(
        default=False,
        description="torch.compile of the network and, on GPUs, of the augmentation: a slower start, faster steps. "
        "reduce-overhead: its mode that replays a whole pass as one CUDA graph, for a small network on one GPU that "
        "waits for Python.",
    )
    sync_batch_norm: bool = Field(
        default=True, description="Batch norm over the global batch, so that the number of workers changes nothing."
    )
    evaluated_training_rows: int = Field(
        default=1024,
        ge=0,
        description="How many training rows, always the same, are evaluated like validation rows. 0: none.",
    )
    stop_on: list[Literal["diverged", "not_learning"]] = Field(
        default=[], description="Diagnoses that end the run as soon as they are clear: diverged, not_learning."
    )

    @model_validator(mode="after")
    def _one_part_per_graph(self) -> TrainSection:
        if self.compile == "reduce-overhead" and self.gradient_accumulation > 1:
            what = "overwrites the gradients of a batch's earlier parts"
            raise ValueError(
                f"compile: reduce-overhead {what}; allowed with gradient_accumulation: 1, or compile: true"
            )
        return self


def _count(value: Any) -> Literal["auto"] | int | tuple[int, int]:
    if value == "auto":
        return "auto"
    ends = value if isinstance(value, list | tuple) else [value, value]
    if len(ends) == 2 and all(type(end) is int and end >= 1 for end in ends) and ends[0] <= ends[1]:
        return (ends[0], ends[1]) if ends is value else ends[0]
    allowed = "auto, a whole number from 1, or [min, max] with 1 <= min <= max"
    raise ValueError(f"{show(value)} is not a number of workers; allowed: {allowed}")


WorkerCount = Annotated[
    Literal["auto"] | int | tuple[int, int],
    BeforeValidator(_count, json_schema_input_type=Literal["auto"] | int | list[int]),
]


class WorkersSection(Section):
    """The processes that train together: `auto`, how many, or a mapping with the resources of each."""

    short: ClassVar[str | None] = "count"

    count: WorkerCount = Field(
        default="auto",
        description="How many, or [min, max] for an elastic run. auto: one per GPU, else one on all cores.",
    )
    gpus: float = Field(default=0.0, ge=0, description="GPUs per worker; a share of one is allowed.")
    cpus: float | None = Field(
        default=None, gt=0, description="CPU cores per worker. By default an even share of the machine."
    )
    retries: int = Field(default=3, ge=0, description="Restarts after a lost worker before the run fails.")
