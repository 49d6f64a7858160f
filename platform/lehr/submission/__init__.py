"""Submitting jobs to a cluster: what is sent, what runs there, and how a client follows it.

On the client:

- `submit`: from a job to a request, and what submitting the same run again means
- `package`: the working folder as one zip file
- `backend`: requests, submissions, and the protocol that every kind of cluster implements
- `ray_jobs`: that protocol for Ray clusters, over Ray's Jobs API
- `follow`: shows a job on a cluster as if it ran here

On the cluster:

- `supervise`: the entrypoint of a submitted job; checks the cluster, then runs the job and restarts it
- `inspection`, `check`: what the cluster looks like, and what it lacks for the job
- `check_result`: what the check found, as it travels back to the client
- `held_runs`: waits for a run folder that another process holds

The commands are in `lehr.cli`; Kubernetes is another backend, in `lehr.kuberay`.
"""
