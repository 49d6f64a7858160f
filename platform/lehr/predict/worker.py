"""What one process does for a prediction: it holds the predictor, takes decoded parts, and writes a file for each.

The file of a part has the part's number in its name and the mark of the prediction in it. So files in order of their
names hold rows in order of their ids, a part done twice changes nothing, and one that is there need not be done.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lehr.data.decode import Decoded, decode
from lehr.data.sources import Source
from lehr.errors import LehrError
from lehr.paths import add_to_path
from lehr.predict.predictor import load_predictor
from lehr.predict.rows import predict_decoded, table_of
from lehr.runs import Folder


@dataclass(frozen=True)
class Order:
    """What is to be done, for every process alike.

    Attributes:
        run: the run that predicts.
        out: where the files go.
        source: the rows, as `lehr.predict.rows.prepare` makes them.
        members: whether the probabilities of each member are written as well.
        batch_size: images that go through the network at once.
        code: a folder of the user's own modules.
        mark: tells this prediction from every other one.
    """

    run: Folder
    out: Folder
    source: Source
    members: bool
    batch_size: int
    code: str
    mark: str


@dataclass(frozen=True)
class Done:
    """A part that is written: how many rows it has, and (id, why) of the images that could not be read."""

    number: int
    rows: int
    unreadable: tuple[tuple[int, str], ...] = ()


class Desk:
    """Holds the predictor, on the first GPU that this process sees, else on the CPU."""

    def __init__(self, order: Order, threads: int) -> None:
        """Raises RunError where the run has no model."""
        add_to_path(order.code)
        torch.set_num_threads(threads)
        self.order = order
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = load_predictor(order.run).to(device)

    def do(self, number: int, decoded: Decoded) -> Done:
        """Predicts the rows of a part and writes its file."""
        order, part = self.order, self.order.source.parts[number]
        first = int(order.source.starts[number])
        found = predict_decoded(self.predictor, decoded, order.members, order.batch_size)
        buffer = io.BytesIO()
        pq.write_table(table_of(first, part, decoded, found, self.predictor, order.mark), buffer)
        order.out.write(file_of(number), buffer.getvalue())
        return Done(number, len(decoded.labels), tuple((first + row, why) for row, why in decoded.unreadable))


def file_of(number: int) -> str:
    return f"part-{number:06}.parquet"


def mark_of(*what: object) -> str:
    """16 hex digits that change with anything of `what`, plain values all."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def written(out: Folder) -> dict[str, tuple[str, Done]]:
    """The files of predictions in a folder: by name, their mark and what is in them.

    Raises:
        LehrError: the folder holds something else.
    """
    found = {}
    for name in out.files():
        try:
            with out.open_input_file(name) as file:
                footer = pq.ParquetFile(file)
                metadata, rows = footer.schema_arrow.metadata or {}, footer.metadata.num_rows
        except pa.ArrowInvalid:
            metadata, rows = {}, 0
        if not {b"mark", b"unreadable"} <= metadata.keys():
            what = f"holds {name}, which is no prediction; allowed: an empty or new folder to write to"
            raise LehrError(f"{out.uri}: {what}")
        number = int(name.removeprefix("part-").removesuffix(".parquet"))
        bad = tuple((row, why) for row, why in json.loads(metadata[b"unreadable"]))
        found[name] = metadata[b"mark"].decode(), Done(number, rows, bad)
    return found


def done_before(order: Order, keep: bool) -> list[Done]:
    """The parts that an earlier attempt has written, if they are to be kept; all other predictions are removed."""
    found = []
    for name, (mark, done) in written(order.out).items():
        if keep and mark == order.mark and done.number < len(order.source.parts):
            found.append(done)
        else:
            order.out.delete(name)
    return found


def predict_locally(order: Order, numbers: Sequence[int], threads: int) -> Iterator[Done]:
    """Predicts the parts of these numbers in this process."""
    desk = Desk(order, threads)
    size, channels = desk.predictor.size, desk.predictor.channels
    for number, decoded in decode_ahead(order.source, size, channels, numbers, threads):
        yield desk.do(number, decoded)


def decode_ahead(
    source: Source, size: tuple[int, int], channels: int, numbers: Sequence[int], threads: int
) -> Iterator[tuple[int, Decoded]]:
    """The parts of these numbers in that order, the next few being decoded in threads while one is used."""

    def decoded(number: int) -> tuple[int, Decoded]:
        return number, decode(source.parts[number].read(), size, channels)

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting = deque(pool.submit(decoded, number) for number in numbers[:threads])
        for number in numbers[threads:]:
            yield waiting.popleft().result()
            waiting.append(pool.submit(decoded, number))
        while waiting:
            yield waiting.popleft().result()
