"""Only what the newest attempt names counts."""

from __future__ import annotations

import struct
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from lehr.errors import RunError, Superseded
from lehr.runs import (
    Attempt,
    Checkpoint,
    Claim,
    Folder,
    Lease,
    Recorder,
    all_attempts,
    begin_attempt,
    claim_attempt,
    newest_attempt,
    read_epochs,
    read_events,
    read_steps,
    save,
    saved,
    start_attempt,
    without_timing,
)


def checkpoint(step: int, recorder: Recorder) -> Checkpoint:
    return Checkpoint(step, {}, state={"covered": recorder.covered()}, attempt=recorder.attempt.number)


def steps(folder: Folder) -> list[int]:
    return [int(step) for step in read_steps(folder)["step"].to_numpy()]


def start(folder: Folder, after: Checkpoint | None = None, workers: int = 1) -> Recorder:
    return Recorder(folder, begin_attempt(folder, workers=workers, checkpoint=after))


def test_attempts_are_numbered_and_remember_where_they_came_from(folder: Folder) -> None:
    assert newest_attempt(folder) is None
    first = start(folder)
    first.write_steps({"step": [0, 1]})
    first.event("note", "hello")
    second = start(folder, checkpoint(2, first), workers=4)
    assert [a.number for a in all_attempts(folder)] == [1, 2]
    assert newest_attempt(folder) == second.attempt
    assert second.attempt.resumed_from == "step-0000000002-0001"
    assert (second.attempt.step, second.attempt.workers) == (2, 4)
    assert second.attempt.inherits == {"steps": {"1": 1}, "epochs": {}, "events": {"1": 1}}
    assert folder.files("attempts") == ["0001-start.json", "0001.json", "0002-start.json", "0002.json"]


def test_parts_later_than_the_checkpoint_are_dropped_and_events_are_kept(folder: Folder) -> None:
    first = start(folder)
    first.write_steps({"step": [0, 1]})
    first.write_epochs({"epoch": [1], "step": [2]})
    saved = checkpoint(2, first)
    first.write_steps({"step": [2, 3]})
    first.write_epochs({"epoch": [2], "step": [4]})
    first.event("late", "after the checkpoint")
    assert steps(folder) == [0, 1, 2, 3]

    second = start(folder, saved)
    assert steps(folder) == [0, 1]
    second.write_steps({"step": [2]})
    second.write_epochs({"epoch": [2]})
    second.event("on", "and on")
    assert steps(folder) == [0, 1, 2]
    assert read_epochs(folder).column("epoch").to_pylist() == [1, 2]
    assert [(event["attempt"], event["kind"]) for event in read_events(folder)] == [(1, "late"), (2, "on")]


def test_what_a_replaced_attempt_writes_later_never_counts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attempt, "check", lambda *_: None)  # it made sure that it is the newest, and then slept
    zombie = start(folder)
    zombie.write_steps({"step": [0, 1]})
    saved = checkpoint(2, zombie)
    second = start(folder, saved)
    zombie.write_steps({"step": [2, 3]})
    zombie.write_epochs({"epoch": [1]})
    zombie.event("late", "I do not know that I am dead")
    second.write_steps({"step": [2]})
    assert steps(folder) == [0, 1, 2]
    assert read_epochs(folder).num_rows == 0
    assert read_events(folder) == []

    third = start(folder, checkpoint(3, second))
    assert third.attempt.inherits["steps"] == {"1": 1, "2": 1}
    assert steps(folder) == [0, 1, 2]
    assert folder.files("steps") == ["part-0001-000001.parquet", "part-0002-000001.parquet"], "late parts are removed"


def test_an_attempt_that_died_at_once_changes_nothing(local: Folder) -> None:
    first = start(local)
    first.write_steps({"step": [0, 1]})
    saved = checkpoint(2, first)
    first.write_steps({"step": [2, 3]})
    start(local, saved)
    start(local, saved).write_steps({"step": [2]})
    assert steps(local) == [0, 1, 2]


