"""The task: labels are the captions of each row, values the sentence that was found, with its probability.

Values are float [rows, 1 + longest]: the natural logarithm of the sentence's probability, then the numbers of its
words, 0 after its end. Labels are `Ragged` bytes, see `lehr.tasks.caption_text`. A row may have several captions: in
each epoch it learns one of them, drawn from (seed, epoch, row); its loss in evaluation is the mean over all of them,
and what is said of it is compared with all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.tasks.base import Learned, Task
from lehr.tasks.caption_text import from_bytes, measured, to_bytes, words_of
from lehr.tasks.captioning.measures import Words, bleu, cider, exact, word_errors
from lehr.tasks.captioning.network import Captioner
from lehr.tasks.captioning.vocabulary import END, FIRST, MARKS, START, Vocabulary
from lehr.tasks.forms import LabelKind
from lehr.tasks.losses import Activation

DECODERS = ("transformer", "lstm")
LONGEST = 60
"""Words of a sentence at most, where the job does not say."""
MOST_COMPARED = 5_000
"""Training rows, evenly spaced, that tell what the most frequent caption reaches."""
MOST_LINES = 40
"""Words in the table of the report."""
MOST_SHOWN = 2
"""True captions beside a prediction."""


class Sentences(NamedTuple):
    """The words of all captions of a batch.

    Attributes:
        given: int64 [sentences, length], what the network reads: the start, then the words.
        wanted: the same, what it is to say: the words, then the end.
        counts: bool, which of these there are.
        row_of: int64 [sentences], the row of each.
    """

    given: Tensor
    wanted: Tensor
    counts: Tensor
    row_of: Tensor


@dataclass(frozen=True)
class Settings:
    """What a job says of the network, in the order of the task's options."""

    decoder: str = "transformer"
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0
    longest: int = LONGEST
    beam: int = 3
    length_penalty: float = 0.0


