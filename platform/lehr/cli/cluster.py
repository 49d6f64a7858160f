"""`lehr cluster`: a Ray cluster on this machine, for development."""

from __future__ import annotations

from typing import Annotated

import typer

from lehr.cli.options import Cluster, ray_jobs

app = typer.Typer(help="Start, show and stop a Ray cluster on this machine.", no_args_is_help=True)


@app.command("up")
def up(
    nodes: Annotated[int, typer.Option(min=1, help="Ray nodes. More than one simulates a multi-node cluster.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPUs of each node. By default all cores, and one more for loading data.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the dashboard. By default 8265, or a free port.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address that the dashboard listens on. 0.0.0.0: on every network of this machine.")
    ] = "127.0.0.1",
) -> None:
    """Start a Ray cluster with a dashboard on this machine.

    The cluster keeps running when the terminal closes. It accepts only requests with its token, which is in
    ~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN; lehr and Ray send it by themselves.

    Example: lehr cluster up --nodes 2 --cpus 4
    """
    from lehr.ray_cluster import local_cluster
    from lehr.ray_cluster.folders import state_folder
    from lehr.ray_cluster.token import is_disabled

    found = local_cluster.start(nodes=nodes, cpus=cpus, port=port, host=host)
    asks = "" if is_disabled() else " (it asks for a token; to see it, type: lehr cluster token)"
    print(f"A cluster of {nodes} node{'' if nodes == 1 else 's'} is running. Dashboard: {found.address}{asks}")
    if is_disabled():
        print("RAY_AUTH_MODE=disabled: every user of this machine can run commands as you, until: lehr cluster down")
    if found.prometheus:
        grafana = state_folder() / "monitoring/grafana"
        print(f"Prometheus: {found.prometheus}   dashboards for Grafana: {grafana}")
    print("Submit a job: lehr submit JOB   stop the cluster: lehr cluster down")


@app.command("status")
def status(cluster: Cluster = None) -> None:
    """Show a cluster's nodes, its resources and the jobs that use them.

    Example: lehr cluster status
    """
    jobs = ray_jobs(cluster)
    dashboard = jobs.dashboard
    nodes, usage = dashboard.nodes(), dashboard.usage()
    print(f"{jobs.address}: Ray {dashboard.version()}, {nodes} node{'' if nodes == 1 else 's'}")
    for name, (used, total) in sorted(usage.items()):
        if name in ("CPU", "GPU"):
            print(f"{name}: {used:g} of {total:g} in use")
    unfinished = [each for each in jobs.jobs() if not each.is_over]
    for each in unfinished:
        print(f"{each.status}: {each.run}")
    if not unfinished:
        print("No job is running.")


@app.command("token")
def show_token() -> None:
    """Print the token that the dashboard of this user's clusters asks for.

    Example: lehr cluster token
    """
    from lehr.errors import LehrError
    from lehr.ray_cluster.token import token

    found = token()
    if not found:
        raise LehrError("there is no token yet; lehr cluster up makes one")
    print(found)


@app.command("down")
def down() -> None:
    """Stop the cluster that lehr cluster up started, and nothing else.

    Example: lehr cluster down
    """
    from lehr.ray_cluster import local_cluster

    print(f"Stopped the cluster at {local_cluster.stop().address}.")
