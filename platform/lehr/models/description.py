"""What prediction needs of a trained model beside its weights: `description` in the file of `model/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lehr.errors import RunError
from lehr.models.recipes import Preprocessing
from lehr.tasks.forms import TASKS
from lehr.tasks.losses import ACTIVATIONS, Activation
from lehr.trust import Call, named

DTYPES = ("float32", "float64")
"""The types of weights that lehr trains, as torch names them."""


@dataclass(frozen=True)
class NetworkDescription:
    """A network by name, as `lehr.models.build` makes it.

    Attributes:
        hidden: width of the hidden layer that its head has; None where the head is one linear layer.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    hidden: int | None = None

    @property
    def calls(self) -> list[Call]:
        """The code that makes it, if it is not a registered network."""
        return named("model", self.name, self.options)


@dataclass(frozen=True)
class ModelDescription:
    """What a trained model is.

    Attributes:
        task: what it was trained for.
        network: its architecture (`model` in the file).
        classes: the class names in label order.
        preprocess: how images are prepared, as `Preprocess.from_description` takes it.
        dtype: of the weights, as torch names it: `float32`.
        activation: what turns its outputs into probabilities, as the loss says; softmax where the file does not.
        task_options: those of the job's section `task`.
        learned: what the task has learned of its rows beside the weights, as its `state` gives it.
        origin: the step and epoch, or the run, that the weights are of (`from` in the file); for people.
        metrics: what was measured of it.
    """

    task: str
    network: NetworkDescription
    classes: tuple[str, ...]
    preprocess: Preprocessing
    dtype: str
    origin: Mapping[str, str | int | None] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    activation: Activation = "softmax"
    task_options: Mapping[str, object] = field(default_factory=dict)
    learned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calls(self) -> list[Call]:
        """The code that it needs: its network and its task, unless they are registered."""
        own = [] if self.task in TASKS else named("task", self.task, self.task_options)
        return [*self.network.calls, *own]

    @classmethod
    def from_json(cls, content: object) -> ModelDescription:
        """From the form that the file has. Raises RunError where something is missing."""
        try:
            if not isinstance(content, Mapping):
                raise TypeError("not a mapping")
            network = content["model"]
            name, options = network["name"], network.get("options", {})
            if not isinstance(name, str) or not isinstance(options, Mapping) or content["dtype"] not in DTYPES:
                raise TypeError("not a network by name, with options, of a type that lehr trains")
            if (activation := content.get("activation", "softmax")) not in ACTIVATIONS:
                raise TypeError("its outputs are of no kind that lehr knows")
            return cls(
                task=content.get("task", "classification"),
                network=NetworkDescription(name, options, network.get("hidden")),
                classes=tuple(content["classes"]),
                preprocess=content["preprocess"],
                dtype=content["dtype"],
                origin=content.get("from", {}),
                metrics=content.get("metrics", {}),
                activation=activation,
                task_options=_mapping(content.get("task_options", {})),
                learned=_mapping(content.get("learned", {})),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise RunError("model/ does not describe a model") from error

    def to_json(self) -> dict[str, Any]:
        """The form that the file has."""
        network: dict[str, object] = {"name": self.network.name, "options": dict(self.network.options)}
        if self.network.hidden:
            network["hidden"] = self.network.hidden
        return {
            "task": self.task,
            **({"task_options": dict(self.task_options)} if self.task_options else {}),
            **({"learned": dict(self.learned)} if self.learned else {}),
            "model": network,
            "classes": list(self.classes),
            "preprocess": dict(self.preprocess),
            "dtype": self.dtype,
            "activation": self.activation,
            "from": dict(self.origin),
            "metrics": dict(self.metrics),
        }


def _mapping(value: object) -> Mapping[str, Any]:
    """Raises TypeError for what is none."""
    if not isinstance(value, Mapping):
        raise TypeError("not a mapping")
    return value
