"""Jobs on Kubernetes through KubeRay: a job and a cluster profile become a RayJob, which a cluster runs.

- `profile`: what a Kubernetes cluster gives to jobs, as a typed file
- `manifest`: a job and a profile as the ConfigMap and the RayJob that run it; `cluster_spec` holds its pods
- `modules`: the user's own modules as an archive in the storage
- `client`: submits, lists, watches and stops RayJobs; `jobs` reads their status
- `backend`: all of this as a `Backend`, for the commands that know Ray clusters too

`cluster/kuberay/README.md` is the guide for users.
"""

from lehr.kuberay.client import AlreadySubmitted, KubeRay
from lehr.kuberay.jobs import ClusterJob
from lehr.kuberay.manifest import kubernetes_name, manifest, prepare, storage_of, to_yaml
from lehr.kuberay.modules import Modules, own_modules
from lehr.kuberay.profile import Profile, load_profile

__all__ = [
    "AlreadySubmitted",
    "ClusterJob",
    "KubeRay",
    "Modules",
    "Profile",
    "kubernetes_name",
    "load_profile",
    "manifest",
    "own_modules",
    "prepare",
    "storage_of",
    "to_yaml",
]
