"""The commands by group: what `lehr --help` says about each, and the examples that its own help ends with.

A command's module is imported when the command is asked for, so `lehr --help` costs no more than this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command: the module of its name in `lehr.cli`, with a function of that name or an `app` of subcommands.

    Attributes:
        summary: its line in `lehr --help`, at most 66 characters: with the name, one line of 80.
        examples: what its own help ends with, as typed. A test parses each of them.
        subcommands: the examples of each subcommand, where it has any.
    """

    name: str
    summary: str
    examples: tuple[str, ...]
    subcommands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


GROUPS: Mapping[str, tuple[Command, ...]] = {
    "Train": (
        Command(
            "run",
            "Run a job, or resume a run that was stopped or killed",
            ("lehr run jobs/train.yaml", "lehr run jobs/train.yaml optimizer.lr=0.1 schedule=linear --debug"),
        ),
        Command(
            "search",
            "Search for the best hyperparameters, or preview the cost",
            (
                "lehr search jobs/search-grid.yaml --preview",
                "lehr search jobs/search-random-asha.yaml budget.trials=32",
            ),
        ),
        Command(
            "recipe",
            "Tune an untuned job step by step, then train it in full",
            ("lehr recipe jobs/recipe.yaml --preview", "lehr recipe jobs/recipe.yaml budget=2h"),
        ),
        Command(
            "best",
            "Write the job of a search's best trial, to train it for longer",
            ("lehr best search-grid best.yaml",),
        ),
    ),
    "Look at runs": (
        Command(
            "runs", "List runs with their state and best result", ("lehr runs", "lehr runs --storage s3://lab/runs")
        ),
        Command("show", "Show one run: its job, state, epochs and events", ("lehr show train",)),
        Command("diagnose", "Say what the learning curves show and what to try next", ("lehr diagnose train",)),
        Command("report", "Write a run's report and its learning curves", ("lehr report train",)),
        Command(
            "compare",
            "Draw the learning curves of several runs side by side",
            ("lehr compare train train-lr-0.1 --out comparison",),
        ),
        Command("rm", "Delete a run", ("lehr rm train-lr-0.1",)),
    ),
    "Use a model": (
        Command(
            "predict",
            "Predict every row of a data set, into Parquet files",
            ("lehr predict train photos/ predictions/", "lehr predict snapshot-ensemble photos/ out/ --members"),
        ),
        Command(
            "evaluate",
            "Measure accuracy and the confusion matrix on labelled data",
            ("lehr evaluate train photos/", "lehr evaluate cifar10 data/cifar10 --split test"),
        ),
        Command(
            "export",
            "Export a model, with its preprocessing, to PyTorch or ONNX",
            ("lehr export train", "lehr export train models/digits --format onnx"),
        ),
    ),
    "Clusters": (
        Command(
            "cluster",
            "Start, inspect or end a Ray cluster on this machine",
            (),
            {
                "up": ("lehr cluster up", "lehr cluster up --nodes 2 --cpus 4"),
                "status": ("lehr cluster status",),
                "down": ("lehr cluster down",),
            },
        ),
        Command(
            "check",
            "Check whether a cluster has what a job needs",
            ("lehr check jobs/train.yaml --cluster http://host:8265",),
        ),
        Command(
            "submit",
            "Submit a job to a cluster",
            (
                "lehr submit jobs/train.yaml --cluster http://host:8265 --follow",
                "lehr submit jobs/train.yaml --kubernetes cluster/profiles/gpu-cloud.yaml",
            ),
        ),
        Command("jobs", "List the jobs that were submitted to a cluster", ("lehr jobs --cluster http://host:8265",)),
        Command("status", "Show the progress and metrics of a submitted job", ("lehr status train",)),
        Command("logs", "Print the output of a submitted job", ("lehr logs train --follow",)),
        Command("attach", "Watch a submitted job until it ends", ("lehr attach train",)),
        Command("stop", "Stop a submitted job once it has saved a checkpoint", ("lehr stop train",)),
        Command(
            "resume",
            "Resume a run that failed or was stopped, on a cluster or here",
            ("lehr resume train", "lehr resume train --here"),
        ),
        Command(
            "manifest",
            "Print a job as a RayJob manifest for Kubernetes",
            ("lehr manifest jobs/train.yaml --profile my-cluster.yaml | kubectl apply -f -",),
        ),
        Command(
            "monitor",
            "Set up Grafana dashboards and Prometheus rules; list metrics",
            (),
            {
                "install": ("lehr monitor install --grafana http://grafana:3000",),
                "files": ("lehr monitor files cluster/monitoring",),
                "metrics": ("lehr monitor metrics",),
            },
        ),
    ),
    "Data and job files": (
        Command("new", "Write a job file from a template", ("lehr new", "lehr new train my-job.yaml")),
        Command(
            "data",
            "Look at a data set, or pack it into Parquet files",
            (),
            {
                "show": ("lehr data show jobs/train.yaml", "lehr data show photos/ data.image_size=64"),
                "pack": ("lehr data pack torchvision:CIFAR10 data/cifar10",),
            },
        ),
        Command(
            "schedule",
            "Draw learning-rate schedules",
            ("lehr schedule", "lehr schedule cosine step every=5ep --warmup 1ep --out schedules.png"),
        ),
        Command("schema", "Print the JSON Schema of job files, for editors", ("lehr schema > job.schema.json",)),
    ),
}
"""In the order of the help."""

INTERNAL = (Command("on-cluster", "Run a job that was sent to a cluster", ("lehr on-cluster job.yaml",)),)
"""Commands that clusters run, not people: not in the help."""

COMMANDS: Mapping[str, Command] = {command.name: command for group in (*GROUPS.values(), INTERNAL) for command in group}
