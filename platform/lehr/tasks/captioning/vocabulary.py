"""The words that a network knows, each with its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

from lehr.tasks.caption_text import sentence, words_of

END, START, UNKNOWN, FIRST = 0, 1, 2, 3
"""The end of a sentence, and nothing after it; what is before its first word; a word that is not known; the first one
that is."""
MARKS = ("<end>", "<start>", "<unknown>")


class Vocabulary:
    """Words by number, and numbers by word.

    Args:
        words: those that are known, the most frequent first; the first of them has the number `FIRST`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.encode = lru_cache(maxsize=1 << 16)(self._encode)

    @classmethod
    def learned(cls, captions: Iterable[str], least_count: int) -> Vocabulary:
        """The words that are there at least so often; of equally frequent ones the first in the alphabet first."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return cls([word for word, count in ranked if count >= least_count])

    def __len__(self) -> int:
        return FIRST + len(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[tuple[str, ...]]]:
        return Vocabulary, (self.words,)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, FIRST)}

    def _encode(self, text: str, longest: int) -> tuple[int, ...]:
        """The numbers of the words of a text, of the first `longest` of them, without its end."""
        return tuple(self._numbers.get(word, UNKNOWN) for word in words_of(text)[:longest])

    def said(self, numbers: Iterable[float]) -> list[str]:
        """The words of these numbers, up to the end."""
        found = []
        for number in map(int, numbers):
            if number < FIRST:
                if number == END:
                    break
                found.append(MARKS[number])
            else:
                found.append(self.words[number - FIRST])
        return found

    def text(self, numbers: Iterable[float]) -> str:
        """The sentence of these numbers."""
        return sentence(self.said(numbers))
