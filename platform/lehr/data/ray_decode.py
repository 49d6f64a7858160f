"""Decoding on Ray: on the node of the worker that asks, and once for all workers of the node that ask for the same.

What is decoded lies in the node's object store, where its workers map the same memory.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lehr.data.decode import Decoded
from lehr.data.pixels import PixelFormat
from lehr.data.sources.base import Part
from lehr.data.streaming import decode_rows
from lehr.data.windows import Pending

HELD = 32
"""Pieces that a node keeps for workers that have not asked for them yet. Workers keep step, so few are needed."""


class RayDecoder:
    """Decodes in Ray tasks; each result is a view of the node's object store.

    If the workers hold all CPUs, the tasks request none: a worker that waits for a task that waits for the worker's own
    CPU would hang silently. For the same reason a task goes to another node where its own has no CPU left.
    """

    def __init__(self, at_once: int, spare_cpus: bool) -> None:
        self.at_once, self._cpus, self._name = at_once, 1 if spare_cpus else 0, f"lehr-{uuid4().hex}"
        self._stream = ""

    def of_stream(self) -> RayDecoder:
        """The same for one stream, so that its parts are never taken for those of another."""
        found = copy(self)
        found._stream = uuid4().hex
        return found

    def submit(self, part: Part, rows: Sequence[int], wanted: PixelFormat, number: int = 0, takers: int = 1) -> Pending:
        node = ray.get_runtime_context().get_node_id()
        if takers > 1 and self._stream:
            same = hashlib.blake2b(np.asarray(rows, np.int64).tobytes(), digest_size=16).digest()
            return _Shared(self, (self._stream, number, same), takers, node, part, rows, wanted)
        return _Alone(self.start(node, part, rows, wanted))

    def start(self, node: str, part: Part, rows: Sequence[int], wanted: PixelFormat) -> ray.ObjectRef[Decoded]:
        return _task(self._cpus, node).remote(part, np.asarray(rows, np.int64), wanted)

    def keeper(self, node: str) -> Any:
        """The node's actor for what several workers need. It lives as long as the process that asked for it first."""
        name = f"{self._name}-{node}"
        if name not in _KEEPERS:
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            options: Any = {"name": name, "get_if_exists": True, "scheduling_strategy": here}
            _KEEPERS[name] = _Keeper.options(**options).remote(self, node)  # type: ignore[attr-defined]
        return _KEEPERS[name]

    def forget_keeper(self, node: str) -> None:
        """It was lost: the next who asks for it starts another."""
        _KEEPERS.pop(f"{self._name}-{node}", None)


_KEEPERS: dict[str, Any] = {}
"""The actors that this process knows: one ends when nobody does."""


@lru_cache(maxsize=16)
def _task(cpus: int, node: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
    return ray.remote(num_cpus=cpus, max_retries=3)(_decode).options(scheduling_strategy=here)


def _decode(part: Part, rows: np.ndarray, wanted: PixelFormat) -> Decoded:
    return decode_rows(part, rows.tolist(), wanted)


@dataclass(frozen=True)
class _Alone:
    """What one worker needs."""

    ref: ray.ObjectRef[Decoded]

    def result(self) -> Decoded:
        return ray.get(self.ref)


class _Shared:
    """What several workers need. Where the actor or what it held is lost, this worker decodes for itself."""

    def __init__(self, decoder: RayDecoder, key: object, takers: int, node: str, *what: Any) -> None:
        self._decoder, self._node, self._what = decoder, node, what
        self._asked = decoder.keeper(node).take.remote(key, takers, *what)

    def result(self) -> Decoded:
        try:
            return ray.get(ray.get(self._asked)[0])
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError):
            self._decoder.forget_keeper(self._node)
            return ray.get(self._decoder.start(self._node, *self._what))


@ray.remote(num_cpus=0)
class _Keeper:
    """Has each piece decoded once for the workers of a node."""

    def __init__(self, decoder: RayDecoder, node: str) -> None:
        self._decoder, self._node = decoder, node
        self._held: OrderedDict[object, tuple[ray.ObjectRef[Decoded], int]] = OrderedDict()

    def take(self, key: object, takers: int, *what: Any) -> list[ray.ObjectRef[Decoded]]:
        """The piece, in a list so that it is not fetched on the way. It is let go when as many took it as need it."""
        if key not in self._held:
            self._held[key] = self._decoder.start(self._node, *what), takers
        ref, left = self._held.pop(key)
        if left > 1:
            self._held[key] = ref, left - 1
        while len(self._held) > HELD:
            self._held.popitem(last=False)
        return [ref]
