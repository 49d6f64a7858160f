"""`ensemble.json`: the members of an ensemble, their weights, and how they are combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, get_args

from lehr.ensembles import CombineBy
from lehr.errors import RunError
from lehr.runs import Folder

FILE, FORMAT = "ensemble.json", 1


@dataclass(frozen=True)
class EnsembleMember:
    """A member of an ensemble.

    Attributes:
        run: its run folder inside that of the ensemble, such as `members/02`.
        weight: its share in the combination; 0 for a member that takes no part.
    """

    run: str
    weight: float

    @property
    def name(self) -> str:
        """The last part of its folder, such as `02`."""
        return self.run.rpartition("/")[2]


@dataclass(frozen=True)
class EnsembleDescription:
    """What prediction needs to know of an ensemble besides its members' models.

    Attributes:
        by: what is averaged: `probabilities`, or `logits` before the softmax.
        members: in the order in which they are numbered.
        selection: how the weights were chosen; for display.
        learned: what the task chose on validation rows for the members together, such as thresholds.
    """

    by: CombineBy
    members: tuple[EnsembleMember, ...]
    selection: str = ""
    learned: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def exists(cls, folder: Folder) -> bool:
        """Whether the run in `folder` is a finished ensemble."""
        return folder.exists(FILE)

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """The ensemble in a run folder. Raises RunError if ensemble.json is missing, damaged or newer."""
        try:
            content = folder.read_json(FILE)
        except FileNotFoundError as error:
            raise RunError(f"{folder.uri}: not a finished ensemble (no {FILE})") from error
        number = content.get("format") if isinstance(content, dict) else None
        if type(number) is int and number > FORMAT:
            raise RunError(f"{folder.uri}/{FILE}: has format {number}, this lehr reads {FORMAT}; update lehr")
        try:
            return cls._from_json(content)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder.uri}/{FILE}: damaged: it does not describe an ensemble") from error

    def write(self, folder: Folder) -> None:
        """Replaces ensemble.json; written last, since it is what makes a run an ensemble."""
        members = [asdict(member) for member in self.members]
        content: dict[str, Any] = {"format": FORMAT, "by": self.by, "selection": self.selection, "members": members}
        content |= {"learned": dict(self.learned)} if self.learned else {}
        folder.write_json(FILE, content)

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> Self:
        if content["format"] != FORMAT or content["by"] not in get_args(CombineBy):
            raise ValueError
        members = (EnsembleMember(str(each["run"]), float(each["weight"])) for each in content["members"])
        learned = content.get("learned", {})
        if not isinstance(learned, Mapping):
            raise TypeError("what the task learned is no mapping")
        return cls(content["by"], tuple(members), str(content.get("selection", "")), learned)
