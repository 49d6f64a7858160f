"""What a check found reaches the client unchanged, and nothing else in the log counts as a finding."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.dashboard import Dashboard
from typer import Exit

from lehr.cli.check import check
from lehr.submission.backend import Request
from lehr.submission.check_result import CheckResult, Finding, Level

WARNING = Finding("warning", "a node did not answer", "it matters", "check that node; or remove it")
REFUSED = Finding("refused", "s3://ü cannot be written", "every node must", "give it\tcredentials")
PRINTED = """\
warning: learning rate is high
refused: my own words
Checked in 0.1 s: nothing found.
lehr-check-result {"findings": [], "seconds": 0.1}
lehr-check-result 0000000000000000 {"findings": [{"level": "refused", "what": "", "why": "", "remedy": ""}]}
"""
"""What a user's own code may print."""


@pytest.mark.parametrize("findings", [(), (WARNING,), (REFUSED, WARNING)])
def test_a_result_is_read_as_it_was_written(findings: tuple[Finding, ...]) -> None:
    result = CheckResult(findings, 2.25)
    line = result.write("token")
    assert "\n" not in line
    assert CheckResult.read(f"first line\n{line}\nlast line\n", "token") == result


def test_output_of_the_users_own_code_is_no_result() -> None:
    token = Request("mine", {}, "/", "/").check_token
    assert CheckResult.read(PRINTED, token) is None
    result = CheckResult((WARNING,), 1.0)
    assert CheckResult.read(f"{PRINTED}{result.write(token)}\n{PRINTED}", token) == result


@pytest.mark.parametrize(
    "damaged", ['{"findings": [{"lev', "[]", '{"findings": [{"level": "bad"}], "seconds": 1}', "{}"]
)
def test_a_result_of_which_only_part_is_written_is_not_read(damaged: str) -> None:
    assert CheckResult.read(f"lehr-check-result token {damaged}", "token") is None


def test_every_request_has_a_token_of_its_own() -> None:
    tokens = {Request("mine", {}, "/", "/").check_token for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) == 16 for token in tokens)


@pytest.mark.parametrize("level", ["warning", "refused"])
def test_a_print_in_the_users_code_is_not_shown_as_a_finding(
    level: Level,
    dashboard: Dashboard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "job.yaml").write_text("kind: train\n")
    monkeypatch.chdir(tmp_path)
    found = Finding(level, "the real one", "it matters", "do this")

    def run(request: Request) -> str:
        return f"{PRINTED}{CheckResult((found,), 1.0).write(request.check_token)}\n{PRINTED}"

    dashboard.run = run
    if level == "refused":
        with pytest.raises(Exit):
            check("job.yaml", cluster=dashboard.address)
    else:
        check("job.yaml", cluster=dashboard.address)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{level}: the real one; it matters; do this"
    assert second.startswith(f"Checked {dashboard.address} in ")
