"""The content of our dashboards as data: rows of panels with PromQL. `dashboards.py` turns them into Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass

from lehr.monitoring.metrics import BY_NAME

RUN = 'ray_io_cluster=~"$Cluster",run=~"$run"'
CLUSTER = 'ray_io_cluster=~"$Cluster"'
STATES = ("firing", "pending")


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: legend to PromQL.
        unit: Grafana's name for the unit of its values.
        kind: Grafana's name for the panel type.
        gpu: whether it stays empty without a GPU.
        jobs: the kinds of job that it has data for; empty: all.
        log: whether its axis is logarithmic.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    gpu: bool = False
    jobs: tuple[str, ...] = ()
    log: bool = False


def series(name: str, selector: str = RUN) -> str:
    """The series of one of our metrics, for the runs selected by the dashboard's variables."""
    return f"{BY_NAME[name].series}{{{selector}}}"


def one(name: str, *labels: str, how: str = "max") -> str:
    """One value per run (and per label), without the labels that Ray adds, such as the driver's id."""
    return f"{how} by ({', '.join(('run', 'trial', *labels))}) ({series(name)})"


WHO = "{{run}} {{trial}}"

RUNS: dict[str, list[Panel]] = {
    "Now": [
        Panel("Runs", "Jobs that are running.", {"runs": f"count({one('lehr_running')})"}, kind="stat", width=4),
        Panel(
            "Progress", "Share of the job that is done.", {WHO: one("lehr_progress_ratio")}, "percentunit", "bargauge"
        ),
        Panel("Time left", "The job's own estimate.", {WHO: one("lehr_left_seconds")}, "s", "bargauge", 6),
        Panel(
            "Time since last progress",
            "Time since the job last reported something new. A few seconds are normal; minutes mean a long evaluation, "
            "or a job that hangs.",
            {WHO: f"time() - {one('lehr_progress_timestamp_seconds')}"},
            "s",
            "bargauge",
            6,
        ),
    ],
    "Learning": [
        Panel("Training loss", "Mean of the latest steps.", {WHO: one("lehr_train_loss")}, log=True),
        Panel("Validation loss", "After each epoch.", {WHO: one("lehr_validation_loss")}, log=True),
        Panel(
            "Accuracy",
            "On the validation split and on clean training images (evaluation mode). A growing gap means overfitting.",
            {
                f"{WHO} validation": one("lehr_validation_accuracy"),
                f"{WHO} train": one("lehr_train_accuracy"),
            },
            "percentunit",
        ),
        Panel(
            "Other metrics",
            "Those that the job lists, on the validation split.",
            {f"{WHO} {{{{metric}}}}": one("lehr_validation_metric", "metric")},
        ),
        Panel("Learning rate", "Of the latest step.", {WHO: one("lehr_learning_rate")}),
        Panel(
            "Gradient norm",
            "Before clipping. Jumps by a factor of ten suggest that the learning rate is too high.",
            {WHO: one("lehr_gradient_norm")},
            log=True,
        ),
        Panel("Epoch", "Epochs of training data seen.", {WHO: one("lehr_epoch")}),
    ],
    "Speed": [
        Panel(
            "Examples per second",
            "Training examples over the time of their steps.",
            {WHO: one("lehr_examples_per_second")},
            width=8,
        ),
        Panel("Step time", "Including the wait for input.", {WHO: one("lehr_step_seconds")}, "s"),
        Panel(
            "Where the time goes",
            "Share of each part in the last minute: waiting for input, compute (including communication), evaluation, "
            "records, checkpoints.",
            {f"{WHO} {{{{part}}}}": f"run:lehr_part:share1m{{{RUN}}}"},
            "percentunit",
        ),
        Panel(
            "Input share",
            "Share of a step that is spent waiting for its batch. Above one half, faster input helps more than faster "
            "GPUs.",
            {WHO: f"run:lehr_input:share5m{{{RUN}}}"},
            "percentunit",
        ),
        Panel(
            "Communication per step",
            "Time in which workers exchange gradients and compute nothing; only with several workers.",
            {WHO: one("lehr_communication_seconds")},
            "s",
        ),
        Panel(
            "GPU memory",
            "Peak memory of the first worker's tensors.",
            {WHO: one("lehr_gpu_memory_bytes")},
            "bytes",
            gpu=True,
        ),
    ],
    "Safety": [
        Panel(
            "Age of the newest checkpoint",
            "The training time that a crash would cost, at most.",
            {WHO: f"time() - {one('lehr_checkpoint_timestamp_seconds')}"},
            "s",
        ),
        Panel("Checkpoint size", "Of the newest checkpoint.", {WHO: one("lehr_checkpoint_bytes")}, "bytes"),
        Panel("Restarts", "Attempts after the first.", {WHO: one("lehr_restarts")}, width=4),
        Panel("Workers", "Of the running attempt.", {WHO: one("lehr_workers")}, width=4),
        Panel("Skipped images", "Unreadable images that were skipped.", {WHO: one("lehr_skipped_images")}, width=12),
        Panel(
            "Loss not finite",
            "1 if the training loss is NaN or infinite.",
            {WHO: one("lehr_not_finite")},
            width=12,
        ),
    ],
}

