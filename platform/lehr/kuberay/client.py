"""RayJobs in a Kubernetes cluster: submit, list, watch and stop them and read their logs, through the official client.

Every refusal of the cluster is one sentence in a `ClusterError`. The kubernetes package (extra `[kubernetes]`) is
imported when a `KubeRay` is made.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lehr.errors import ClusterError, RunError
from lehr.extras import install
from lehr.kuberay.cluster_spec import LABELS, Manifest
from lehr.kuberay.jobs import ClusterJob, RayJob
from lehr.kuberay.manifest import STOPPED, kubernetes_name
from lehr.kuberay.reasons import never_started, what_befell, why_waiting
from lehr.runs import Folder, RunFolder

RAYJOBS = ("ray.io", "v1", "rayjobs")
WATCH_SECONDS = 240  # less than the five minutes after which API servers end a watch
MOST_EXPIRED = 5  # watches that expire in a row; a cluster whose history is that short cannot be watched
DELETE_SECONDS = 180.0  # for the pods of a finished job to disappear


STRICT = {"field_validation": "Strict"}  # an operator that does not know a field refuses it, and does not ignore it


class AlreadySubmitted(ClusterError):
    """A job of this name has not ended yet: `job`."""

    def __init__(self, job: ClusterJob) -> None:
        self.job = job
        super().__init__(f"{job.run} is already on the cluster and {job.status}; attach to it, or stop it first")


class NotFound(ClusterError):
    """There is no such job, or no such namespace."""


class Forbidden(ClusterError):
    """The user may not do that."""


class KubeRay:
    """The jobs of one namespace.

    Args:
        namespace: the namespace of the profile.
        context: a context of the kubeconfig, by default the current one; inside a pod, the cluster of the pod.

    Raises:
        ClusterError: the kubernetes package is missing, or no cluster is configured.
    """

    def __init__(self, namespace: str = "default", context: str | None = None) -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise ClusterError(
                f"jobs on Kubernetes need the kubernetes package; install it with: {install('kubernetes')}"
            ) from None
        try:
            settings = client.Configuration()
            _find_cluster(config, context, settings)
        except (config.ConfigException, OSError, ValueError) as error:
            raise ClusterError(
                f"no Kubernetes cluster is configured here: {error}; list yours with: kubectl config get-contexts"
            ) from None
        settings.retries = 1
        self.namespace = namespace
        self.address: str = settings.host
        api = client.ApiClient(settings)
        self._rayjobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def submit(self, objects: list[Manifest]) -> ClusterJob:
        """Creates a job from its manifest. A job of this name that has ended is replaced; its run folder stays.

        Raises:
            AlreadySubmitted: a job of this name has not ended.
            ClusterError: the cluster refuses.
        """
        config, rayjob = (next(each for each in objects if each["kind"] == kind) for kind in ("ConfigMap", "RayJob"))
        name = rayjob["metadata"]["name"]
        with self._refusals("create rayjobs", name):
            created = self._create(rayjob)
            if created is None:
                existing = self.status(name)
                if not existing.is_over:
                    raise AlreadySubmitted(existing)
                self.delete(name)
                self._wait_until_deleted(name)
                created = self._create(rayjob)
                if created is None:
                    raise AlreadySubmitted(self.status(name))
        config = copy.deepcopy(config)  # owned by the job, so that it is deleted with the job
        config["metadata"]["ownerReferences"] = [
            {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": created["metadata"]["uid"]}
        ]
        try:
            with self._refusals("create configmaps", name):
                self._create_config(config)
        except ClusterError:
            self.delete(name)
            raise
        return ClusterJob.of(created)

    def jobs(self) -> list[ClusterJob]:
        """All jobs that lehr created in this namespace, oldest first."""
        selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
        with self._refusals("list rayjobs"):
            found = self._rayjobs.list_namespaced_custom_object(*self._where(), label_selector=selector)["items"]
            if not found:
                self._check_namespace()
        return sorted((ClusterJob.of(each) for each in found), key=lambda job: (job.created or "", job.name))

    def status(self, name: str) -> ClusterJob:
        """The job of a run, by the run's name or by its own."""
        return ClusterJob.of(self._get(kubernetes_name(name)))

    def why(self, name: str) -> str:
        """What keeps a job from starting, or what befell its pods, as far as Kubernetes knows; empty if nothing did."""
        rayjob = self._get(kubernetes_name(name))
        if STOPPED in (rayjob["metadata"].get("annotations") or {}):
            return ""
        job, pods, events = ClusterJob.of(rayjob), self._pods(rayjob), self._events()
        if befell := what_befell(rayjob, pods, events):
            return befell
        if job.status == "pending":
            return why_waiting(rayjob, pods, events)
        return never_started(rayjob, events) if job.status == "failed" else ""

    def check(self, objects: list[Manifest]) -> None:
        """Asks the cluster whether it would accept these objects, and creates none.

        Raises:
            ClusterError: why it would not.
        """
        config, rayjob = (next(each for each in objects if each["kind"] == kind) for kind in ("ConfigMap", "RayJob"))
        name, dry = rayjob["metadata"]["name"], {"dry_run": "All"}
        with self._refusals("create rayjobs", name):
            self._unless_exists(
                lambda: self._rayjobs.create_namespaced_custom_object(*self._where(), rayjob, **dry, **STRICT)
            )
        with self._refusals("create configmaps", name):
            self._unless_exists(lambda: self._core.create_namespaced_config_map(self.namespace, config, **dry))

    def again(self, name: str) -> ClusterJob:
        """Submits a job that has ended once more, as it was: its run goes on.

        Raises:
            AlreadySubmitted: it has not ended.
            ClusterError: the cluster refuses.
        """
        name = kubernetes_name(name)
        rayjob = self._get(name)
        with self._refusals("get configmaps", name):
            config = self._core.read_namespaced_config_map(name, self.namespace, _preload_content=False)
        objects = [json.loads(config.data), copy.deepcopy(rayjob)]
        for each, kind in zip(objects, (("v1", "ConfigMap"), ("ray.io/v1", "RayJob")), strict=True):
            kept = {key: each["metadata"][key] for key in ("name", "namespace", "labels") if key in each["metadata"]}
            annotations = each["metadata"].get("annotations") or {}
            kept["annotations"] = {
                key: text for key, text in annotations.items() if key.startswith("lehr/") and key != STOPPED
            }
            each.update(metadata=kept, apiVersion=kind[0], kind=kind[1])
            each.pop("status", None)
        for key in ("suspend", "jobId"):
            objects[1]["spec"].pop(key, None)
        return self.submit(objects)

    def watch(self, name: str) -> Iterator[ClusterJob]:
        """The job now, and after every change until it has ended."""
        from kubernetes import watch

        name, expired, last = kubernetes_name(name), 0, None
        while True:
            rayjob = self._get(name)
            version = rayjob["metadata"]["resourceVersion"]
            if (now := ClusterJob.of(rayjob)) != last:
                last = now
                yield now
            if now.is_over:
                return
            try:
                with self._refusals("watch rayjobs", name):
                    events = watch.Watch().stream(
                        self._rayjobs.list_namespaced_custom_object,
                        *self._where(),
                        field_selector=f"metadata.name={name}",
                        resource_version=version,
                        timeout_seconds=WATCH_SECONDS,
                    )
                    for event in events:
                        if event["type"] == "DELETED":
                            raise ClusterError(f"{now.run} was deleted from the cluster")
                        expired = 0
                        if (now := ClusterJob.of(event["object"])) != last:
                            last = now
                            yield now
                        if now.is_over:
                            return
            except _WatchExpired:  # the cluster no longer has the changes since then: read the job again
                expired += 1
                if expired == MOST_EXPIRED:
                    raise

    def logs(self, name: str, follow: bool = False) -> Iterator[str]:
        """What the job has printed, in pieces; with `follow`, also what it will print until it ends.

        Raises:
            ClusterError: it has not started yet (without `follow`).
        """
        name = kubernetes_name(name)
        pod = self._submitter_pod(name)
        if pod is None and follow:
            for _ in self.watch(name):
                if pod := self._submitter_pod(name):
                    break
        if pod is None:
            job = self.status(name)
            raise ClusterError(
                f"{job.run} has no log yet: it is {job.status}" + (f", {job.message}" if job.message else "")
            )
        with self._refusals("read the logs of pods", name):
            answer = self._core.read_namespaced_pod_log(pod, self.namespace, follow=follow, _preload_content=False)
            for piece in answer.stream():
                yield piece.decode("utf-8", "replace")

    def stop(self, name: str) -> None:
        """Asks the job, through its run folder, to save a checkpoint and end; its cluster is removed afterwards.

        Where only pods reach the run folder, or there is none yet, the job is suspended: its pods are ended, and save
        before that. A job in a queue, which only the queue suspends, is deleted.
        """
        job = self.status(name)
        if job.is_over:
            return
        asked = False
        if job.storage:
            with suppress(RunError):  # no run folder yet, so nothing to save
                RunFolder.open(Folder.at(job.storage).child(job.run)).request_stop("lehr stop")
                asked = True
        queued = "kueue.x-k8s.io/queue-name" in (self._get(job.name)["metadata"].get("labels") or {})
        change: dict[str, Any] = {"metadata": {"annotations": {STOPPED: "lehr stop"}}}
        if not asked:
            change["spec"] = {"suspend": True}
        try:
            with self._refusals("patch rayjobs", job.name):
                if asked or not queued:
                    self._rayjobs.patch_namespaced_custom_object(*self._where(), job.name, change)
                    return
        except Forbidden:  # the role of an earlier version
            if asked:
                return
        self.delete(job.name)

    def delete(self, name: str) -> None:
        """Deletes the job, its cluster and its configuration. A running driver has the profile's `grace` to save."""
        name = kubernetes_name(name)
        with self._refusals("delete rayjobs", name):
            self._rayjobs.delete_namespaced_custom_object(*self._where(), name, propagation_policy="Foreground")

    def _where(self) -> tuple[str, str, str, str]:
        group, version, plural = RAYJOBS
        return group, version, self.namespace, plural

    def _get(self, name: str) -> RayJob:
        with self._refusals("get rayjobs", name):
            found: RayJob = self._rayjobs.get_namespaced_custom_object(*self._where(), name)
            return found

    def _create(self, rayjob: Manifest) -> RayJob | None:
        """The job as created; None where there is one of this name."""
        created: RayJob | None = self._unless_exists(
            lambda: self._rayjobs.create_namespaced_custom_object(*self._where(), rayjob, **STRICT)
        )
        return created

    def _create_config(self, config: Manifest) -> None:
        def create() -> Any:
            return self._core.create_namespaced_config_map(self.namespace, config)

        if self._unless_exists(create) is None:  # left by a job that was applied by hand
            self._core.delete_namespaced_config_map(config["metadata"]["name"], self.namespace)
            create()

    def _pods(self, rayjob: RayJob) -> list[dict[str, Any]]:
        """The pods of a job's cluster, and those that submit it; none where they may not be listed."""
        name = rayjob["metadata"]["name"]
        cluster = (rayjob.get("status") or {}).get("rayClusterName")
        selectors = [f"job-name={name}", *([f"ray.io/cluster={cluster}"] if cluster else [])]
        return [each for selector in selectors for each in self._things(self._core.list_namespaced_pod, selector)]

    def _events(self) -> list[dict[str, Any]]:
        """Warnings in the namespace, and what KubeRay did; none where they may not be listed."""
        return self._things(self._core.list_namespaced_event, None)

    def _things(self, lister: Callable[..., Any], selector: str | None) -> list[dict[str, Any]]:
        from kubernetes.client import ApiException

        try:
            answer = lister(self.namespace, label_selector=selector, limit=500, _preload_content=False)
        except ApiException as error:
            if error.status == 403:
                return []
            raise self._sentence(error, "list pods", "") from None
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    def _check_namespace(self) -> None:
        """Raises NotFound if there is no such namespace; whoever may not know that is not told."""
        from kubernetes.client import ApiException

        try:
            self._core.read_namespace(self.namespace, _preload_content=False)
        except ApiException as error:
            if error.status == 404:
                raise self._no_namespace() from None

    def _no_namespace(self) -> NotFound:
        return NotFound(
            f"{self.address}: there is no namespace {self.namespace}, which the profile names; list them with: "
            "kubectl get namespaces"
        )

    def _unless_exists(self, create: Callable[[], Any]) -> Any:
        from kubernetes.client import ApiException

        try:
            return create()
        except ApiException as error:
            if error.status == 409:
                return None
            raise

    def _wait_until_deleted(self, name: str) -> None:
        started = time.monotonic()
        while time.monotonic() - started < DELETE_SECONDS:
            try:
                self._get(name)
            except NotFound:
                return
            time.sleep(0.5)
        raise ClusterError(
            f"{name} was deleted but is still there after {DELETE_SECONDS:.0f} s; find out why with: "
            f"kubectl -n {self.namespace} describe rayjob {name}"
        )

    def _submitter_pod(self, name: str) -> str | None:
        """The newest pod that follows the job's log; KubeRay's Job for it has the RayJob's name."""
        with self._refusals("list pods", name):
            pods = self._core.list_namespaced_pod(self.namespace, label_selector=f"job-name={name}").items
        started = [pod for pod in pods if pod.status.phase != "Pending"]
        return max(started, key=lambda pod: pod.metadata.creation_timestamp).metadata.name if started else None

    @contextmanager
    def _refusals(self, doing: str, name: str = "") -> Iterator[None]:
        """Turns a refusal of the API server into a ClusterError; `doing` says what was refused."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._sentence(error, doing, name) from None
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(f"{self.address}: no Kubernetes cluster answers there: {reason}") from None

    def _sentence(self, error: Any, doing: str, name: str) -> ClusterError:
        try:
            answer = json.loads(error.body)
        except (TypeError, ValueError):
            answer = {}
        message = answer.get("message") or str(error.reason or error.body or "")
        if error.status == 401:
            return ClusterError(
                f"{self.address}: you are not logged in there; log in again, or check the context of your kubeconfig"
            )
        if error.status == 403:
            return Forbidden(
                f"you may not {doing} in the namespace {self.namespace}; ask for the role lehr-user there ({message})"
            )
        if error.status == 404 and not answer and "rayjobs" in doing:
            return ClusterError(
                f"{self.address}: KubeRay is not installed there; cluster/kuberay/README.md shows how to install it"
            )
        if error.status == 404 and (answer.get("details") or {}).get("kind") == "namespaces":
            return self._no_namespace()
        if error.status == 404:
            return NotFound(
                f"there is no {name} in the namespace {self.namespace} ({message}); list its jobs with: lehr jobs "
                "--kubernetes PROFILE"
            )
        if error.status == 410:
            return _WatchExpired(
                f"{self.address}: the cluster's history is too short to watch {name}; look once with: "
                f"lehr status {name} --kubernetes PROFILE"
            )
        return ClusterError(f"{self.address}: the cluster refused to {doing} ({error.status}): {message}")


def _find_cluster(config: Any, context: str | None, settings: Any) -> None:
    try:
        config.load_kube_config(context=context, client_configuration=settings)
    except config.ConfigException:
        if context is not None:
            raise
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise config.ConfigException("there is neither a kubeconfig nor a pod's service account") from None


class _WatchExpired(ClusterError):
    """The version from which to watch is no longer known (410)."""
