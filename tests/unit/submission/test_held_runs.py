"""A run folder that another process holds is waited for, but not forever."""

from __future__ import annotations

import pytest

from lehr.errors import RunError, RunHeld
from lehr.submission import held_runs
from lehr.submission.held_runs import when_free


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_runs, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(held_runs, "POLL_SECONDS", 0.1)


def test_a_run_starts_as_soon_as_it_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    attempts: list[int] = []

    def run() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise RunHeld("digits is held by somebody")
        return "done"

    assert when_free(run) == "done"
    assert capsys.readouterr().out == "digits is held by somebody; waiting for its lease to expire\n"


@pytest.mark.parametrize("error", [RunHeld("held"), RunError("another job")])
def test_a_holder_that_lives_and_any_other_error_are_raised(error: RunError) -> None:
    def run() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        when_free(run)
    assert raised.value is error
