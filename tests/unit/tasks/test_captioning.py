"""The parts of captioning keep to their formulas: words, measures, decoders, sentences, and the loss."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lehr import models
from lehr.data.captions import as_labels
from lehr.data.targets import RaggedTensor, as_targets
from lehr.tasks.base import Learned
from lehr.tasks.caption_text import from_bytes, measured, sentence, to_bytes, words_of
from lehr.tasks.captioning.beam import search
from lehr.tasks.captioning.decoders import Decoder, LSTMDecoder, TransformerDecoder
from lehr.tasks.captioning.measures import bleu, cider, exact, word_errors
from lehr.tasks.captioning.network import Captioner
from lehr.tasks.captioning.task import Captioning
from lehr.tasks.captioning.vocabulary import END, FIRST, START, UNKNOWN, Vocabulary
from lehr.tasks.forms import spoken_in_full

# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_are_lower_case_and_punctuation_is_split() -> None:
    said = 'A Man\'s  t-shirt, (2.5 m) "red"!'
    assert words_of(said) == ["a", "man's", "t-shirt", ",", "(", "2.5", "m", ")", '"', "red", '"', "!"]
    assert measured(words_of(said)) == ("a", "man's", "t-shirt", "2.5", "m", "red")
    assert sentence(["18", "red", "cells", ",", "1", "white", "cell", "(", "big", ")", "."]) == (
        "18 red cells, 1 white cell (big)."
    )
    assert words_of("Über 東京 naïve") == ["über", "東京", "naïve"]


def test_captions_of_a_row_travel_as_bytes() -> None:
    rows = [["Ein Hund\nläuft", "two  dogs"], [], ["🐕 !"]]
    assert [from_bytes(row) for row in as_labels(rows)] == [["Ein Hund läuft", "two dogs"], [""], ["🐕 !"]]
    assert from_bytes(to_bytes(["a", "b"])) == ["a", "b"]
    assert from_bytes(np.zeros(1, np.uint8)) == [""]  # a blank row, as the warm-up of several workers has it


def test_the_vocabulary_is_the_words_that_are_there_often_enough() -> None:
    known = Vocabulary.learned(["b a a", "c b b"], least_count=2)
    assert known.words == ("b", "a")
    assert known.encode("a b c a", 3) == (FIRST + 1, FIRST, UNKNOWN)
    assert known.text([FIRST + 1, FIRST, END, FIRST]) == "a b"


# ── measures ────────────────────────────────────────────────────────────────────────────────────────────────────────

REFERENCE = [
    (0, 0.4560689635756611, 0.7329202385040728, 1.855301023252115),
    (1, 0.0, 0.0, 0.0),
    (2, 0.9999999995958335, 0.9999999996666668, 0.0),
    (3, 0.7402532889885339, 0.9459594688016588, 3.75),
    (4, 0.26274297651663553, 0.6785921358785864, 0.8489870367612227),
    (5, 0.4566133983264129, 0.6213861936787013, 1.2963190444749584),
    (6, 2.3530495236003196e-12, 0.3894003913410025, 0.0),
    (7, 0.2540663740571561, 0.8749999999453126, 1.6295163625996818),
]
"""Seed, BLEU-4, BLEU-1 and CIDEr of `random_captions`, as pycocoevalcap 1.2 computes them: `Bleu(4).compute_score(true,
found)[0]` and `Cider().compute_score(true, found)[0]`, with words joined by spaces."""


def random_captions(seed: int) -> tuple[list[tuple[str, ...]], list[list[tuple[str, ...]]]]:
    r = random.Random(seed)
    words = [f"w{k}" for k in range(r.choice([3, 8, 40]))]

    def some() -> tuple[str, ...]:
        return tuple(r.choice(words) for _ in range(r.randint(1, 12)))

    true = [[some() for _ in range(r.randint(1, 5))] for _ in range(r.choice([1, 2, 5, 30]))]
    found = [() if r.random() < 0.1 else r.choice(row) if r.random() < 0.4 else some() for row in true]
    return found, true


@pytest.mark.parametrize(("seed", "bleu_4", "bleu_1", "cider_d"), REFERENCE)
def test_bleu_and_cider_are_those_of_pycocoevalcap(seed: int, bleu_4: float, bleu_1: float, cider_d: float) -> None:
    found, true = random_captions(seed)
    assert bleu(found, true) == pytest.approx(bleu_4, abs=1e-9)
    assert bleu(found, true, 1) == pytest.approx(bleu_1, abs=1e-9)
    assert cider(found, true) == pytest.approx(cider_d, abs=1e-9)


def test_a_perfect_set_of_captions_has_the_highest_measures() -> None:
    true = [[("a", "red", "dog", "runs", "home")], [("two", "cats", "sleep", "all", "day")]]
    assert bleu([row[0] for row in true], true) == pytest.approx(1, abs=1e-6)
    assert cider([row[0] for row in true], true) == pytest.approx(10, abs=1e-6)
    assert exact([row[0] for row in true], true) == 1
    assert exact([true[0][0], ()], true) == 0.5
    assert math.isnan(cider([], []))


@pytest.mark.parametrize("said", [["seven", "two"], ["a dog", "a cat"], ["the red dog", "a cat"]])
def test_short_captions_that_are_right_have_the_highest_bleu(said: list[str]) -> None:
    words = [tuple(each.split()) for each in said]
    assert bleu(words, [[each] for each in words]) == pytest.approx(1, abs=1e-6)
    assert bleu(words[::-1], [[each] for each in words]) < 0.8


def test_bleu_is_nothing_where_no_four_words_in_a_row_are_right() -> None:
    said, true = ("a", "dog", "runs", "in", "the", "snow"), ("the", "dog", "runs", "on", "the", "grass")
    assert bleu([tuple(said)], [[tuple(true)]]) == 0.0
    assert bleu([()], [[tuple(true)]]) == 0.0


def test_metrics_are_called_as_people_call_them() -> None:
    names = ("validation_cider", "validation_bleu_4", "averaged_validation_miou", "validation_loss", "train_loss")
    said = ["validation CIDEr", "validation BLEU-4", "averaged validation mean IoU", "validation loss", "train loss"]
    assert [spoken_in_full(name) for name in names] == said


def test_errors_are_edits_to_the_nearest_true_caption() -> None:
    assert word_errors(("a", "red", "dog"), [("a", "big", "red", "dog"), ("x",)]) == 1 / 4
    assert word_errors(("a",), [("a",), ("b", "c")]) == 0
    assert word_errors((), [("b", "c")]) == 1


# ── decoders ────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoder(kind: str, words: int = 7, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    found: Decoder = (
        LSTMDecoder(words, 16, 2, 0.0) if kind == "lstm" else TransformerDecoder(words, 16, 2, 6, heads=2, dropout=0.0)
    )
    with torch.no_grad():
        found.out.weight.mul_(6)  # so that some words are much likelier than others
    return found.double().eval()


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_words_read_one_at_a_time_give_what_they_give_together(kind: str) -> None:
    made, cells = decoder(kind), torch.randn(3, 4, 16, dtype=torch.float64)
    words = torch.randint(0, 7, (3, 5))
    whole, state = made(cells, words), made.start(cells)
    for position in range(5):
        logits, state = made.step(words[:, position], position, state)
        assert torch.allclose(logits, whole[:, position], atol=1e-12)


def best_by_trying_all(made: Decoder, cells: Tensor, longest: int, penalty: float) -> tuple[float, list[int]]:
    """The best of all sentences of up to `longest` words, by the formula."""
    words, found = made.out.out_features, []
    for length in range(longest + 1):
        for said in itertools.product(range(FIRST, words), repeat=length):
            given = torch.tensor([[START, *said]])
            logits = made(cells, given).masked_fill(torch.arange(words) == UNKNOWN, -torch.inf)
            logits = logits.masked_fill(torch.arange(words) == START, -torch.inf)
            if length == longest:  # only the end has room
                logits[:, -1] = torch.where(torch.arange(words) == END, logits[:, -1], -torch.inf)
            shares = logits.log_softmax(2)[0]
            total = sum(float(shares[at, word]) for at, word in enumerate([*said, END]))
            found.append((total / (length + 1) ** penalty, total, list(said)))
    best = max(found)
    return best[1], best[2]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_wide_beam_finds_the_best_of_all_sentences(kind: str, penalty: float) -> None:
    for seed in range(4):
        made = decoder(kind, seed=seed)
        cells = torch.randn(1, 4, 16, dtype=torch.float64)
        with torch.no_grad():
            found = search(made, cells, 3, 200, penalty)[0].tolist()
            total, said = best_by_trying_all(made, cells, 3, penalty)
        assert found[0] == pytest.approx(total, abs=1e-9)
        assert [int(word) for word in found[1:]] == said + [END] * (3 - len(said))


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_one_beam_is_greedy_and_no_image_depends_on_another(kind: str) -> None:
    made, cells = decoder(kind), torch.randn(5, 4, 16, dtype=torch.float64)
    with torch.no_grad():
        for beam in (1, 3):
            together = search(made, cells, 6, beam)
            alone = torch.cat([search(made, cells[k : k + 1], 6, beam) for k in range(5)])
            assert torch.allclose(together, alone, atol=1e-12)
        greedy, state, last, said = search(made, cells[:1], 6, 1)[0], made.start(cells[:1]), torch.tensor([START]), []
        for position in range(6):
            logits, state = made.step(last, position, state)
            last = logits.index_fill(1, torch.tensor([START, UNKNOWN]), -torch.inf).argmax(1)
            if last == END:
                break
            said.append(int(last))
    assert [int(word) for word in greedy[1:]] == said + [END] * (6 - len(said))


@pytest.mark.parametrize("beam", [1, 3])
def test_a_decoder_that_never_ends_gives_the_longest_sentence(beam: int) -> None:
    made = decoder("lstm")
    with torch.no_grad():
        made.out.bias[END] = -1e4
        found = search(made, torch.randn(2, 4, 16, dtype=torch.float64), 5, beam)
    assert found.isfinite().all()
    assert (found[:, 1:] >= FIRST).all()


# ── the task ────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(*captions: list[str]) -> RaggedTensor:
    found = as_targets(as_labels(captions))
    assert isinstance(found, RaggedTensor)
    return found


def fitted(*captions: list[str], **options: Any) -> Captioning:
    return Captioning.fit(Learned((), rows(*captions)), **{"least_count": 1, **options})


ROWS = (["a red dog", "a dog runs home now"], ["two cats"], ["a cat, a dog"])


def test_the_loss_of_a_row_is_the_mean_over_its_captions_of_that_of_a_word() -> None:
    task = fitted(*ROWS)
    _, given, row_of = task.arguments(torch.zeros(3, 1), rows(*ROWS))
    assert isinstance(given, Tensor)
    logits = torch.randn(*given.shape, task.outputs, dtype=torch.float64)
    targets = rows(*ROWS)
    shares = logits.log_softmax(2)
    wanted, words, everything = [], 0, 0.0
    for number, captions in enumerate(ROWS):
        each: list[Any] = []
        for at in [k for k, row in enumerate(row_of) if row == number]:  # type: ignore[arg-type, var-annotated]
            caption = captions[len(each)]
            said = [*task.vocabulary.encode(caption, 60), END]
            each.append(-sum(float(shares[at, k, word]) for k, word in enumerate(said)) / len(said))
            words, everything = words + len(said), everything + each[-1] * len(said)
        wanted.append(sum(each) / len(each))
    assert float(task.loss(logits, targets)) == pytest.approx(sum(wanted))
    measured = task.metrics({name: each.tolist() for name, each in task.sums(logits, targets).items()}, 3)
    assert measured["loss"] == pytest.approx(sum(wanted) / 3)
    assert measured["perplexity"] == pytest.approx(math.exp(everything / words))


def test_a_row_that_could_not_be_read_costs_nothing_and_a_blank_one_can_be_learned() -> None:
    task = fitted(*ROWS)
    known = rows(*ROWS)
    unread = RaggedTensor(known.values, known.starts, torch.tensor([True, False, True]))
    _, given, _ = task.arguments(torch.zeros(3, 1), known)
    logits = torch.randn(*given.shape, task.outputs)  # type: ignore[attr-defined]
    assert task.loss(logits, unread) < task.loss(logits, known)
    assert float(task.sums(logits, unread)["words"][1]) == float(task.sums(logits, known)["words"][1]) - 3
    one = torch.ones(2, dtype=torch.int64)
    blank = RaggedTensor.from_lengths(torch.zeros(2, dtype=torch.uint8), one, one.bool())
    assert torch.isfinite(task.loss(torch.zeros(2, 1, task.outputs), blank))
    empty = known[:0]
    assert task.arguments(torch.zeros(0, 1), empty)[1].shape[0] == 0  # type: ignore[attr-defined]
    assert float(task.loss(torch.zeros(0, 1, task.outputs), empty)) == 0


def test_each_row_learns_one_of_its_captions_by_its_own_draw() -> None:
    task, targets = fitted(*ROWS), rows(*ROWS)
    for share, which in ((0.0, 0), (0.49, 0), (0.5, 1), (0.999, 1)):
        chosen = task.vary(targets, lambda k, share=share: torch.full((3,), share, dtype=torch.float64))  # type: ignore[misc]
        assert [from_bytes(row.numpy()) for row in chosen.rows()] == [[ROWS[0][which]], ROWS[1], ROWS[2]]
    assert len(task.vary(targets[:0], lambda k: torch.zeros(0))) == 0


def test_what_a_model_file_keeps_makes_the_same_task() -> None:
    task = fitted(*ROWS, decoder="lstm", width=32, beam=2)
    again = Captioning.restore(task.told_apart(()), task.state(), "softmax")
    assert again.vocabulary == task.vocabulary
    assert again.settings == task.settings
    assert again.chance == task.chance


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decoder": "gru"}, 'decoder: "gru" is no decoder; allowed: transformer, lstm'),
        ({"beam": 0}, "beam: 0 is out of range; allowed: from 1"),
        ({"width": 30}, "width: 30 does not fit 4 heads; allowed: a multiple of 4"),
        ({"dropout": 1.0}, "dropout: 1.0 is out of range"),
        ({"length_penalty": -1.0}, "length_penalty: -1.0 is out of range; allowed: 0 to 5"),
        ({"least_count": 9}, "least_count: none of its 4 captions has a word that is there 9 times"),
    ],
)
def test_options_out_of_range_are_refused_with_what_is_allowed(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        fitted(*ROWS, **options)


def test_a_caption_of_ten_thousand_words_is_cut_and_told() -> None:
    task = fitted(["word " * 10_000], ["a dog"])
    assert task.settings.longest == 60
    assert "1 captions to train on are longer than 60 words, and are cut there" in task.notes[0]
    assert fitted(["a dog"]).notes == ()


class Patches(torch.nn.Module):
    """A transformer in small: a map of patches, then layers that see no map."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.mix = torch.nn.Conv2d(1, 8, 8, 8), torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in "123"))
        self.classes = torch.nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.mix(self.patch(images).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize(("backbone", "cells", "dropped"), [("small_cnn", 64, "head"), ("patches", 1, "classes")])
def test_any_backbone_is_an_encoder(backbone: str, cells: int, dropped: str) -> None:
    task = fitted(*ROWS, width=16, heads=2, depth=1)
    base = Patches() if backbone == "patches" else models.build("small_cnn", 1, 5, {"width": 8}, 0)
    made = task.network(base, (1, 64, 64))
    assert isinstance(made, Captioner)
    assert made.head.place.shape[0] == cells
    assert made.dropped.startswith(dropped)
    images = torch.randn(3, 1, 64, 64)
    logits = made(*task.arguments(images, rows(*ROWS)))
    task.loss(logits, rows(*ROWS)).backward()
    assert all(each.grad is not None for each in made.parameters() if each.requires_grad)
    made.eval()
    assert made(images).shape == (3, *task.shape_of_values)
    assert torch.equal(made(*task.arguments(images, rows(*ROWS)))["found"], made(images))
