"""The commands by group, as `lehr --help` lists them: name and summary. With the name, a summary fits 80 columns.

Each command is a module of its name in `lehr.cli`, with a function of that name or an `app` of subcommands. The module
is imported when the command is asked for, so `lehr --help` costs no more than this table. The docstring of a command
ends with one or two lines `Example: lehr …`; a test parses them.
"""

from __future__ import annotations

GROUPS = {
    "Train": {
        "fine-tune": "Train a network to tell your photographs apart, from a folder",
        "run": "Run a job, or resume a run that was stopped or killed",
        "search": "Search for the best hyperparameters, or preview the cost",
        "recipe": "Tune an untuned job step by step, then train it in full",
        "best": "Write the best trial of a search, or a recipe's result, as a job",
    },
    "Look at runs": {
        "runs": "List runs with their state and best result",
        "query": "Ask all runs a question in SQL: which was best, with what",
        "ui": "Show runs as web pages that move while they train",
        "show": "Show one run, or a job as it is meant, with its size",
        "diagnose": "Diagnose a run from its learning curves, and say what to try",
        "report": "Write a run's report and its learning curves",
        "track": "Write a run to TensorBoard, MLflow, Weights & Biases or Trackio",
        "compare": "Plot the learning curves of several runs on the same axes",
        "mcp": "Let an agent look at runs and start jobs, within a budget",
        "rm": "Delete a run",
    },
    "Use a model": {
        "predict": "Predict every row of a data set, into Parquet files",
        "evaluate": "Measure accuracy and the confusion matrix on labelled data",
        "serve": "Answer over HTTP what a run says of images, with a page",
        "export": "Export a model, with its preprocessing, to PyTorch or ONNX",
    },
    "Clusters": {
        "cluster": "Start, show or stop a Ray cluster on this machine",
        "check": "Check a job here, or whether a cluster has what it needs",
        "submit": "Submit a job to a cluster",
        "jobs": "List the jobs that were submitted to a cluster",
        "status": "Show the status, progress and diagnosis of a submitted job",
        "logs": "Print the output of a submitted job",
        "attach": "Watch a submitted job until it ends",
        "stop": "Stop a submitted job once it has saved a checkpoint",
        "resume": "Resume a run that failed or was stopped, on a cluster or here",
        "manifest": "Print a job as a RayJob manifest for Kubernetes",
        "monitor": "Set up Grafana dashboards and Prometheus rules; list metrics",
    },
    "Data and job files": {
        "new": "Write a job file from a template",
        "data": "Look at a data set, or pack it into Parquet files",
        "schedule": "Plot learning-rate schedules side by side",
        "schema": "Print the JSON Schema of job files, for editors",
    },
}
INTERNAL = {"on-cluster": "Run a job that was sent to a cluster"}
"""Commands that clusters run, not people: they are not in the help."""

SUMMARIES = {name: summary for group in (*GROUPS.values(), INTERNAL) for name, summary in group.items()}
