"""`lehr mcp`: the runs of a storage folder for an agent, within a budget."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import Cluster, Storage, only_one, storage_or_default


def mcp(
    storage: Storage = None,
    hours: Annotated[
        float,
        typer.Option(
            "--hours-a-day",
            min=0.0,
            max=24_000,
            help="How long the jobs that the agent starts may run in any 24 hours. [default: it starts none]",
            show_default=False,
        ),
    ] = 0.0,
    cluster: Cluster = None,
) -> None:
    """Let an agent look at runs and, within a budget, start jobs: a server of the Model Context Protocol.

    It speaks over standard input and output, as the settings of an agent have it:
    {"mcpServers": {"lehr": {"command": "lehr", "args": ["mcp", "--storage", "/home/me/runs", "--hours-a-day", "2"]}}}

    The agent lists, shows, diagnoses and compares runs, and asks them in SQL. With --hours-a-day it starts jobs, each
    with a time limit that counts against the budget; code and addresses that nobody allowed on this machine it cannot
    name.

    Example: lehr mcp --storage runs
    Example: lehr mcp --storage s3://lab/runs --hours-a-day 2 --cluster http://ray:8265
    """
    from pathlib import Path

    from lehr.agent import Budget, Tools
    from lehr.agent.server import make_server
    from lehr.job import absolute

    if cluster and not hours:
        only_one("--cluster", "a server that starts no jobs", "allowed: with --hours-a-day 2")
    where = absolute(storage_or_default(storage), Path.cwd())
    make_server(Tools(where, Budget(hours, where), cluster or "")).run()
