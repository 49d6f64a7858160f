"""The web application on Ray Serve: replicas that batch the images of all requests that wait."""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from lehr.errors import LehrError
from lehr.own_modules import look_in
from lehr.predict.predictor import load_predictor
from lehr.predict.rows import predict
from lehr.runs import Folder
from lehr.serving.app import Served, build_app
from lehr.trust import adopt

WAITING = 4
"""How many batches of requests a replica takes on; whatever comes beyond that waits in the proxy."""
MOST_QUEUED = 2000
"""How many requests may wait in the proxy before it answers 503."""


@dataclass(frozen=True)
class ServeSpec:
    """What is served, the same for every replica.

    Attributes:
        run: the folder of the run.
        name: its name, as its user knows it.
        token: what requests must bring; empty for none.
        batch_size: images per forward pass, at most.
        wait: how long an image waits for others, in seconds.
        threads: CPU threads of a replica.
        code: the folder of the user's own modules.
        grants: what the replicas may call; see `lehr.trust`.
    """

    run: Folder
    name: str
    token: str = ""
    batch_size: int = 32
    wait: float = 0.005
    threads: int = 1
    code: str = ""
    grants: tuple[str, ...] = ()


@serve.ingress()
class Replica:
    """Holds the predictor: on the GPU that Ray gave it, else on the CPU."""

    def __init__(self, spec: ServeSpec) -> None:
        """Raises RunError if the run has no model."""
        if spec.code:
            look_in(spec.code)
        adopt(spec.grants)
        torch.set_num_threads(spec.threads)
        self.spec = spec
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = load_predictor(spec.run).to(device)
        self.computing = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.ask.set_max_batch_size(spec.batch_size)  # type: ignore[attr-defined]
        self.ask.set_batch_wait_timeout_s(spec.wait)  # type: ignore[attr-defined]

    @serve.batch
    async def ask(self, pixels: list[np.ndarray]) -> list[np.ndarray]:
        """The probabilities of each image of a batch."""
        batch = np.stack(pixels)
        found = await asyncio.get_running_loop().run_in_executor(self.computing, predict, self.predictor, batch)
        return list(found.probabilities)

    def __serve_build_asgi_app__(self) -> FastAPI:
        predictor, spec = self.predictor, self.spec
        served = Served(spec.name, predictor.task, predictor.wanted, len(predictor.names))
        return build_app(served, self.ask, node_figures, token=spec.token, threads=spec.threads)


async def node_figures() -> str:
    """What Ray measures of its servers on this node, in Prometheus' text format: all replicas are in it."""
    here = ray.get_runtime_context().get_node_id()
    [node] = [each for each in ray.nodes() if each["NodeID"] == here]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = await asyncio.get_running_loop().run_in_executor(None, _fetch, address)
    return "".join(line + "\n" for line in text.splitlines() if "ray_serve_" in line)


def _fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())


def bound(spec: ServeSpec, replicas: int, gpus: float = 0.0, cpus: float = 1.0) -> Application:
    """The application: replicas of the run's model."""
    deployment = serve.deployment(Replica).options(  # type: ignore[attr-defined]
        name="lehr",
        num_replicas=replicas,
        max_ongoing_requests=WAITING * spec.batch_size,
        max_queued_requests=MOST_QUEUED,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        health_check_period_s=5,
    )
    return deployment.bind(spec)


def application(args: Mapping[str, Any]) -> Application:
    """What a RayService runs: see `lehr.kuberay.service`, which writes these arguments.

    Requests must bring the token of LEHR_SERVE_TOKEN. Code that the run names by import path is not run.

    Args:
        args: `run`, the address of a run folder; `replicas`; the `gpus` and `cpus` of each.

    Raises:
        LehrError: there is no token, or the run has no model.
    """
    token = os.environ.get("LEHR_SERVE_TOKEN", "")
    if not token:
        raise LehrError("LEHR_SERVE_TOKEN is empty; put a token into the key `token` of the Secret that was named")
    run, cpus = Folder.at(args["run"]), float(args.get("cpus", 1.0))
    spec = ServeSpec(run=run, name=run.name, token=token, threads=max(1, int(cpus)))
    return bound(spec, int(args["replicas"]), float(args.get("gpus", 0.0)), cpus)


def start(spec: ServeSpec, host: str, port: int, replicas: int, gpus: float = 0.0) -> None:
    """Starts the server on the connected Ray and returns once it answers. Raises LehrError if a replica fails."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=quiet)
    try:
        serve.run(bound(spec, replicas, gpus), name="lehr", route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        raise LehrError(f"the server did not start: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """The last line of what Ray Serve says of a replica that failed, which is the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray Serve gave no reason"


def stop() -> None:
    """Lets requests that are being answered end, and stops the server."""
    serve.shutdown()
