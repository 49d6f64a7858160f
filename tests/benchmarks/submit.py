"""Submitting a job: lehr against the bare call of Ray's Jobs API, first within one process, then as two commands.

Both submit the same package of the working folder, which the cluster has already, and both return when Ray has accepted
the job; neither waits for it to start. In addition to the bare call, lehr packs and hashes the folder, asks whether the
cluster has that package, and asks what the cluster knows of this run. Needs no GPU; starts a cluster of its own.

    python -m tests.benchmarks.submit [rounds]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import count
from pathlib import Path

from tests.benchmarks.alternating import compare

BARE = """\
import json, sys, urllib.request
address, name, package = sys.argv[1:]
body = {"entrypoint": "true", "submission_id": name, "runtime_env": {"working_dir": package}}
request = urllib.request.Request(f"{address}/api/jobs/", json.dumps(body).encode(), method="POST")
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=60).read())
"""
numbers = count(1)


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lehr-submit-") as folder:
        os.chdir(folder)
        os.environ |= {"LEHR_STATE": f"{folder}/state", "RAY_AUTH_MODE": "disabled"}
        Path("job.yaml").write_text("kind: train\n")
        from lehr.job import load
        from lehr.ray_cluster import local_cluster
        from lehr.submission.backend import newest
        from lehr.submission.package import package
        from lehr.submission.ray_jobs import RayJobs
        from lehr.submission.submit import package_of, request_of

        address = local_cluster.start(cpus=2).address
        try:
            uri = f"gcs://{package(Path.cwd()).name}"

            def settle() -> None:
                """Waits until the submitted jobs have ended, so that every round finds an idle cluster."""
                jobs = RayJobs(address)
                for each in jobs.jobs():
                    if not each.is_over:
                        jobs.stop(each)
                while not all(each.is_over for each in jobs.jobs()):
                    time.sleep(0.2)

            def timed(*words: str) -> float:
                started = time.perf_counter()
                subprocess.run([sys.executable, *words], check=True, capture_output=True)
                taken = (time.perf_counter() - started) * 1000
                settle()
                return taken

            def ours() -> float:
                name = f"name=n{next(numbers)}"
                words = ("submit", "job.yaml", name, "--cluster", address, "--no-wait", "--no-check")
                return timed("-m", "lehr", *words)

            def in_process() -> float:
                started = time.perf_counter()
                job = load("job.yaml", [f"name=p{next(numbers)}"])
                request = request_of(job, Path.cwd(), check=False)
                jobs = RayJobs(address, lambda: package_of(job, Path.cwd()))
                jobs.submit(request, newest(jobs, request.run))
                taken = (time.perf_counter() - started) * 1000
                settle()
                return taken

            def bare() -> float:
                body = {"entrypoint": "true", "submission_id": f"q{next(numbers)}", "runtime_env": {"working_dir": uri}}
                started = time.perf_counter()
                request = urllib.request.Request(f"{address}/api/jobs/", json.dumps(body).encode(), method="POST")
                request.add_header("Content-Type", "application/json")
                urllib.request.urlopen(request, timeout=60).read()
                taken = (time.perf_counter() - started) * 1000
                settle()
                return taken

            def upload() -> float:
                """Packs and hashes the folder, and asks whether the cluster has that package."""
                started = time.perf_counter()
                name = package(Path.cwd()).name
                urllib.request.urlopen(f"{address}/api/packages/gcs/{name}", timeout=60).read()
                return (time.perf_counter() - started) * 1000

            ours()  # uploads the package, once
            in_process()
            sides = {"lehr": in_process, "bare REST": bare}
            compared = compare("sending a job from Python", "ms", sides, rounds, "at most 1.5 and the upload")
            uploads, bares = (statistics.median(each() for _ in range(rounds)) for each in (upload, bare))
            print(f"without the upload, {uploads:.1f} ms: {compared - uploads / bares:.2f} x the bare call\n")
            compare(
                "sending a job by a command",
                "ms",
                {"lehr": ours, "bare REST": lambda: timed("-c", BARE, address, f"b{next(numbers)}", uri)},
                rounds,
                "at most 1.5 and the upload",
            )
        finally:
            local_cluster.stop()
            os.chdir("/")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
