"""What the documents and messages tell a person to type can be typed: every `lehr …` line, every job in YAML."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer._click.exceptions import UsageError
from typer.core import TyperGroup

from lehr.cli import main
from lehr.cli.commands import SUMMARIES
from lehr.job import KINDS, load
from lehr.kinds import check
from lehr.own_modules import look_in
from lehr.runs import Folder, RunFolder

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if path.name != "CHANGELOG.md"  # commands as they were
    and not {".venv", "golden", "shared", "node_modules"} & set(path.relative_to(ROOT).parts)
)
TYPED = re.compile(r"(?m)^\s*(?:#\s+)?(lehr [a-z].*)$|`(lehr [a-z][^`]*)`")
IN_CODE = re.compile(r"(?<![\w.])(lehr (?:[a-z-]+)(?: [a-z-]+)*(?: --[a-z-]+)+)")


def lines_of(path: Path) -> Iterator[str]:
    """The command lines of a document, continued lines joined, comments and what follows a shell's `&&` left out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = text
    if path.suffix == ".md":
        blocks = "\n".join(re.findall(r"```(?:bash|sh|shell|console|)\n(.*?)```", text, re.DOTALL))
    inline = " ".join(f"`{found}`" for found in re.findall(r"`(lehr [a-z][^`\n]*)`", text))
    for block, quoted in TYPED.findall(f"{blocks}\n{inline}"):
        for command in re.split(r"\s(?:&&|\|)\s", re.sub(r"\s+#.*|\s+>.*", "", block or quoted)):
            is_table = re.match(r"lehr \w+\s{3,}\S", command)  # of measurements
            if command.startswith("lehr ") and not is_table and "…" not in command.split("=")[0]:
                yield command.strip()


def parse(line: str) -> None:
    """Parses a command line as the command would, without running it. Raises UsageError."""
    words = shlex.split(line)[1:]
    assert words[0] in SUMMARIES, f"{line}: there is no such command"
    command: Any = main.load(words[0])
    rest = words[1:]
    if isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{line}: there is no such command"
        command, rest = command.commands[rest[0]], rest[1:]
    if not {"--help", "-h"} & set(rest) and rest and not isinstance(command, TyperGroup):
        command.make_context(words[0], rest)


MY_NETS = "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, channels, outputs): ...\n"
COMMANDS = [(path, line) for path in (*DOCUMENTS, *sorted((ROOT / "jobs").glob("*.yaml"))) for line in lines_of(path)]


@pytest.mark.parametrize("path", sorted({path for path, _ in COMMANDS}), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_of_a_document_can_be_typed(path: Path) -> None:
    for line in (line for at, line in COMMANDS if at == path):
        try:
            parse(line)
        except UsageError as error:
            raise AssertionError(f"{path.relative_to(ROOT)}: {line}: {error.message}") from None


def test_the_documents_hold_command_lines() -> None:
    assert len(COMMANDS) > 60


def jobs() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        if path.name == "YOUR_OWN_CODE.md":  # its examples are run, with the code that they name
            continue
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
            said = yaml.safe_load(block)
            if isinstance(said, dict) and said.get("kind", "train") in KINDS and {"kind", "data", "train"} & set(said):
                yield f"{path.relative_to(ROOT)} {number}", block


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in jobs()])
def test_every_job_in_a_document_is_a_job(text: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "jobs" / "example.yaml").write_text(text)
    (tmp_path / "jobs" / "my_nets.py").write_text(MY_NETS)
    job = load(tmp_path / "jobs" / "example.yaml")
    look_in(job.folder)
    check(job)


def test_options_and_commands_in_error_messages_exist() -> None:
    found = {
        (path.name, line)
        for path in sorted((ROOT / "platform").rglob("*.py"))
        for line in IN_CODE.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 5
    for name, line in sorted(found):
        words = line.split()
        assert words[1] in SUMMARIES, f"{name}: {line}"
        command: Any = main.load(words[1])
        if isinstance(command, TyperGroup):
            assert words[2] in command.commands, f"{name}: {line}"
            command = command.commands[words[2]]
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, f"{name}: {line}"


def test_a_finished_run_that_is_resumed_gets_advice_that_can_be_typed(tmp_path: Path) -> None:
    from lehr.driver.run import to_start_over

    run = RunFolder.create(Folder.at(tmp_path / "train"), {"kind": "train", "name": "train"})
    for command in ("lehr run job.yaml", "lehr search job.yaml", "lehr recipe job.yaml", "lehr resume train"):
        advice = to_start_over(command, run)
        for line in re.findall(r"lehr [^&]*", advice):
            parse(line)
        assert "JOB" not in advice
        assert advice.endswith(" --fresh")
    assert "fresh=True" in to_start_over("lehr.run(…) of train", run)
