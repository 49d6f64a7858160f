"""Jobs on Kubernetes through KubeRay: cluster profiles, manifests, and the cluster's own words."""

from lehr.clusters.kuberay.manifest import kubernetes_name, manifest, to_yaml
from lehr.clusters.kuberay.modules import Modules, own_modules
from lehr.clusters.kuberay.profile import Profile, load_profile

__all__ = ["Modules", "Profile", "kubernetes_name", "load_profile", "manifest", "own_modules", "to_yaml"]
