"""Watching a job on a cluster as if it ran here: its lines, and its progress where its run folder is in reach."""

from __future__ import annotations

import re
import sys
from typing import Any

from lehr.errors import LehrError
from lehr.runs import Folder, RunFolder
from lehr.screen import LiveScreen, Screen, open_screen
from lehr.submission.backend import Backend, Submission, changes_of


def run_of(submission: Submission) -> RunFolder | None:
    """The run folder of a submission; None where there is none yet, or where this machine does not reach it."""
    if submission.request is None:
        return None
    try:
        folder = Folder.at(submission.request.job["storage"]).child(submission.run)
        return RunFolder.open(folder) if folder.exists("job.yaml") else None
    except LehrError:
        return None


def follow(backend: Backend, submission: Submission, screen: Screen | None = None) -> Submission:
    """Shows a job until it ends, and returns how it did. Ctrl-C ends the watching, not the job."""
    screen = screen or open_screen(sys.stdout)
    live = isinstance(screen, LiveScreen)
    run: RunFolder | None = None
    last: Any = None
    current = submission
    try:
        for current, text in changes_of(backend, submission):
            for line in text.splitlines():
                if not (live and re.match(r"epoch \d+/\d+  ", line)):  # the bar shows those
                    screen.say(line)
            if live and not current.is_over:
                run = run or run_of(current)
                progress = run.progress() if run else {}
                if progress and progress.get("updated") != last:
                    last = progress["updated"]
                    screen.progress(progress)
                elif not progress:
                    screen.status(f"{current.status} on {backend.address}")
    finally:
        screen.close()
    return current
