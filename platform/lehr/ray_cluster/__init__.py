"""Ray itself: one that lives as long as a job, one that `lehr cluster up` starts, and clusters that others run.

- `connection`: the Ray that a job runs on, its own on this machine or the cluster that `RAY_ADDRESS` names
- `waiting`: a job waits for resources on a shared cluster and says what it waits for
- `folders`, `token`: where its files are, and the token that it asks for
- `local_cluster`: a development cluster on this machine that outlives the terminal
- `dashboard`: a cluster's HTTP interface: its address, its token, what it has
- `namespaces`: how the Ray namespace of a submitted job names its run

Nothing here knows what a job does, or how it is submitted.
"""
