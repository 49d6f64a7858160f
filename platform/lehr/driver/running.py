"""A job that is running, as its kind sees it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from lehr.errors import LehrError, RunDeleted, RunHeld
from lehr.job import Job
from lehr.runs import DataFacts, Lease, RunFolder, UnreadableImages
from lehr.screen import Screen, open_log


class Interrupted(LehrError):
    """The job was asked to stop, by Ctrl-C or a signal; whatever there was to save is saved."""

    exit_code = 130


@dataclass
class Running:
    """A running job, as its kind sees it.

    Attributes:
        job: the job, checked.
        run: its run folder, held by this process.
        screen: shows progress and messages.
        log: the file for everything that is not for the screen.
        debug: whether everything runs in this process, without Ray.
        started: when the command began (`time.time()`).
        training: whether there is something to save; until then the first Ctrl-C ends the job at once.
        lease: this process's right to write the run folder.
        command: the command that runs this job again, for messages.
        startup: seconds until training began; None before.
        interrupted: why the job ends, once it was asked to stop before there was something to save.
        out_of_time: why the job is asked to stop, once its time limit is over.
        said: the lines about its data that were said.
    """

    job: Job
    run: RunFolder
    screen: Screen
    log: Path
    debug: bool
    started: float
    lease: Lease
    command: str
    training: bool = False
    startup: float | None = None
    interrupted: str = ""
    out_of_time: str = ""
    said: set[str] = field(default_factory=set)

    @property
    def stopped(self) -> str:
        """`Stopped`, with the reason where nobody asked for it; begins the sentence that ends the job."""
        return self.out_of_time.capitalize() or "Stopped"

    def check_lease(self) -> None:
        """Raises RunHeld if another process has taken over the run, because this one did not respond for too long.

        Raises RunDeleted if the run folder is gone, and Interrupted if the job was asked to stop while code was called
        that suppressed it.
        """
        if self.interrupted:
            raise Interrupted(self.interrupted)
        if self.lease.lost.is_set():
            raise RunHeld(f"{self.run.name} was taken over by another process; this one stops and writes nothing more")
        self.check_there()

    def check_there(self) -> None:
        """Raises RunDeleted if the run folder is gone."""
        folder = self.run.folder
        if folder.is_local and not (folder.local_path / "job.yaml").exists():
            raise RunDeleted(f"{folder.uri}: was deleted while it was being written; this job stops")

    def log_trace(self, trace: str) -> None:
        with os.fdopen(open_log(self.log), "a") as file:
            file.write(f"\n{trace}\n")

    def begin_training(self) -> None:
        """Notes that from now on there is something to save."""
        if not self.training:
            self.training = True
            self.startup = time.time() - self.started

    # `lehr.data.door.Listener`: what a job's data are, and how they are held.

    def say(self, line: str) -> None:
        """A line that stays; once, though each step of a recipe may have it to say."""
        if line not in self.said:
            self.said.add(line)
            self.screen.say(line)

    def status(self, text: str) -> None:
        self.screen.status(text)

    def note_data(self, facts: DataFacts) -> None:
        """Keeps what is known of the run's data in environment.json: of several data sets in a search, the last one."""
        self.run.write_environment(replace(self.run.environment, data=facts))

    def note_unreadable(self, images: UnreadableImages) -> None:
        """Adds the images that could not be read to what environment.json says about the run's data."""
        self.note_data(replace(self.run.environment.data or DataFacts(), unreadable=images))

    def note_fingerprint(self, letters: str) -> None:
        """Adds the fingerprint of the run's data to what environment.json says about them."""
        self.note_data(replace(self.run.environment.data or DataFacts(), fingerprint=letters))
