"""The tools: each a method that returns plain values, and whose docstring tells an agent what it does.

Nothing here runs code that a run or a job names, unless the person allowed it before (`lehr.trust`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import yaml

from lehr.agent.budget import Budget
from lehr.curves import diagnose_run
from lehr.errors import JobError, LehrError
from lehr.job import KINDS as ALL_KINDS
from lehr.job import Job, from_dict, json_schema, to_dict
from lehr.kinds import check
from lehr.kinds.kept import as_told, kept_job, kept_training
from lehr.paths import state_folder
from lehr.query import ask, tables
from lehr.result import as_data, find
from lehr.runs import Folder, summaries
from lehr.trust import addresses_of, calls_of
from lehr.trust import check as check_trust

MOST_RUNS, MOST_EPOCHS, MOST_EVENTS, MOST_ROWS = 100, 50, 50, 500  # that an answer tells, of more the newest
KINDS = ("train", "folds", "search", "recipe", "ensemble", "transfer")
OF_THE_PERSON = ("storage", "time_limit", "notify", "tracking")
"""Fields that the person decides."""
LEAST_MINUTES = 0.5
START_SECONDS = 60.0  # that a job may take until its run folder is there, before that is said


@dataclass(frozen=True)
class Tools:
    """What an agent may do.

    Attributes:
        storage: the folder of the runs, all of which it may read.
        budget: of what it starts.
        cluster: the address of a Ray cluster that jobs are submitted to; empty: they run on this machine.
    """

    storage: str
    budget: Budget
    cluster: str = ""

    def list_runs(self, containing: str = "", status: str = "") -> list[dict[str, Any]]:
        """Lists runs, the newest first: state, epochs, best value and its metric, when it started.

        Args:
            containing: only runs whose name contains this.
            status: only runs in this state: running, finished, stopped, failed, interrupted.
        """
        rows = summaries(Folder.at(self.storage))
        chosen = [row for row in rows if containing in row["name"] and status in ("", row["status"])]
        return list(reversed(chosen))[:MOST_RUNS]

    def show_run(self, run: str) -> dict[str, Any]:
        """Shows a run: its state, verdict, progress, newest epochs and events, and the whole job as it was resolved.

        Args:
            run: its name; a training inside a run is named like `search/trials/0003`.
        """
        told = as_data(self._found(run))
        return {**told, "epochs": told["epochs"][-MOST_EPOCHS:], "events": told["events"][-MOST_EVENTS:]}

    def diagnose_run(self, run: str) -> dict[str, Any]:
        """Says what the learning curves of a run show: what is wrong or right, the evidence, how sure that is, and what
        to change. Of a run made of several trainings, that of the one it keeps."""
        return diagnose_run(kept_training(self._found(run)).run).to_json()

    def compare_runs(self, runs: list[str]) -> list[dict[str, Any]]:
        """Compares runs: best value, all metrics and the job of each."""
        return [as_told(kept_training(self._found(run)).run, run) for run in runs]

    def best_job(self, run: str) -> str:
        """The job file (YAML) of the best training of a search, recipe or transfer, or of a training itself."""
        return kept_job(self._found(run))

    def query(self, select: str = "") -> dict[str, Any]:
        """Asks all runs a question in SQL (DuckDB). Without a question it lists the tables and their columns.

        Args:
            select: such as `select run, best from runs order by best desc limit 5`.
        """
        if not select:
            return {
                name: {"holds": what, "columns": ask(f"select * from {name} limit 0", self.storage).columns}
                for name, what in tables().items()
            }
        found = ask(select, self.storage)
        rows = [[_plain(cell) for cell in row] for row in found.rows[:MOST_ROWS]]
        return {"columns": found.columns, "rows": rows, "more": max(0, len(found.rows) - MOST_ROWS)}

    def job_schema(self, kind: str) -> dict[str, Any]:
        """The JSON Schema of a job, with what each field means and its default.

        Args:
            kind: train, folds, search, recipe, ensemble or transfer.
        """
        if kind not in KINDS:
            raise JobError(f"{kind} is not a kind that may be started; allowed: {', '.join(KINDS)}")
        name = ALL_KINDS[kind].__name__
        return {"$ref": f"#/$defs/{name}", "$defs": _reached(json_schema()["$defs"], name)}

    def check_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Checks a job without starting it, and returns the whole job that it means, with its defaults."""
        return to_dict(self._job(job, name=""))

    def start_run(self, job: dict[str, Any], name: str, minutes: float) -> dict[str, Any]:
        """Starts a job, if the budget has room for it. It is stopped, saved, after so many minutes at the latest; the
        same name and job started again resumes it.

        Args:
            job: the job, as a job file has it: `{"kind": "train", "data": {...}, "model": {...}}`.
            name: the name of its run.
            minutes: how long it may take at most; all of them count until it has ended.
        """
        if not minutes >= LEAST_MINUTES:
            raise JobError(f"{minutes:g} minutes are too few; allowed: {LEAST_MINUTES:g} or more", field="minutes")
        loaded = self._job(job, name)
        check(loaded)
        entry = self.budget.take(name, 60 * minutes)
        try:
            process = self._start(loaded, name, 60 * minutes)
        except BaseException:
            self.budget.note(entry, replace(entry, used=0.0))
            raise
        began = psutil.Process(process.pid).create_time() if process.poll() is None else 0.0
        self.budget.note(entry, replace(entry, process=process.pid, process_began=began))
        return {"run": name, "told": self._first_words(process, name), **self.show_budget()}

    def stop_run(self, run: str) -> str:
        """Asks a run that this agent started to save and stop."""
        if run not in {entry.run for entry in self.budget.spent() if entry.used is None}:
            raise LehrError(f"{run} is not a running job that an agent started here; only a person can stop it")
        self._found(run).request_stop("stopped by an agent")
        return f"{run} saves and stops"

    def show_budget(self) -> dict[str, Any]:
        """How many hours jobs may run in 24, how many are left, and what was started in the last 24 hours."""
        entries = self.budget.spent()
        return {
            "hours_a_day": self.budget.hours,
            "hours_left": round(self.budget.left / 3600, 3),
            "started": [
                {"run": entry.run, "minutes": round(entry.spent / 60, 1), "ended": entry.used is not None}
                for entry in entries
            ],
        }

    def reading(self) -> Sequence[Any]:
        """The tools that change nothing."""
        return (
            self.list_runs, self.show_run, self.diagnose_run, self.compare_runs, self.best_job, self.query,
            self.job_schema, self.check_job,
        )  # fmt: skip

    def working(self) -> Sequence[Any]:
        """The tools that start and stop jobs: none without a budget."""
        return (self.start_run, self.stop_run, self.show_budget) if self.budget.hours else ()

    def _found(self, run: str) -> Any:
        if "://" in run or run.startswith(("/", "~", ".")) or ".." in run.split("/"):
            raise LehrError(f"{run} is not the name of a run in {self.storage}; list_runs names them")
        return find(run, self.storage).record

    def _job(self, job: Mapping[str, Any], name: str) -> Job:
        for field in OF_THE_PERSON:
            if field in job:
                raise JobError("is for the person to decide; leave it out", field=field)
        if job.get("kind", "train") not in KINDS:
            raise JobError(f"{job['kind']} is not started by an agent; allowed: {', '.join(KINDS)}", field="kind")
        named = {"name": name} if name else {}
        loaded = from_dict({**job, **named, "storage": self.storage})
        check_trust([*calls_of(to_dict(loaded)), *addresses_of(to_dict(loaded))], "")
        return loaded

    def _start(self, job: Job, name: str, seconds: float) -> subprocess.Popen[bytes]:
        folder = state_folder("agent") / f"{self.budget.ledger.stem}-jobs"
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.yaml"
        file.write_text(
            yaml.safe_dump(to_dict(job) | {"time_limit": f"{seconds:g}s"}, sort_keys=False), encoding="utf-8"
        )
        words = ["submit", str(file), "--cluster", self.cluster, "--follow"] if self.cluster else ["run", str(file)]
        with file.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lehr", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _first_words(self, process: subprocess.Popen[bytes], name: str) -> str:
        """What a started job says first: where its run folder is, or why it did not start."""
        log = state_folder("agent") / f"{self.budget.ledger.stem}-jobs" / f"{name}.log"
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            if process.poll() is not None:
                if process.returncode:
                    raise LehrError(said.splitlines()[-1] if said else f"it ended with exit code {process.returncode}")
                return said.splitlines()[-1] if said else ""
            if "run folder:" in said or (self.cluster and said):
                return said.splitlines()[0]
            time.sleep(0.2)
        return "it is still starting"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _reached(definitions: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The definitions that one of them refers to, itself included."""
    found: dict[str, Any] = {}
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found[each] = definitions[each]
            left += [word.rpartition("/")[2] for word in _references(definitions[each])]
    return found


def _references(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in _references(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in _references(inner)]
    return []
