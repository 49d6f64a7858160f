"""`transfer.json`: what was measured before the trials, which strategies are tried, and which one was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from lehr.errors import RunError
from lehr.job.transfer import Strategy
from lehr.runs import Folder
from lehr.transfer.similarity import Similarity
from lehr.transfer.strategies import Advice

FILE = "transfer.json"


@dataclass(frozen=True)
class TransferDecision:
    """How a transfer chooses its strategy: written before the trials, and again once a strategy is chosen.

    Attributes:
        train_rows, validation_rows: the number of images in these splits.
        classes: the class names.
        seconds_per_image: seconds to compute the features of one image; 0 if none were computed.
        candidates: the strategies to choose from, in the order of the rule of thumb.
        advice, similarity: what was measured and suggested; None if no features were needed.
        chosen: the strategy that was kept; None before the trials ended.
        why: the reason for the choice, as a sentence.
        called: what the chosen one is: `fine-tuning`, or `head only` where its kept model is of an epoch before the
            body was trained. Empty before there is a choice, and in earlier runs.
        test_rows: the number of test images; 0 if there are none, or it is not known.
    """

    train_rows: int
    validation_rows: int
    classes: tuple[str, ...]
    seconds_per_image: float
    candidates: tuple[Strategy, ...]
    advice: Advice | None = None
    similarity: Similarity | None = None
    chosen: Strategy | None = None
    why: str = ""
    called: str = ""
    test_rows: int = 0

    @property
    def images_per_class(self) -> float:
        """The mean number of training images per class."""
        return self.train_rows / len(self.classes)

    @classmethod
    def read(cls, folder: Folder) -> Self | None:
        """The decision of the run in `folder`; None before its trials. Raises RunError if the file is damaged."""
        try:
            return cls._from_json(folder.read_json(FILE))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{folder.uri}/{FILE}: damaged; start over with --fresh") from error

    def write(self, folder: Folder) -> None:
        """Replaces transfer.json. `chosen` and `why` are there once there is a choice."""
        content = asdict(self)
        if found := self.similarity:
            content["similarity"] |= {"gain": found.gain, "similar": found.similar, "sure": found.conclusive}
        if self.chosen is None:
            del content["chosen"], content["why"], content["called"]
        folder.write_json(FILE, content)

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> Self:
        advice, similarity = content["advice"], content["similarity"]
        return cls(
            train_rows=content["train_rows"],
            validation_rows=content["validation_rows"],
            classes=tuple(content["classes"]),
            seconds_per_image=content["seconds_per_image"],
            candidates=tuple(content["candidates"]),
            advice=None if advice is None else Advice(**{**advice, "candidates": tuple(advice["candidates"])}),
            similarity=None
            if similarity is None
            else Similarity(*(similarity[name] for name in ("pretrained", "random", "rows", "error"))),
            chosen=content.get("chosen"),
            why=content.get("why", ""),
            called=content.get("called", ""),
            test_rows=content.get("test_rows", 0),
        )
