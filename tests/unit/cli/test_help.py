"""What `lehr --help`, `lehr --version` and completion print, and that every example in the help can be typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

import lehr
from lehr.cli import main
from lehr.cli.commands import GROUPS, SUMMARIES
from lehr.cli.main import app
from lehr.job import load

ROOT = Path(__file__).parents[3]
WIDEST = max(len(name) for group in GROUPS.values() for name in group)
LOADED = {name: main.load(name) for name in SUMMARIES}
EXAMPLES = [
    line.strip()
    for loaded in LOADED.values()
    for command in (loaded.commands.values() if isinstance(loaded, TyperGroup) else [loaded])
    for line in (command.epilog or "").splitlines()[2:]
]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"COLUMNS": "80", **environment}
    return subprocess.run(
        [sys.executable, "-m", "lehr", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_help_shows_every_command_in_a_group_with_its_whole_summary_on_one_line() -> None:
    printed = run("--help").stdout
    for heading, group in GROUPS.items():
        assert f"\n{heading}:\n" in printed
        for name, summary in group.items():
            assert f"\n  {name:{WIDEST}}  {summary}\n" in printed
    assert "..." not in printed.split("\nTrain:")[1]
    assert "on-cluster" not in printed
    assert max(map(len, printed.splitlines())) < 80


def test_every_module_with_a_command_is_in_the_table() -> None:
    shared = {"__init__", "main", "commands", "options", "listening", "other_tools"}
    modules = {path.stem for path in (ROOT / "platform/lehr/cli").glob("*.py")}
    assert modules - shared == {name.replace("-", "_") for name in SUMMARIES}


@pytest.mark.parametrize("name", SUMMARIES)
def test_h_is_help_and_help_ends_with_an_example_of_each_subcommand(name: str) -> None:
    printed = help_of(name, "--help")
    assert help_of(name, "-h") == printed
    text, _, examples = re.split("(  Examples?:\n)", printed)
    assert "Example:" not in text
    typed = [line.strip() for line in examples.splitlines()]
    loaded = LOADED[name]
    if not isinstance(loaded, TyperGroup):
        assert typed
        assert all(line.startswith(f"lehr {name}") for line in typed)
        return
    assert [line.split()[:3] for line in typed] == [["lehr", name, each] for each in loaded.commands]
    for each, example in zip(loaded.commands, typed, strict=True):
        assert f"    {example}\n" in help_of(name, each, "--help")


def help_of(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), prog_name="lehr", env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_can_be_typed(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(example.split(" | ")[0].split(" > ")[0])
    parsed = parse(words)
    monkeypatch.chdir(ROOT)
    for word in words:
        if word.startswith(("jobs/", "cluster/")):
            assert Path(word).exists(), word
    job = str(parsed.get("job"))
    if job.startswith("jobs/"):
        load(job, parsed.get("overrides") or ())


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command as its function would get them. Exits where the command line refuses the words."""
    command, name, *rest = get_command(app), *words
    context = None
    while isinstance(command, TyperGroup):
        context = command.make_context(name, rest, parent=context)
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found
        command = found
    return command.make_context(name, rest, parent=context).params


def test_the_readme_is_true() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in (line for _, block in blocks for line in block.splitlines()):
        if line.startswith("lehr "):
            parse(shlex.split(line.partition("  #")[0]))
    shown = next(block for language, block in blocks if language == "yaml")
    template = (ROOT / "jobs/train.yaml").read_text()
    assert shown == re.sub(r"^#.*\n", "", template, flags=re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in link:
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_version_says_what_a_bug_report_needs_and_loads_neither_torch_nor_ray() -> None:
    printed = run("--version")
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "ray")]
    python = ".".join(map(str, sys.version_info[:3]))
    assert printed.stdout == f"lehr {lehr.__version__} (Python {python}, {versions[0]}, {versions[1]})\n"
    assert printed.returncode == 0
    code = "import sys; sys.argv = ['lehr', '--version']\nfrom lehr.cli.main import app\napp(standalone_mode=False)\n"
    code += "print(sorted({'torch', 'ray', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_packages() -> None:
    assert lehr.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_help_imports_no_command() -> None:
    code = "import sys; sys.argv = ['lehr', '--help']\nfrom lehr.cli.main import app\napp(standalone_mode=False)\n"
    code += "print(sorted(name for name in sys.modules if name.startswith('lehr.')), 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["lehr.cli", "lehr.cli.commands", "lehr.cli.main", "lehr.credentials", "lehr.errors", "lehr.printing"]
    assert done.stdout.splitlines()[-1] == f"{expected} False"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lehr r", {"run", "recipe", "runs", "report", "rm", "resume"}),
        ("lehr cluster ", {"up", "status", "token", "down"}),
        ("lehr run --f", {"--fresh"}),
        ("lehr on", set()),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: set[str]) -> None:
    position = str(len(typed.split(" ")) - 1)
    done = run(_LEHR_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=position)
    assert set(done.stdout.split()) == offered
    assert done.returncode == 0


def test_install_completion_writes_what_the_shell_reads(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -m lehr --install-completion; true"],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_LEHR_COMPLETE=complete_bash" in (tmp_path / ".bash_completions/lehr.sh").read_text()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("rnu",), 'No such command "rnu". Did you mean run?'),
        (("nothing-like-it",), 'No such command "nothing-like-it".'),
        (("run", "jobs/train.yaml", "--debgu"), "No such option: --debgu (Possible options: --debug)"),
        (("--verison",), "No such option: --verison (Possible options: --version)"),
        (("data", "shwo"), 'No such command "shwo". Did you mean show?'),
    ],
)
def test_a_misspelt_command_or_option_gets_the_right_spelling(typed: tuple[str, ...], message: str) -> None:
    done = run(*typed)
    assert done.returncode == 2
    assert done.stderr.endswith(f"Error: {message}\n")
    assert done.stderr.splitlines()[1].startswith("Try 'lehr ")
