"""`manifest.json` of a checkpoint: what its other files must be. It is written last and makes the checkpoint valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lehr.errors import RunError
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.storage import Folder
from lehr.runs.tolerant import tolerant

CHECKPOINT_FORMAT = 1
REQUIRED = {"model.safetensors", "state.json"}
OPTIONAL = {"average.safetensors", "optimizer.pt"}


class DamagedCheckpoint(RunError):
    """A checkpoint that is incomplete, or whose files differ from its manifest."""


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: what the other files of a checkpoint must be for it to be valid.

    Attributes:
        step: optimizer steps taken.
        attempt: number of the attempt that wrote it; 0: unknown.
        files: fingerprints by name.
    """

    step: int
    attempt: int
    files: Mapping[str, Fingerprint]

    @classmethod
    def read(cls, folder: Folder, step: int) -> Manifest | None:
        """The manifest of the checkpoint of `step` in `folder`; None if it was never completed.

        Raises `DamagedCheckpoint` where it does not name the files of this checkpoint, `RunError` for a newer format.
        """
        try:
            value = folder.read_json("manifest.json")
        except FileNotFoundError:
            return None
        except RunError as error:
            raise DamagedCheckpoint(str(error)) from error
        damaged = f"{folder.uri}/manifest.json: is damaged"
        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            raise DamagedCheckpoint(f"{damaged}: it has no format")
        if value["format"] > CHECKPOINT_FORMAT:
            raise RunError(f"{folder.uri}: was written by a newer lehr (format {value['format']}); update lehr")
        files = value.get("files")
        if not isinstance(files, dict) or not REQUIRED <= files.keys() <= REQUIRED | OPTIONAL:
            raise DamagedCheckpoint(f"{damaged}: it does not name the files of a checkpoint")
        if value.get("step") != step:
            raise DamagedCheckpoint(f"{damaged}: it is of step {value.get('step')}")
        attempt = value.get("attempt")
        known = attempt if isinstance(attempt, int) else 0
        return cls(step, known, {name: tolerant(Fingerprint, each) for name, each in files.items()})

    def write(self, folder: Folder) -> None:
        """Writes manifest.json."""
        folder.write_json("manifest.json", {"format": CHECKPOINT_FORMAT, **asdict(self)})

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())
