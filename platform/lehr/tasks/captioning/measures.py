"""How near captions are to true ones: BLEU and CIDEr, as pycocoevalcap computes them of the same words.

BLEU: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002. CIDEr is its variant
CIDEr-D: Vedantam, Zitnick and Parikh, "CIDEr: consensus-based image description evaluation", 2015. Words are tuples of
`lehr.tasks.caption_text.measured`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

Words = tuple[str, ...]

LONGEST_GRAM = 4
TINY, SMALL = 1e-15, 1e-9
"""So that nothing is divided by 0, and no share is 0; pycocoevalcap's."""
SIGMA = 6.0
"""Words by which a sentence may be longer or shorter: CIDEr-D's."""
SCALE = 10.0


@lru_cache(maxsize=1 << 16)
def grams(words: Words) -> Counter[Words]:
    """How often each run of one to four words is there."""
    runs = range(1, LONGEST_GRAM + 1)
    return Counter(words[at : at + n] for n in runs for at in range(len(words) - n + 1))


def bleu(found: Sequence[Words], true: Sequence[Sequence[Words]], longest: int = LONGEST_GRAM) -> float:
    """BLEU of a whole set of captions, 0 to 1: the geometric mean of the shares of their runs of one to `longest` words
    that are in a true caption, lowered where they are shorter than the true ones nearest to them in length. Lengths of
    runs that no true caption has are left out: else captions of three words could never be right."""
    longest = max(1, min(longest, max((len(each) for references in true for each in references), default=longest)))
    right, all_of, length, wanted = [0] * longest, [0] * longest, 0, 0
    for words, references in zip(found, true, strict=True):
        length += len(words)
        wanted += min((abs(len(each) - len(words)), len(each)) for each in references)[1]
        most: Counter[Words] = Counter()
        for each in references:
            most |= grams(each)
        for n in range(longest):
            all_of[n] += max(0, len(words) - n)
        for run, count in grams(words).items():
            if len(run) <= longest:
                right[len(run) - 1] += min(count, most[run])
    if not all(right[:longest]):
        return 0.0  # pycocoevalcap has up to 1e-3 here, of its `TINY`
    shares = math.prod((right[n] + TINY) / (all_of[n] + SMALL) for n in range(longest)) ** (1 / longest)
    ratio = (length + TINY) / (wanted + SMALL)
    return shares * math.exp(1 - 1 / ratio) if ratio < 1 else shares


def cider(found: Sequence[Words], true: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D of a whole set of captions, 0 to 10: how alike their runs of words are to those of the true captions,
    where runs that are true of few images count more."""
    if not found:
        return math.nan
    images_with: Counter[Words] = Counter()
    for references in true:
        images_with.update({run for each in references for run in grams(each)})
    images = math.log(len(true))
    weight = {run: images - math.log(count) for run, count in images_with.items()}
    total = 0.0
    for words, references in zip(found, true, strict=True):
        alike = sum(_alike(words, each, weight, images) for each in references)
        total += SCALE * alike / LONGEST_GRAM / len(references)
    return total / len(found)


def _alike(words: Words, reference: Words, weight: dict[Words, float], unseen: float) -> float:
    """Of each length of runs the cosine of two captions, added up; `unseen` is the weight of a run in none of them."""
    mine, theirs = grams(words), grams(reference)
    shared, norm_of_mine, norm_of_theirs = [0.0] * LONGEST_GRAM, [0.0] * LONGEST_GRAM, [0.0] * LONGEST_GRAM
    for run, count in mine.items():
        value = count * weight.get(run, unseen)
        norm_of_mine[len(run) - 1] += value**2
        other = theirs.get(run, 0) * weight.get(run, unseen)
        shared[len(run) - 1] += min(value, other) * other
    for run, count in theirs.items():
        norm_of_theirs[len(run) - 1] += (count * weight[run]) ** 2
    # pycocoevalcap counts a sentence's runs of two words as its length.
    longer = max(0, len(words) - 1) - max(0, len(reference) - 1)
    likely = math.exp(-(longer**2) / (2 * SIGMA**2))
    norms = [math.sqrt(a) * math.sqrt(b) for a, b in zip(norm_of_mine, norm_of_theirs, strict=True)]
    return likely * sum(each / (norm or 1.0) for each, norm in zip(shared, norms, strict=True))


def exact(found: Sequence[Words], true: Sequence[Sequence[Words]]) -> float:
    """The share of captions that are, word by word, a true one."""
    if not found:
        return math.nan
    return sum(words in references for words, references in zip(found, true, strict=True)) / len(found)


def word_errors(words: Words, references: Sequence[Words]) -> float:
    """Words to insert, leave out or replace to get the nearest true caption, as a share of that caption's words."""
    return min(_edits(words, each) / max(1, len(each)) for each in references)


def _edits(mine: Words, theirs: Words) -> int:
    before = list(range(len(theirs) + 1))
    for at, word in enumerate(mine, 1):
        now = [at]
        for k, other in enumerate(theirs, 1):
            now.append(min(before[k] + 1, now[k - 1] + 1, before[k - 1] + (word != other)))
        before = now
    return before[-1]
