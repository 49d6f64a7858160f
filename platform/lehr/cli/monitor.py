"""`lehr monitor`: dashboards, rules and metrics for a cluster's own monitoring."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Dashboards in Grafana, rules for Prometheus, and what is exported.", no_args_is_help=True)

Prometheus = Annotated[
    str | None, typer.Option("--prometheus", help="Address of Prometheus, as Grafana reaches it.", show_default=False)
]
Reports = Annotated[
    str, typer.Option("--reports", help="Address under which run folders are served, for links to reports.")
]
Ray = Annotated[str, typer.Option("--ray", help="Address of the Ray dashboard, for links to it.")]


@app.command("install")
def install(
    grafana: Annotated[
        str, typer.Option("--grafana", envvar="LEHR_GRAFANA_URL", help="Address of Grafana.", show_default=False)
    ],
    prometheus: Prometheus = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token; else LEHR_GRAFANA_TOKEN(_FILE).", show_default=False),
    ] = None,
    reports: Reports = "",
    ray: Ray = "",
    rays_own: Annotated[
        bool, typer.Option("--with-ray/--without-ray", help="Also the dashboards that Ray's own pages embed.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what was changed by hand.")] = False,
) -> None:
    """Put our folder, data source and dashboards into a Grafana. Doing it again changes only what is new."""
    from lehr.monitoring.dashboards import dashboards
    from lehr.monitoring.grafana import connect
    from lehr.monitoring.ray_side import ray_dashboards

    found = connect(grafana, token_file=token_file, environment=os.environ)
    wanted, others = dashboards(reports=reports, ray=ray), ray_dashboards() if rays_own else []
    for change in found.install(wanted, others=others, prometheus=prometheus, force=force):
        print(f"{change.state:<10} {change.what}")


@app.command("files")
def files(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    prometheus: Annotated[
        str, typer.Option("--prometheus", help="Address of Prometheus, as Grafana reaches it.")
    ] = "http://prometheus:9090",
    cluster: Annotated[str, typer.Option("--cluster", help="Name of the cluster, label ray_io_cluster.")] = "ray",
    discovery: Annotated[
        str, typer.Option("--discovery", help="File in which the cluster's head keeps its targets.")
    ] = "/tmp/ray/prom_metrics_service_discovery.json",
    reports: Reports = "",
    ray: Ray = "",
) -> None:
    """Write dashboards, rules, scrape configuration and provisioning as files, to be mounted."""
    from lehr.monitoring.provisioning import files as make
    from lehr.monitoring.provisioning import write

    made = make(prometheus=prometheus, cluster=cluster, discovery=discovery, reports=reports, ray=ray)
    write(folder, made)
    for name in sorted(made):
        print(folder / name)


@app.command("metrics")
def metrics() -> None:
    """List every metric that jobs export through Ray."""
    from rich.console import Console
    from rich.table import Table

    from lehr.monitoring.metrics import table

    shown = Table("name", "unit", "labels", "when", "what", box=None, pad_edge=False, header_style="dim")
    for name, _, unit, labels, when, what in table():
        shown.add_row(name, unit, labels, when, what)
    Console(highlight=False).print(shown)