@dataclass(frozen=True)
class Captioning(Task[Any]):
    """Sentences.

    Attributes:
        vocabulary: the words it knows, of the training rows.
        settings: of its network, and of how sentences are made.
        label_smoothing: share of the probability that is spread over all words while it learns.
        guess: BLEU-4 of the most frequent caption, told of every training row.
        cut: captions of the training rows that are longer than its longest sentence.
    """

    labels: ClassVar[LabelKind] = "captions"
    score: ClassVar[str] = "bleu_4"
    metric: ClassVar[str] = "cider"
    refused_average: ClassVar[str] = (
        "words are made one after the other, so two networks would have to agree on each word before the next; "
        "allowed: one network, trained for longer"
    )
    wraps: ClassVar[bool] = True
    ranks: ClassVar[bool] = True
    varies: ClassVar[bool] = True
    shows: ClassVar[bool] = True
    mirrored: ClassVar[str] = "left and right in its captions stay as they are"

    vocabulary: Vocabulary
    settings: Settings
    label_smoothing: float = 0.0
    guess: float = math.nan
    cut: int = 0

    @classmethod
    def fit(  # type: ignore[override]  # its options by name
        cls,
        learned: Learned,
        decoder: str = "transformer",
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        beam: int = 3,
        length_penalty: float = 0.0,
        longest: int | None = None,
        least_count: int = 2,
        label_smoothing: float = 0.0,
    ) -> Self:
        if decoder not in DECODERS:
            raise ValueError(f'decoder: "{decoder}" is no decoder; allowed: {", ".join(DECODERS)}')
        least = {"width": (width, 8), "depth": (depth, 1), "heads": (heads, 1), "beam": (beam, 1)}
        for name, (value, lowest) in {**least, "longest": (longest, 1), "least_count": (least_count, 1)}.items():
            if value is not None and value < lowest:
                raise ValueError(f"{name}: {value} is out of range; allowed: from {lowest}")
        for name, share in (("dropout", dropout), ("label_smoothing", label_smoothing)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: {share} is out of range; allowed: from 0 to below 1")
        if not 0 <= length_penalty <= 5:
            raise ValueError(f"length_penalty: {length_penalty} is out of range; allowed: 0 to 5")
        if width % heads:
            raise ValueError(f"width: {width} does not fit {heads} heads; allowed: a multiple of {heads}")
        rows = [row for row in _captions(learned.targets) if row != [""]]
        captions = [each for row in rows for each in row]
        vocabulary = Vocabulary.learned(captions, least_count)
        if not vocabulary.words:
            what = f"none of its {len(captions):,} captions has a word that is there {least_count} times"
            raise ValueError(f"least_count: {what}; allowed: 1, or captions with words")
        lengths = np.array([len(words_of(each)) for each in captions])
        most = int(longest or min(LONGEST, lengths.max()))
        settings = Settings(decoder, width, depth, heads, dropout, most, beam, length_penalty)
        return cls(vocabulary, settings, label_smoothing, _most_frequent(rows), int((lengths > most).sum()))

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        settings = Settings(**{name: state[name] for name in Settings.__dataclass_fields__})
        return cls(Vocabulary(list(names)[FIRST:]), settings, guess=float(state["guess"]))

    def state(self) -> dict[str, Any]:
        return {**vars(self.settings), "guess": self.guess}

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """What its head tells apart: words."""
        return (*MARKS, *self.vocabulary.words)

    def told_apart(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        return self.names

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.cut:
            return ()
        what = f"{self.cut:,} captions to train on are longer than {self.settings.longest} words, and are cut there"
        return (f"{what}; type task.longest=NUMBER for longer sentences",)

    # ── training and measuring ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def outputs(self) -> int:
        return len(self.vocabulary)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "perplexity", "bleu_4", "cider", "exact_match")

    def network(self, backbone: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        return Captioner(backbone, shape, len(self.vocabulary), vars(self.settings))

    def vary(self, targets: Any, draw: Callable[[int], Tensor]) -> Any:
        """One caption of each row: the one that it learns now."""
        if not len(targets):
            return targets
        rows = [_lines(row) for row in targets.cpu().rows()]
        which = draw(0).tolist()
        chosen = [to_bytes([each[int(share * len(each))]]) for each, share in zip(rows, which, strict=True)]
        lengths = torch.tensor([len(each) for each in chosen], device=targets.device)
        values = torch.from_numpy(np.concatenate(chosen)).to(targets.device, targets.values.dtype)
        return targets.from_lengths(values, lengths, targets.known)

    def arguments(self, inputs: Tensor, targets: Any) -> tuple[object, ...]:
        words = self._sentences(targets)
        return inputs, words.given, words.row_of

    def _sentences(self, targets: Any) -> Sentences:
        rows = [_lines(row) for row in targets.cpu().rows()] if len(targets) else []
        encoded = [self.vocabulary.encode(text, self.settings.longest) for row in rows for text in row]
        length = 1 + max(map(len, encoded), default=0)
        given = torch.full((len(encoded), length), END)
        wanted, counts = torch.full_like(given, END), torch.zeros(len(encoded), length, dtype=torch.bool)
        for number, words in enumerate(encoded):
            given[number, : len(words) + 1] = torch.tensor([START, *words])
            wanted[number, : len(words)] = torch.tensor(words, dtype=torch.int64)
            counts[number, : len(words) + 1] = True
        row_of = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]).long())
        return Sentences(*(each.to(targets.device) for each in (given, wanted, counts, row_of)))

    def _costs(self, outputs: Any, targets: Any, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Of each row the mean over its captions of the mean cross entropy of their words, its end included: [rows];
        and (the sum over all words of all captions, how many there are): [2]."""
        logits = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        words = self._sentences(targets)
        costs = F.cross_entropy(logits.transpose(1, 2), words.wanted, reduction="none", label_smoothing=smoothing)
        costs = costs * words.counts * targets.known[words.row_of][:, None]
        of_sentence = costs.sum(1) / words.counts.sum(1)
        nothing = costs.new_zeros(len(targets))
        sentences = nothing.index_add(0, words.row_of, torch.ones_like(of_sentence)).clamp(min=1)
        of_row = nothing.index_add(0, words.row_of, of_sentence) / sentences
        there = (words.counts & targets.known[words.row_of][:, None]).sum().to(costs.dtype)
        return of_row, torch.stack([costs.sum(), there])

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return self._costs(outputs, targets, self.label_smoothing)[0].sum()

    def sums(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        of_rows, words = self._costs(outputs, targets)
        return {"loss": of_rows.sum(), "words": words}

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        costs, words = sums["words"]
        return {"loss": sums["loss"] / rows, "perplexity": _exp(costs / max(1.0, words))}

    def kept(self, outputs: Any) -> Tensor:
        return self.values(outputs)

    def whole(self, outputs: Tensor, targets: Any) -> dict[str, float]:
        return self.measure(outputs.numpy(), targets)

    def chance_loss(self, dtype: torch.dtype) -> float:
        return math.log(len(self.vocabulary))

    @property
    def chance(self) -> float:
        """What the most frequent caption reaches, told of every image."""
        return self.guess

    def values(self, outputs: Any) -> Tensor:
        return outputs if isinstance(outputs, Tensor) else outputs["found"]

    @property
    def shape_of_values(self) -> tuple[int, ...]:
        return (1 + self.settings.longest,)

    def average(self, values: Tensor, weights: Tensor) -> Tensor:
        return values[0]  # there is one network

    def measure(self, values: np.ndarray, labels: Any) -> dict[str, float]:
        found, true = self._compared(values, labels)
        if not found:
            return dict.fromkeys(("bleu_4", "cider", "exact_match"), math.nan)
        return {"bleu_4": bleu(found, true), "cider": cider(found, true), "exact_match": exact(found, true)}

    def _compared(self, values: np.ndarray, labels: Any) -> tuple[list[Words], list[list[Words]]]:
        """What was said of each row and what is true of it, in the words that are compared."""
        true = [[measured(words_of(each)) for each in row] for row in _captions(labels)]
        return [self._words(each) for each in values], true

    def _words(self, value: np.ndarray) -> Words:
        return measured(self.vocabulary.said(value[1:]))

    # ── what is made of the values ──────────────────────────────────────────────────────────────────────────────────

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        texts = [None if odd else self.text(row) for row, odd in zip(values, unreadable, strict=True)]
        return {
            "caption": pa.array(texts, pa.string()),
            "log_probability": pa.array(values[:, 0].astype(np.float32), mask=unreadable),
        }

    def label_column(self, labels: Any) -> pa.Array[Any]:
        return pa.array([None if row == [""] else row for row in _captions(labels)], pa.list_(pa.string()))

    def text(self, value: np.ndarray) -> str:
        return self.vocabulary.text(value[1:])

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        return [(self.text(values) or "(nothing)", f"{_exp(float(values[0])):.1%}")]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        return {"caption": self.text(values), "log_probability": float(values[0])}

    def errors(self, values: np.ndarray, labels: Any) -> np.ndarray:
        """Words that are wrong, too many or missing, as a share of those of the nearest true caption."""
        return np.array([word_errors(*each) for each in zip(*self._compared(values, labels), strict=True)], np.float64)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        true = from_bytes(label)
        told = [f"says: {self.text(values)}", *(f"true: {each}" for each in true[:MOST_SHOWN])]
        return [*told, f"and {len(true) - MOST_SHOWN} more"] if len(true) > MOST_SHOWN else told

    def table(self, values: np.ndarray, labels: Any) -> tuple[list[str], list[list[str]]]:
        """The most frequent words: in how many images they are true, and how often they are said where they are."""
        found, true = self._compared(values, labels)
        said = [set(words) for words in found]
        meant = [{word for each in row for word in each} for row in true]
        lines = []
        for word, count in sorted(Counter(w for row in meant for w in row).items(), key=lambda e: (-e[1], e[0])):
            right = sum(word in a and word in b for a, b in zip(said, meant, strict=True))
            times = sum(word in each for each in said)
            lines.append([word, f"{count:,}", f"{right / count:.1%}", f"{right / times:.1%}" if times else ""])
        return ["word", "true captions with it", "of these said", "right where it is said"], lines[:MOST_LINES]


def _lines(row: Any) -> list[str]:
    return from_bytes(row.numpy())


def _captions(labels: Any) -> Iterator[list[str]]:
    """The captions of each row, of a `Ragged` or a `RaggedTensor`."""
    values = labels.values.cpu().numpy() if isinstance(labels.values, Tensor) else labels.values
    for first, end in pairwise(labels.starts.tolist()):
        yield from_bytes(values[first:end])


def _most_frequent(rows: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of the most frequent caption of these rows, told of each."""
    counts = Counter(measured(words_of(each)) for row in rows for each in row)
    often = min(counts, key=lambda words: (-counts[words], words))
    chosen = [rows[at] for at in np.linspace(0, len(rows) - 1, min(len(rows), MOST_COMPARED)).round().astype(int)]
    return bleu([often] * len(chosen), [[measured(words_of(each)) for each in row] for row in chosen])


def _exp(power: float) -> float:
    return math.exp(min(power, 700.0))


TASK = Captioning
