"""Jobs on Kubernetes through KubeRay: cluster profiles, manifests, and the cluster's own words."""

from lehr.kuberay.client import AlreadyThere, ClusterError, KubeRay
from lehr.kuberay.jobs import ClusterJob
from lehr.kuberay.manifest import kubernetes_name, manifest, prepare, storage_of, to_yaml
from lehr.kuberay.modules import Modules, own_modules
from lehr.kuberay.profile import Profile, load_profile

__all__ = [
    "AlreadyThere",
    "ClusterError",
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
