"""`lehr cluster`: a Ray cluster on this machine, for development."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import Cluster, ray_cluster

app = typer.Typer(help="A Ray cluster on this machine, for development.", no_args_is_help=True)


@app.command("up")
def up(
    nodes: Annotated[int, typer.Option(min=1, help="Ray nodes; several make this machine look like several.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, help="CPUs of each node. By default all cores, and one more for data.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Of the dashboard. By default 8265 or a free one.", show_default=False),
    ] = None,
) -> None:
    """Start a cluster with its dashboard; it goes on when the terminal closes."""
    from lehr.ray_cluster import local_cluster as local

    found = local.up(nodes=nodes, cpus=cpus, port=port)
    print(f"A cluster of {nodes} node{'' if nodes == 1 else 's'} runs here. Dashboard: {found.address}")
    if found.prometheus:
        print(f"Prometheus: {found.prometheus}   dashboards for Grafana: {local.state_folder() / 'monitoring/grafana'}")
    print("Send it a job: lehr submit JOB   end it: lehr cluster down")


@app.command("status")
def status(cluster: Cluster = None) -> None:
    """Show whether a cluster is up, what it has and who uses it."""
    jobs = ray_cluster(cluster)
    version, nodes, usage = jobs.version(), jobs.nodes(), jobs.usage()
    print(f"{jobs.address}: Ray {version}, {nodes} node{'' if nodes == 1 else 's'}")
    for name, (used, there) in sorted(usage.items()):
        if name in ("CPU", "GPU"):
            print(f"{name}: {used:g} of {there:g} in use")
    running = [each for each in jobs.jobs() if not each.is_over]
    for each in running:
        print(f"{each.status}: {each.run}")
    if not running:
        print("No job is running.")


@app.command("down")
def down() -> None:
    """End the cluster that `lehr cluster up` started, and nothing else."""
    from lehr.ray_cluster import local_cluster as local

    print(f"Ended the cluster at {local.down().address}.")
