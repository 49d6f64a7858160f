"""`lehr monitor`: Grafana dashboards, Prometheus rules and metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Grafana dashboards, Prometheus rules and the metrics that jobs export.", no_args_is_help=True)

Prometheus = Annotated[
    str | None, typer.Option("--prometheus", help="Address of Prometheus as Grafana reaches it.", show_default=False)
]
Reports = Annotated[
    str, typer.Option("--reports", help="Address at which run folders are served, for links to reports.")
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
        typer.Option(
            "--token-file", help="File that holds the token. Default: LEHR_GRAFANA_TOKEN or _FILE.", show_default=False
        ),
    ] = None,
    reports: Reports = "",
    ray: Ray = "",
    with_ray: Annotated[
        bool, typer.Option("--with-ray/--without-ray", help="Also install the dashboards that Ray's own pages embed.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite changes that were made by hand.")] = False,
) -> None:
    """Install the data source and dashboards in a Grafana.

    Run it again to update what has changed.

    Example: lehr monitor install --grafana http://grafana:3000
    """
    from lehr.monitoring.dashboards import dashboards
    from lehr.monitoring.grafana import connect
    from lehr.monitoring.ray_side import ray_dashboards

    server = connect(grafana, token_file=token_file, environment=os.environ)
    ours, others = dashboards(reports=reports, ray=ray), ray_dashboards() if with_ray else []
    for change in server.install(ours, others=others, prometheus=prometheus, force=force):
        print(f"{change.state:<10} {change.what}")


@app.command("files")
def files(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    prometheus: Annotated[
        str, typer.Option("--prometheus", help="Address of Prometheus as Grafana reaches it.")
    ] = "http://prometheus:9090",
    cluster: Annotated[str, typer.Option("--cluster", help="Name of the cluster, the label ray_io_cluster.")] = "ray",
    discovery: Annotated[
        str, typer.Option("--discovery", help="File in which the head node lists the targets to scrape.")
    ] = "/tmp/ray/prom_metrics_service_discovery.json",
    reports: Reports = "",
    ray: Ray = "",
) -> None:
    """Write dashboards, rules and configuration as files to mount.

    Example: lehr monitor files cluster/monitoring
    """
    from lehr.monitoring import provisioning

    written = provisioning.files(prometheus=prometheus, cluster=cluster, discovery=discovery, reports=reports, ray=ray)
    provisioning.write(folder, written)
    for name in sorted(written):
        print(folder / name)


@app.command("metrics")
def metrics() -> None:
    """List every metric that jobs export through Ray.

    Example: lehr monitor metrics
    """
    from rich.table import Table

    from lehr.monitoring.metrics import table
    from lehr.screen import console

    shown = Table("name", "unit", "labels", "when", "meaning", box=None, pad_edge=False, header_style="dim")
    for name, _, unit, labels, when, meaning in table():
        shown.add_row(name, unit, labels, when, meaning)
    console().print(shown)