def test_an_attempt_that_has_claimed_but_not_started_changes_nothing(folder: Folder) -> None:
    first = start(folder)
    first.write_steps({"step": [0, 1]})
    save(folder, checkpoint(2, first))
    first.write_steps({"step": [2, 3]})
    save(folder, checkpoint(4, first))
    claimed = claim_attempt(folder, workers=2)
    with pytest.raises(Superseded, match="attempt 2 has replaced attempt 1"):
        first.write_steps({"step": [4]})
    assert steps(folder) == [0, 1, 2, 3]
    assert list(saved(folder)) == [2, 4]
    assert newest_attempt(folder) == first.attempt
    assert all_attempts(folder)[1] == claimed

    third = start(folder, checkpoint(4, first))
    assert third.attempt.number == 3
    assert steps(folder) == [0, 1, 2, 3]


def test_an_attempt_that_sleeps_between_its_claim_and_its_start_does_not_start(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(folder)
    first.write_steps({"step": [0, 1]})
    early = checkpoint(2, first)
    first.write_steps({"step": [2, 3]})
    save(folder, late := checkpoint(4, first))
    sleeper = claim_attempt(folder, workers=1)
    third = start(folder, late)
    third.write_steps({"step": [4]})
    with monkeypatch.context() as patch:  # it made sure that it is the newest, and then slept
        patch.setattr(Attempt, "check", lambda *_: None)
        with pytest.raises(RunError, match=r"0002-start\.json: another process has written this file"):
            start_attempt(folder, sleeper, checkpoint=early)
    with pytest.raises(Superseded, match="attempt 3 has replaced attempt 2"):
        start_attempt(folder, sleeper, checkpoint=early)
    assert [attempt.open for attempt in all_attempts(folder)] == [False, True, False]
    assert steps(folder) == [0, 1, 2, 3, 4]
    assert list(saved(folder)) == [4]


def test_starting_from_scratch_empties_the_record(local: Folder) -> None:
    first = start(local)
    first.write_steps({"step": [0, 1]})
    start(local).write_steps({"step": [0]})
    assert steps(local) == [0]


def test_the_directory_read_as_one_table_is_the_record(local: Folder) -> None:
    first = start(local)
    first.write_steps({"step": [0, 1], "loss": [2.0, float("nan")], "seconds": [0.1, 0.2]})
    saved = checkpoint(2, first)
    first.write_steps({"step": [2, 3], "loss": [1.0, 0.5]})
    start(local, saved).write_steps({"step": [2], "update_ratio": [1e-3]})
    whole = pq.read_table(local.local_path / "steps")
    record = read_steps(local)
    assert whole.schema.equals(record.schema, check_metadata=False)
    assert str(whole.to_pydict()) == str(record.to_pydict())
    assert "seconds" not in without_timing(whole).column_names


def test_racing_starters_get_different_numbers_and_the_newest_starts(local: Folder) -> None:
    gate, got = threading.Barrier(6), []
    started: list[int] = []

    def begin() -> None:
        gate.wait()
        got.append(claimed := claim_attempt(local, workers=1))
        with suppress(Superseded):
            started.append(start_attempt(local, claimed, checkpoint=None).number)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.number for a in got) == [1, 2, 3, 4, 5, 6]
    assert max(started) == 6
    assert [a.number for a in all_attempts(local) if not a.open] == sorted(started)
    assert [a.id for a in all_attempts(local)] == [a.id for a in sorted(got, key=lambda a: a.number)]


def test_parts_that_are_gone_are_named_and_do_not_stop_a_resume(local: Folder) -> None:
    first = start(local)
    first.write_steps({"step": [0]})
    first.write_steps({"step": [1]})
    local.delete("steps/part-0001-000001.parquet")
    second = start(local, checkpoint(2, first))
    assert second.attempt.missing == ["steps/part-0001-000001.parquet"]
    assert steps(local) == [1]


