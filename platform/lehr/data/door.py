"""The one door from a job's data to the rows it trains on: cached or streamed, in this process or on Ray.

Every kind of job comes through here, with and without `--debug`. So the choice, the words about it and the list of
unreadable images are the same everywhere. (`data.cache: device` caches here too; each worker then copies its rows to
its GPU, see `Plan.to`.)
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from lehr.data.dataset import Images
from lehr.data.fingerprint import fingerprint
from lehr.data.leaks import leaks
from lehr.data.load import OpenedSources, split_ids
from lehr.data.pixels import PixelFormat
from lehr.data.reading import read
from lehr.data.sources.base import Source
from lehr.data.streaming import Decoder, Stream, ThreadDecoder
from lehr.job import TrainJob
from lehr.machine import cores, memory
from lehr.runs import DataFacts, UnreadableImages

CACHE_SHARE = 0.3  # of the memory that could hold the decoded images

Data = Mapping[str, Images | Stream]
"""The rows of each split that has a source of its own: `train`, and maybe `validation` and `test`."""


class Host(Protocol):
    """Where images are decoded and held: this process, or a Ray cluster (`lehr.data.ray_data.RayHost`)."""

    held_bytes: int
    """Bytes of decoded images that this job has cached here already."""

    def room(self) -> tuple[int, str]:
        """Bytes of the memory that could hold decoded images, and what that memory is, in words."""
        ...

    def has_gpu(self) -> bool:
        """Whether the images can be in the memory of a GPU."""
        ...

    def read(self, source: Source, wanted: PixelFormat, skip: float) -> Images:
        """Decodes a whole source."""
        ...

    def decoder(self) -> Decoder:
        """Decodes rows when they are needed."""
        ...


class LocalHost:
    """This process: images lie in its memory, threads decode."""

    held_bytes = 0

    def room(self) -> tuple[int, str]:
        return memory(), "this machine's memory"

    def has_gpu(self) -> bool:
        return torch.cuda.is_available()

    def read(self, source: Source, wanted: PixelFormat, skip: float) -> Images:
        return read(source, wanted, skip)

    def decoder(self) -> Decoder:
        return ThreadDecoder(cores())


class Listener(Protocol):
    """Who hears about a job's data: a running job, which shows it and keeps it in its run folder."""

    def say(self, line: str) -> None:
        """A line that stays on the screen."""
        ...

    def status(self, text: str) -> None:
        """What is being done right now."""
        ...

    def note_data(self, facts: DataFacts) -> None:
        """What the run keeps about its data."""
        ...

    def note_unreadable(self, images: UnreadableImages) -> None:
        """Images that could not be read, which the run keeps beside the other facts."""
        ...

    def note_fingerprint(self, letters: str) -> None:
        """That of the data (`lehr.data.fingerprint`), likewise."""
        ...


@dataclass(frozen=True)
class CachePolicy:
    """Whether images are streamed, else cached; and the sentence that says so and why."""

    streamed: bool
    sentence: str


def open_data(job: TrainJob, host: Host, listener: Listener) -> Data:
    """A job's data, opened, decided on, and loaded.

    Raises:
        JobError: a source or an option that the job cannot have.
        LehrError: data that cannot be read, or more unreadable images than `data.skip_unreadable` allows.
    """
    opened = OpenedSources(job)
    return load(opened, choose(opened, host, listener), host, listener)


def choose(opened: OpenedSources, host: Host, listener: Listener) -> CachePolicy:
    """Decides whether the images are streamed, and says so where they are, or where the job asks for one of both."""
    listener.status(f"looking at {sum(source.rows for source in opened.sources.values()):,} images")
    room, where = host.room()
    policy = cache_policy(opened.job.data.cache, opened.nbytes, max(0, room - host.held_bytes), where)
    notes = list(opened.notes)
    if opened.job.data.cache == "device" and not host.has_gpu():
        notes.append("data.cache=device: there is no GPU, so the images stay in this machine's memory")
    usual = not policy.streamed and opened.job.data.cache == "auto"
    for line in (*notes, *([] if usual else [policy.sentence])):
        listener.say(line)
    listener.note_data(
        DataFacts(
            rows={name: source.rows for name, source in opened.sources.items()},
            classes=len(opened.main.classes),
            shape=tuple(opened.shape),
            bytes=opened.nbytes,
            held="streamed" if policy.streamed else "cached",
            why=policy.sentence,
            notes=tuple(notes),
            unreadable=UnreadableImages(),
        )
    )
    return policy


def load(opened: OpenedSources, policy: CachePolicy, host: Host, listener: Listener) -> Data:
    """The rows of each source: decoded now, or ready to be decoded when they are needed."""
    if policy.streamed:
        streams = opened.stream(host.decoder())
        listener.note_fingerprint(fingerprint(streams))
        return streams
    listener.status(f"reading {sum(source.rows for source in opened.sources.values()):,} images")
    images = opened.decode(host.read)
    host.held_bytes += opened.nbytes
    names = [opened.sources[name].name_of(row) for name, decoded in images.items() for row in decoded.unreadable]
    if names:
        few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        listener.say(f"{len(names)} unreadable image{'s' if len(names) > 1 else ''} skipped: {few}")
        listener.note_unreadable(UnreadableImages(len(names), tuple(names[:1000])))
    listener.note_fingerprint(fingerprint(images))
    _tell_leaks(opened, images, listener)
    return images


def _tell_leaks(opened: OpenedSources, images: Mapping[str, Images], listener: Listener) -> None:
    """Says which validation and test rows are training rows too."""
    listener.status("comparing the splits")
    train, held_out = split_ids(opened.job, images["train"].labels, "validation" in images)
    ids = {name: torch.arange(len(each)) for name, each in images.items()} | {"train": train}
    rows = {name: (each.pixels, each.rows(ids[name]).ids.numpy()) for name, each in images.items()}
    if held_out is not None:
        rows["validation"] = (images["train"].pixels, images["train"].rows(held_out).ids.numpy())
    data = shlex.quote(opened.job.source or opened.job.data.path or opened.job.data.source)
    for line in leaks(rows, opened.job.seed):
        listener.say(f"{line}; to see which: lehr data show {data}")


def cache_policy(choice: str, nbytes: int, room: int, where: str) -> CachePolicy:
    """Whether to stream, and the words that say so.

    Args:
        choice: the job's `data.cache`.
        nbytes: bytes of all decoded images.
        room: bytes of the memory that could hold them, of which `CACHE_SHARE` may be used.
        where: what that memory is, in words.
    """
    fits = nbytes <= CACHE_SHARE * room
    stream = choice == "stream" or (choice == "auto" and not fits)
    why = f"{'within' if fits else 'more than'} {CACHE_SHARE:.0%} of {where}, {in_bytes(room)}"
    why = why if choice == "auto" else f"{why}; data.cache={choice} asks for it"
    held = "streamed, decoded as they are needed" if stream else "cached, decoded once"
    return CachePolicy(stream, f"{in_bytes(nbytes)} of decoded images: {held} ({why})")


def in_bytes(count: float) -> str:
    """`115 kB`, `1.5 GB`."""
    power = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
