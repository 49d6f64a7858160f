"""What one process does in a prediction: it holds the predictor, takes decoded parts, and writes a file for each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lehr.data.decode import Decoded, decode
from lehr.data.pixels import PixelFormat
from lehr.data.sources import Source
from lehr.own_modules import look_in
from lehr.predict.part_files import PartResult, part_table, write_part
from lehr.predict.predictor import load_predictor
from lehr.predict.rows import predict_decoded
from lehr.runs import Folder
from lehr.trust import adopt


@dataclass(frozen=True)
class PredictionSpec:
    """A prediction, the same for every process that takes part.

    Attributes:
        run: the folder of the run that predicts.
        out: the folder that the files are written to.
        source: the rows, as `lehr.predict.source_parts.prepare_source` returns them.
        wanted: what images are decoded to for the run.
        members: whether to write the probabilities of each member as well.
        batch_size: images per forward pass.
        code: the folder of the user's own modules.
        fingerprint: distinguishes this prediction from any other.
        grants: what its processes may call; see `lehr.trust`.
    """

    run: Folder
    out: Folder
    source: Source
    wanted: PixelFormat
    members: bool
    batch_size: int
    code: str
    fingerprint: str
    grants: tuple[str, ...] = ()


class Worker:
    """Holds the predictor: on the first GPU that this process sees, else on the CPU."""

    def __init__(self, spec: PredictionSpec, threads: int) -> None:
        """Raises RunError if the run has no model."""
        look_in(spec.code)
        adopt(spec.grants)
        torch.set_num_threads(threads)
        self.spec = spec
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = load_predictor(spec.run).to(device)
        self.ready = time.time()

    def predict_part(self, number: int, decoded: Decoded) -> PartResult:
        """Predicts the rows of a part and writes its file."""
        spec, part = self.spec, self.spec.source.parts[number]
        first = int(spec.source.starts[number])
        found = predict_decoded(self.predictor, decoded, spec.members, spec.batch_size)
        write_part(spec.out, number, part_table(first, part, decoded, found, self.predictor, spec.fingerprint))
        unreadable = tuple((first + row, why) for row, why in decoded.unreadable)
        return PartResult(number, len(decoded.labels), unreadable, self.ready)


def predict_locally(spec: PredictionSpec, numbers: Sequence[int], threads: int) -> Iterator[PartResult]:
    """Predicts the parts with these numbers in this process."""
    worker = Worker(spec, threads)
    for number, decoded in decode_ahead(spec.source, spec.wanted, numbers, threads):
        yield worker.predict_part(number, decoded)


def decode_ahead(
    source: Source, wanted: PixelFormat, numbers: Sequence[int], threads: int
) -> Iterator[tuple[int, Decoded]]:
    """The parts with these numbers, in that order; threads decode the next few while one is used."""

    def decoded(number: int) -> tuple[int, Decoded]:
        return number, decode(source.parts[number].read(), wanted)

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting = deque(pool.submit(decoded, number) for number in numbers[:threads])
        for number in numbers[threads:]:
            yield waiting.popleft().result()
            waiting.append(pool.submit(decoded, number))
        while waiting:
            yield waiting.popleft().result()
