"""The right to have a run written, as a driver hands it to its workers."""

from __future__ import annotations

from dataclasses import dataclass

from lehr.errors import Superseded
from lehr.runs.lease import Holder
from lehr.runs.storage import Folder


@dataclass(frozen=True)
class Claim:
    """The right of one driver to have a run and its children written.

    Attributes:
        lease: URI of the run folder that holds the lease.
        owner: the lease's owner.
    """

    lease: str
    owner: str

    def check(self) -> None:
        """Raises `Superseded` unless the lease is still this driver's."""
        holder = Holder.read(Folder.at(self.lease, known=True))
        if holder is None or holder.owner != self.owner:
            raise Superseded(
                f"{self.lease}: was taken over by {holder or 'another process'}; this one stops and writes nothing more"
            )
