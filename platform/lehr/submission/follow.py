"""Shows a job on a cluster as if it ran here: its lines, and its progress where this machine reaches the run folder."""

from __future__ import annotations

import re
import sys

from lehr.errors import LehrError
from lehr.runs import Folder, Progress, RunFolder
from lehr.screen import LiveScreen, Screen, open_screen
from lehr.submission.backend import Backend, Submission, poll


def run_folder_of(submission: Submission) -> RunFolder | None:
    """The run folder of a submission; None where there is none yet, or where this machine does not reach it."""
    if submission.request is None:
        return None
    try:
        folder = Folder.at(submission.request.job["storage"]).child(submission.run)
        return RunFolder.open(folder) if folder.exists("job.yaml") else None
    except LehrError:
        return None


def follow(backend: Backend, submission: Submission, screen: Screen | None = None) -> Submission:
    """Shows a job until it ends, and returns its last state. Ctrl-C stops the watching, not the job."""
    screen = screen or open_screen(sys.stdout)
    live = isinstance(screen, LiveScreen)
    run: RunFolder | None = None
    shown, told = Progress(), ""
    current = submission
    try:
        for current, text in poll(backend, submission):
            for line in text.splitlines():
                if not (live and re.match(r"epoch \d+/\d+  ", line)):  # the bar shows those
                    screen.say(line)
            if current.why != told and (told := current.why):
                screen.say(f"{current.run} is {current.status}: {told}")
            if live and not current.is_over:
                run = run or run_folder_of(current)
                progress = run.progress() if run else Progress()
                if not (progress.training or progress.overview):
                    screen.status(f"{current.status} on {backend.address}")
                elif progress != shown:
                    shown = progress
                    screen.progress(progress)
    finally:
        screen.close()
    return current