def test_a_reader_whose_parts_a_new_attempt_deletes_reads_again(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(local)
    first.write_steps({"step": [0]})
    saved = checkpoint(1, first)
    first.write_steps({"step": [1]})
    read = Folder.read
    raced: list[str] = []

    def read_while_another_begins(self: Folder, name: str, limit: int | None = None) -> bytes:
        if name.startswith("steps/") and not raced:
            raced.append(name)
            begin_attempt(local, workers=1, checkpoint=saved)
        return read(self, name, limit)

    monkeypatch.setattr(Folder, "read", read_while_another_begins)
    assert steps(local) == [0]
    assert raced


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"attempt": 1}', None])
@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_damaged_or_lost_file_of_an_attempt_loses_nothing(local: Folder, damaged: int, content: bytes | None) -> None:
    """Before, neither a resume nor --fresh worked."""
    first = start(local)
    first.write_steps({"step": [0, 1]})
    first.write_epochs({"epoch": [1], "step": [2]})
    second = start(local, checkpoint(2, first))
    second.write_steps({"step": [2, 3]})
    second.write_epochs({"epoch": [2], "step": [4]})
    third = start(local, checkpoint(4, second))
    third.write_steps({"step": [4, 5]})
    third.write_epochs({"epoch": [3], "step": [6]})
    name = f"attempts/{damaged:04d}.json"
    local.delete(name) if content is None else local.write(name, content)
    assert steps(local) == [0, 1, 2, 3, 4, 5]
    assert read_epochs(local)["epoch"].to_pylist() == [1, 2, 3]
    fourth = start(local, checkpoint(6, third))
    assert fourth.attempt.number == 4
    fourth.write_steps({"step": [6]})
    assert steps(local) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("resumed", [70, 40])
def test_many_small_parts_become_few_and_count_up_to_the_step_of_a_resume(folder: Folder, resumed: int) -> None:
    """A run of 3,000 epochs had 6,000 parts, and each of its checkpoints named them all."""
    first = start(folder)
    for step in range(80):
        if step == resumed:
            saved = checkpoint(step, first)
        first.write_steps({"step": [step]})
    names = [f"part-0001-{number:06d}.parquet" for number in range(65, 81)]
    assert folder.files("steps") == ["part-0001-000001-000064.parquet", *names]
    assert steps(folder) == list(range(80))
    assert first.covered()["steps"] == {"1": 80}
    second = start(folder, saved)
    assert not second.attempt.missing
    assert steps(folder) == list(range(resumed))
    second.write_steps({"step": [resumed]})
    assert steps(folder) == list(range(resumed + 1))


def test_a_merge_that_was_interrupted_counts_every_row_once(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recorder(local, begin_attempt(local, workers=1, checkpoint=None), merge=3)
    monkeypatch.setattr(Folder, "delete", lambda *_: None)
    for step in range(4):
        first.write_steps({"step": [step]})
    assert len(local.files("steps")) == 5
    assert steps(local) == [0, 1, 2, 3]


def test_a_damaged_part_is_named_when_a_run_resumes_and_the_rest_of_the_record_is_kept(local: Folder) -> None:
    first = start(local)
    for step in range(3):
        first.write_steps({"step": [step], "loss": [0.5 + step]})
    saved = checkpoint(3, first)
    name = "steps/part-0001-000002.parquet"
    data = local.read(name)
    at = data.index(struct.pack("<d", 1.5))
    local.write(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(RunError, match="is damaged"):
        steps(local)
    assert start(local, saved).attempt.missing == [name]
    assert steps(local) == [0, 2]


def test_no_attempt_begins_for_a_driver_that_has_lost_its_lease(local: Folder) -> None:
    with Lease.acquire(local) as lease:
        mine = Claim(local.uri, lease.holder.owner)
        begin_attempt(local, workers=1, checkpoint=None, claim=mine)
        replace(lease.holder, owner="another", user="somebody").write(local)
        with pytest.raises(Superseded, match="was taken over by somebody"):
            begin_attempt(local, workers=1, checkpoint=None, claim=mine)
        local.delete("lease.json")
        with pytest.raises(Superseded, match="was taken over by another process"):
            begin_attempt(local, workers=1, checkpoint=None, claim=mine)
    assert local.files("attempts") == ["0001-start.json", "0001.json"]


def test_an_attempt_with_fields_of_a_later_writer_is_read(local: Folder) -> None:
    attempt = begin_attempt(local, workers=1, checkpoint=None)
    for name in ("attempts/0001.json", "attempts/0001-start.json"):
        value: dict[str, Any] = local.read_json(name)
        local.write_json(name, value | {"later": 1})
    assert newest_attempt(local) == attempt