SEARCH: dict[str, list[Panel]] = {
    "Search": [
        Panel(
            "Best value so far",
            "Of the metric that is optimised.",
            {"{{run}} {{metric}}": one("lehr_best", "metric")},
            width=12,
        ),
        Panel(
            "Trials by state",
            "Running, finished, ended early, failed.",
            {"{{run}} {{state}}": one("lehr_children", "state")},
            width=12,
            jobs=("search", "recipe", "ensemble"),
        ),
        Panel(
            "Trials that reached each rung",
            "How the search narrows: each rung should keep a fixed share of the previous one.",
            {"{{run}} epoch {{epoch}}": one("lehr_rung_reached", "epoch")},
            kind="bargauge",
            width=12,
            jobs=("search",),
        ),
        Panel(
            "Trials stopped at each rung",
            "Where trials were ended early.",
            {"{{run}} epoch {{epoch}}": one("lehr_rung_stopped", "epoch")},
            kind="bargauge",
            width=12,
            jobs=("search",),
        ),
        Panel(
            "Epochs spent and saved",
            "Epochs trained, and epochs saved because trials were stopped early.",
            {"{{run}} spent": one("lehr_epochs_spent"), "{{run}} saved": one("lehr_epochs_saved")},
            width=12,
            jobs=("search",),
        ),
        Panel(
            "Step of the recipe",
            "The current step of each recipe.",
            {"{{run}} {{step}}": one("lehr_recipe_step", "step")},
            width=12,
            jobs=("recipe",),
        ),
    ],
}

HEALTH: dict[str, list[Panel]] = {
    "Nodes": [
        Panel("Nodes up", "Nodes that report metrics.", {"{{ray_io_cluster}}": f"cluster:ray_nodes:up{{{CLUSTER}}}"}),
        Panel(
            "Disk used",
            "Of the disk that Ray writes to.",
            {"{{ip}}": f"max by (ip) (ray_node_disk_utilization_percentage{{{CLUSTER}}})"},
            "percent",
        ),
        Panel(
            "Memory used",
            "Share of each node's memory.",
            {"{{ip}}": f"max by (ip) (ray_node_mem_used{{{CLUSTER}}}) / max by (ip) (ray_node_mem_total{{{CLUSTER}}})"},
            "percentunit",
        ),
        Panel(
            "CPU used", "Of each node.", {"{{ip}}": f"max by (ip) (ray_node_cpu_utilization{{{CLUSTER}}})"}, "percent"
        ),
        Panel(
            "Object store used",
            "Shared memory that holds the images; when it is full, Ray spills objects to disk.",
            {
                "{{NodeAddress}}": f"max by (NodeAddress) (ray_object_store_used_memory{{{CLUSTER}}}) / "
                f"(max by (NodeAddress) (ray_object_store_used_memory{{{CLUSTER}}}) "
                f"+ max by (NodeAddress) (ray_object_store_available_memory{{{CLUSTER}}}))"
            },
            "percentunit",
        ),
        Panel(
            "CPUs allocated to jobs",
            "CPUs that Ray has allocated, out of all.",
            {
                "used": f'sum(ray_resources{{Name="CPU",State="USED",{CLUSTER}}})',
                "all": f'sum(ray_resources{{Name="CPU",{CLUSTER}}})',
            },
        ),
    ],
    "GPUs": [
        Panel(
            "GPU use",
            "Share of the time in which a kernel was running.",
            {"{{ip}} {{GpuIndex}}": f"max by (ip, GpuIndex) (ray_node_gpus_utilization{{{CLUSTER}}})"},
            "percent",
            gpu=True,
        ),
        Panel(
            "GPU memory used",
            "Of each GPU, by all processes.",
            {"{{ip}} {{GpuIndex}}": f"max by (ip, GpuIndex) (ray_node_gram_used{{{CLUSTER}}}) * 1048576"},
            "bytes",
            gpu=True,
        ),
        Panel(
            "GPUs allocated to jobs",
            "GPUs that Ray has allocated, out of all.",
            {
                "used": f'sum(ray_resources{{Name="GPU",State="USED",{CLUSTER}}})',
                "all": f'sum(ray_resources{{Name="GPU",{CLUSTER}}})',
            },
            gpu=True,
        ),
    ],
    "Jobs": [
        Panel(
            "Jobs by kind",
            "Jobs that are running.",
            {"{{kind}}": f"count by (kind) (max by (run, kind) ({series('lehr_running', CLUSTER)}))"},
            width=12,
        ),
        Panel(
            "Alerts",
            "Alerts that are pending or firing.",
            {
                state: f'count(ALERTS{{alertname=~"Lehr.*",alertstate="{state}",{CLUSTER}}}) or vector(0)'
                for state in STATES
            },
            width=12,
        ),
    ],
}
