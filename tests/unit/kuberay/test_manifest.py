"""A job file and a profile become objects that Kubernetes and KubeRay accept, or one sentence says why not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.kuberay.schemas import check_core, check_pods, check_ray, pod_templates

from lehr.errors import JobError
from lehr.job import Job, from_dict, job_hash, load, to_dict
from lehr.kuberay import Profile, kubernetes_name, load_profile, manifest, own_modules, to_yaml
from lehr.kuberay.cluster_spec import WorkerPods
from lehr.kuberay.manifest import worker_pods
from lehr.kuberay.profile import MANAGED

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/manifests"
TEMPLATES = sorted((ROOT / "jobs").glob("*.yaml"))
PROFILES = sorted((ROOT / "cluster/profiles").glob("*.yaml"))
PLAIN = {"image": "lehr:1", "storage": "s3://bucket/runs"}
GPUS = {**PLAIN, "workers": {"count": 4, "gpus": 1, "cpus": 3, "data_cpus": 2, "gpu": {}}}


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({**PLAIN, **fields})


def template_job(path: Path, cluster: Profile) -> Job:
    """The template with its data in a bucket, and without GPUs where the cluster has none."""
    fields = to_dict(load(path))
    where, inner = ("base.", fields["base"]) if "base" in fields else ("", fields)
    changes: dict[str, Any] = {}
    if inner.get("data", {}).get("path"):
        changes[f"{where}data.path"] = "s3://bucket/data.parquet"
    if inner.get("workers", {}).get("gpus") and not cluster.workers.gpu:
        changes[f"{where}workers.gpus"] = 0
    return load(path, changes)


def rayjob(job: Job, cluster: Profile, **more: Any) -> dict[str, Any]:
    return manifest(job, cluster, **more)[1]


def check(objects: list[dict[str, Any]]) -> None:
    config, job = objects
    check_core(config)
    check_pods(job)
    check_policies(job)
    check_by_hand(job)


def check_policies(job: dict[str, Any]) -> None:
    """The restricted pod security standard, pinned images, and nothing secret in clear.
    https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    templates = list(pod_templates(job))
    assert len(templates) >= 3  # head, workers, submitter
    for template in templates:
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(
            set(volume) <= {"name", "emptyDir", "configMap", "persistentVolumeClaim"} for volume in spec["volumes"]
        )
        assert all(volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if "emptyDir" in volume)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            locked = container["securityContext"]
            assert locked["allowPrivilegeEscalation"] is False
            assert locked["readOnlyRootFilesystem"] is True
            assert locked["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in locked
            assert "@sha256:" in container["image"] or container["image"].rpartition(":")[2] not in ("latest", "")
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert container["resources"]["limits"]["ephemeral-storage"]
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounted
            for variable in container.get("env", []):
                assert "KEY" not in variable["name"]
                assert "SECRET" not in variable["name"]


def check_by_hand(job: dict[str, Any]) -> None:
    """The manifest holds what KubeRay requires, and nothing that it adds by itself."""
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    assert len(job["metadata"]["name"]) <= 47
    assert cluster["rayVersion"].count(".") == 2
    assert head["rayStartParams"] == {"num-cpus": "0"}  # KubeRay sets all others
    assert spec["shutdownAfterJobFinishes"] is True
    assert "deletionStrategy" not in spec
    assert not set("&|;<>$`\n") & set(spec["entrypoint"])  # the submitter's shell would interpret them
    for group in (head, *cluster["workerGroupSpecs"]):
        template = group["template"]["spec"]
        container = template["containers"][0]
        assert not {"livenessProbe", "readinessProbe", "command", "args"} & set(container)
        assert not {"/dev/shm"} & {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp/ray" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert not {variable["name"] for variable in container["env"]} & set(MANAGED)
        assert "metrics" in {port["name"] for port in container["ports"]}
        assert template["restartPolicy"] == "Never"
        assert template["terminationGracePeriodSeconds"] >= 1
        gpu = [name for name in container["resources"]["limits"] if name.endswith("/gpu")]
        for name in gpu:
            assert {"key": name, "operator": "Exists", "effect": "NoSchedule"} in template["tolerations"]
    autoscaled = cluster.get("enableInTreeAutoscaling", False)
    if autoscaled:
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert autoscaled or group["minReplicas"] == group["maxReplicas"]


# ── every template on every cluster ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cluster", PROFILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_becomes_a_valid_manifest_on_every_cluster(path: Path, cluster: Path) -> None:
    where = load_profile(cluster)
    job = template_job(path, where)
    objects = manifest(job, where)
    check(objects)
    travelled = from_dict(yaml.safe_load(objects[0]["data"]["job.yaml"]))
    assert travelled.run_name == job.run_name
    assert job_hash(travelled) == job_hash(job)  # the same job, so a run started elsewhere can be resumed here
    assert list(yaml.safe_load_all(to_yaml(objects))) == objects


@pytest.mark.parametrize("cluster", PROFILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_manifest_fits_the_definitions_of_kuberay(path: Path, cluster: Path) -> None:
    where = load_profile(cluster)
    check_ray(rayjob(template_job(path, where), where))


@pytest.mark.parametrize("cluster", PROFILES, ids=lambda path: path.stem)
def test_manifests_do_not_change(cluster: Path) -> None:
    """After an intended change, LEHR_WRITE_GOLDEN=1 writes them again, so that the difference can be reviewed."""
    objects = manifest(load(ROOT / "jobs/train.yaml"), load_profile(cluster), ray_version="2.60.0")
    assert "kind: train" in objects[0]["data"]["job.yaml"]
    grows = "the job as resolved, which grows with every field that jobs get"
    objects[0]["data"]["job.yaml"] = f"{grows}\n"
    objects[1]["metadata"]["annotations"]["lehr/job"] = grows
    text = to_yaml(objects)
    golden = GOLDEN / f"train-{cluster.stem}.yaml"
    if os.environ.get("LEHR_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


# ── any job, any profile ──────────────────────────────────────────────────────────────────────────────────────────

names = st.text("abcXYZ019._-", min_size=1, max_size=100).filter(lambda name: not name.startswith("."))
counts = st.just("auto") | st.integers(1, 40) | st.tuples(st.integers(1, 8), st.integers(8, 40)).map(list)
gpus = st.sampled_from([0, 0.25, 0.3, 0.5, 1, 1.5, 2, 8])
workers = st.fixed_dictionaries({"count": counts, "gpus": gpus}, optional={"cpus": st.floats(0.1, 64)})
memory = st.sampled_from(["512Mi", "8Gi", "1Ti"])
nodes = st.fixed_dictionaries(
    {},
    optional={
        "select": st.dictionaries(st.sampled_from(["a", "b.example/c"]), st.sampled_from(["x", "y-1"])),
        "tolerate": st.lists(st.sampled_from(["taint", {"key": "t", "value": "v", "effect": "NoExecute"}]), max_size=3),
    },
)
pods_of_workers = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(1, 20),
        "cpus": st.floats(0.1, 64),
        "data_cpus": st.floats(0, 16),
        "memory": memory,
        "gpu": nodes,
        "spot": nodes,
    },
)
profiles = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["lehr:1", "a.example:5000/b/lehr:2.0", "lehr@sha256:" + "0" * 64]),
        "storage": st.just("s3://b/r"),
    },
    optional={
        "namespace": st.just("team-a"),
        "service_account": st.just("lehr"),
        "secret": st.just("storage"),
        "env": st.just({"AWS_REGION": "eu-1"}),
        "volumes": st.just({"data": "/data"}),
        "pull_secrets": st.just(["one", "two"]),
        "head": st.fixed_dictionaries({}, optional={"cpus": st.floats(0.1, 64), "memory": memory}),
        "workers": pods_of_workers,
        "authentication": st.booleans(),
        "deadline": st.sampled_from(["1s", "24h"]),
        "retries": st.integers(0, 9),
        "keep": st.sampled_from(["0s", "7d"]),
        "queue": st.just("gpus"),
    },
)


@settings(max_examples=150, deadline=None)
@given(name=names, section=workers, fields=profiles, kind=st.sampled_from(["plain", "core", "ray"]))
def test_any_job_on_any_cluster_is_valid_or_refused(name: str, section: Any, fields: Any, kind: str) -> None:
    job = from_dict({"name": name, "workers": section})
    refused = ""
    try:
        cluster = Profile.model_validate(fields)
        objects = manifest(job, cluster)
    except (ValidationError, JobError) as error:
        refused = str(error)
    if refused:
        assert "workers." in refused or "Kueue" in refused
        return
    check_policies(objects[1])
    check_by_hand(objects[1])
    if kind == "core":  # slow enough to take only some of the examples
        check(objects)
    if kind == "ray" and os.environ.get("LEHR_KUBERAY_CRDS"):
        check_ray(objects[1])
    pods = worker_pods(job, cluster)
    if isinstance(section["count"], int):
        assert pods.least == pods.most == math.ceil(section["count"] / pods.workers)
        assert pods.gpus * pods.most >= section["gpus"] * section["count"] - 1e-9


@given(one=names, other=names)
def test_two_runs_never_share_a_name(one: str, other: str) -> None:
    assert (kubernetes_name(one) == kubernetes_name(other)) == (one == other)
    assert kubernetes_name(kubernetes_name(one)) == kubernetes_name(one)


# ── what a profile sets, and where it is in the manifest ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("auto", WorkerPods(4, 4, 1, 3, 1)),
        ({"count": 2}, WorkerPods(2, 2, 1, 3, 0)),
        ({"count": 2, "gpus": 1, "cpus": 7}, WorkerPods(2, 2, 1, 7, 1)),
        ({"count": 4, "gpus": 0.5}, WorkerPods(2, 2, 2, 3, 1)),
        ({"count": 5, "gpus": 0.5}, WorkerPods(3, 3, 2, 3, 1)),
        ({"count": 2, "gpus": 2}, WorkerPods(2, 2, 1, 3, 2)),
        ({"count": [2, 8], "gpus": 1}, WorkerPods(2, 8, 1, 3, 1)),
    ],
)
def test_workers_become_pods(section: Any, expected: WorkerPods) -> None:
    assert worker_pods(from_dict({"workers": section}), profile(**GPUS)) == expected


@pytest.mark.parametrize("weights", ["run:digits-six", "pretrained", "run:s3://bucket/runs/a"])
def test_references_are_not_paths(weights: str) -> None:
    assert manifest(from_dict({"model": {"name": "resnet18", "weights": weights}}), profile())


def test_the_job_is_sent_with_its_workers_spelt_out() -> None:
    objects = manifest(from_dict({"name": "a"}), profile(**GPUS))
    travelled = yaml.safe_load(objects[0]["data"]["job.yaml"])
    assert travelled["workers"] == {"count": 4, "gpus": 1.0, "cpus": 3.0, "retries": 3}
    group = objects[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["replicas"] == 4
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": 5,  # two of them for data
        "memory": "8Gi",
        "ephemeral-storage": "20Gi",
        "nvidia.com/gpu": 1,
    }


def test_a_range_of_workers_becomes_the_range_of_the_autoscaler() -> None:
    cluster = rayjob(from_dict({"workers": {"count": [2, 8], "gpus": 1}}), profile(**GPUS))["spec"]["rayClusterSpec"]
    group = cluster["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"], cluster["enableInTreeAutoscaling"]) == (2, 8, True)
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True  # the autoscaler's
    assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_spot_nodes_are_tried_first_and_ordinary_nodes_are_the_fallback() -> None:
    spot = {"select": {"pool": "spot"}, "tolerate": ["spot"]}
    where = {**GPUS["workers"], "spot": spot}  # type: ignore[dict-item]
    cluster = rayjob(from_dict({"workers": {"count": 3, "gpus": 1}}), profile(workers=where))["spec"]["rayClusterSpec"]
    first, second = cluster["workerGroupSpecs"]
    assert (first["priority"], second.get("priority", 0)) == (10, 0)
    assert first["template"]["spec"]["nodeSelector"] == {"pool": "spot"}
    assert "nodeSelector" not in second["template"]["spec"]
    assert all((group["minReplicas"], group["maxReplicas"]) == (0, 3) for group in (first, second))
    assert "tolerations" not in cluster["headGroupSpec"]["template"]["spec"]  # the head would not survive there


def test_credentials_come_from_a_secret_or_a_service_account() -> None:
    job = rayjob(from_dict({}), profile(secret="keys", service_account="lehr", pull_secrets=["registry"]))
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert spec["serviceAccountName"] == "lehr"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert spec["automountServiceAccountToken"] is False
    assert "envFrom" not in job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]


def test_retries_deadlines_and_queues_are_those_of_the_profile() -> None:
    job = rayjob(
        from_dict({}), profile(deadline="24h", retries=7, keep="1h", grace="45s", queue="gpus", priority="urgent")
    )
    spec = job["spec"]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (86400, 7, 3600)
    assert spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 45
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "urgent"


@pytest.mark.parametrize(
    ("storage", "expected"),
    [("./runs", "s3://bucket/runs"), ("gs://other/runs", "gs://other/runs"), ("/shared/mine", "/shared/mine")],
)
def test_runs_are_stored_where_every_pod_reaches_them(storage: str, expected: str) -> None:
    config = manifest(from_dict({"storage": storage}), profile(volumes={"claim": "/shared"}))[0]
    assert yaml.safe_load(config["data"]["job.yaml"])["storage"] == expected


# ── the user's own modules ────────────────────────────────────────────────────────────────────────────────────────


def test_own_modules_are_stored_as_an_archive_in_the_storage(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model: my_nets.small:Net\n")
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets/small.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/big.py").write_text("no\n")
    (tmp_path / "data.csv").write_text("no\n")
    modules = own_modules(load(tmp_path / "job.yaml"))
    assert modules is not None
    assert modules.package.files == ("helper.py", "my_nets/small.py")
    assert modules.archive() == modules.archive()
    uri = modules.uri("s3://bucket/runs")
    spec = rayjob(load(tmp_path / "job.yaml"), profile(), modules=uri)["spec"]
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"working_dir": uri}
    storage = str(tmp_path / "storage")
    assert modules.store(storage)
    assert (tmp_path / "storage/packages" / modules.name).read_bytes() == modules.archive()
    (tmp_path / "helper.py").write_text("x = 2\n")
    changed = own_modules(load(tmp_path / "job.yaml"))
    assert changed is not None
    assert changed.name != modules.name


def test_ray_finds_the_modules_where_workers_look(tmp_path: Path) -> None:
    """In one folder, of a name that nothing imports: Ray puts the top before everything that is installed."""
    from ray._private.runtime_env.packaging import unzip_package

    (tmp_path / "job.yaml").write_text("model: nets:Net\n")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/__init__.py").write_text("class Net: ...\n")
    modules = own_modules(load(tmp_path / "job.yaml"))
    assert modules is not None
    (tmp_path / "archive.zip").write_bytes(modules.archive())
    unzip_package(
        str(tmp_path / "archive.zip"), str(tmp_path / "out"), remove_top_level_directory=True, unlink_zip=False
    )
    assert (tmp_path / "out/lehr-job/nets/__init__.py").exists()


@pytest.mark.parametrize(
    "text", ["model: small_cnn", "model: installed_elsewhere:Net", "data: {source: 'torchvision:CIFAR10'}"]
)
def test_a_job_without_own_modules_has_no_archive(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text + "\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert own_modules(load(tmp_path / "job.yaml")) is None


# ── known mistakes ────────────────────────────────────────────────────────────────────────────────────────────────

WRONG_PROFILES = [
    ("namespace: a", "image: is missing"),
    ("image: lehr", '"lehr" has no tag, so a retry could run another version of lehr'),
    ("image: lehr:latest", '"lehr:latest" has the tag latest, so a retry could run another version of lehr'),
    ("image: registry:5000/lehr", "has no tag"),
    ("image: 'lehr 1'", '"lehr 1" is not an image; allowed: registry/name:tag'),
    ("storage: ./runs", 'storage "./runs" is a folder on one machine, which pods do not share'),
    ("storage: /mnt/runs\nvolumes: {runs: /mnt/other}", "is a folder on one machine"),
    ("storage: file:///mnt/runs", "is a folder on one machine"),
    ("storage: s3://key:word@bucket/runs", "storage holds a password"),
    ("env: {AWS_SECRET_ACCESS_KEY: abc}", "AWS_SECRET_ACCESS_KEY would be readable in every manifest"),
    ("env: {RAY_ADDRESS: x}", "RAY_ADDRESS is set by KubeRay and must not be set here"),
    ("env: {RAY_AUTH_TOKEN: x}", "RAY_AUTH_TOKEN is set by KubeRay"),
    ("env: {a-b: x}", '"a-b" is not the name of an environment variable'),
    ("head: {memory: 8gb}", '"8gb" is not an amount of memory; allowed: 512Mi, 8Gi'),
    ("head: {disk: 8gb}", '"8gb" is not an amount of disk; allowed: 20Gi, 1Ti'),
    ("image: lehr@sha256:abc", '"lehr@sha256:abc" is not an image; allowed: registry/name:tag or'),
    ("storage: s3://key:with/slash@bucket/runs", "storage holds a password"),
    ("env: {DATABASE_URL: 'postgres://me:word@host/db'}", "DATABASE_URL would be readable in every manifest"),
    ("head: {cpus: 0}", "0 is too small; allowed: a number above 0"),
    ("workers: {memory: 8}", "8 is not an amount of memory"),
    ("workers: {gpus: 1}", "workers.gpus needs workers.gpu"),
    ("workers: {gpu: {resource: gpu}}", '"gpu" is not a resource; allowed: nvidia.com/gpu, amd.com/gpu'),
    ("workers: {spot: {select: {'a b': c}}}", "is not a label; allowed: key: value"),
    ("workers: {tolerate: [{key: a, effect: Never}]}", '"Never" is not an effect; '),
    ("queue: q\nworkers: {spot: {}}", "Kueue admits a fixed set of pods"),
    ("queue: Q_1", '"Q_1" is not a name; allowed: lower-case letters, digits and dashes'),
    ("priority: high", "priority is Kueue's and needs a queue"),
    ("deadline: 1 day", '"1 day" is not a time; allowed: 30s, 10m, 24h or 7d'),
    ("deadline: 0s", "is too small"),
    ("keep: -5", "-5 is not a time"),
    ("retries: -1", "-1 is too small; allowed: a whole number from 0 to 100"),
    ("volumes: {data: data}", '"data" is not a folder; allowed: an absolute path'),
    ("volumes: {data: /tmp/x}", "volumes: /tmp/x is reserved"),
    ("volumes: {one: /data, two: /data}", "volumes: /data is used twice"),
    ("node_selector: {a: b}", "unknown field"),
    ("probes: {}", "unknown field"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_PROFILES)
def test_every_mistake_in_a_profile_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text + ("" if "image" in text or sentence.startswith("image") else "\nimage: lehr:1") + "\n")
    with pytest.raises(JobError) as refused:
        load_profile(file)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(file))
    assert str(refused.value).isprintable()


WRONG_JOBS = [
    (
        {"storage": "./runs"},
        {"storage": None},
        "storage:",
        "is a folder on this machine, and the cluster profile has no storage",
    ),
    (
        {"data": {"source": "parquet", "path": "/home/me/x.parquet"}},
        {},
        "data.path:",
        "is on this machine, where no pod can read it",
    ),
    ({"data": {"source": "parquet", "path": "s3://b/x", "test": "/home/t"}}, {}, "data.test:", "is on this machine"),
    (
        {"data": {"source": "parquet", "path": "s3://b/x", "validation": "/home/v"}},
        {},
        "data.validation:",
        "is on this machine",
    ),
    ({"model": {"name": "small_cnn", "weights": "run:/home/me/runs/a"}}, {}, "model.weights:", "is on this machine"),
    (
        {"workers": {"count": 2, "gpus": 1}},
        {},
        "workers.gpus:",
        "1 for each worker, but this cluster has no GPUs; allowed: 0",
    ),
    (
        {"workers": {"count": [1, 4]}},
        {"queue": "q"},
        "workers.count:",
        "[1, 4] is elastic, but Kueue admits a fixed set",
    ),
]


@pytest.mark.parametrize(("fields", "cluster", "field", "sentence"), WRONG_JOBS)
def test_every_job_that_cannot_run_there_is_refused_in_one_sentence(
    fields: dict[str, Any], cluster: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(JobError) as refused:
        manifest(from_dict(fields), profile(**cluster))
    assert field in str(refused.value)
    assert sentence in str(refused.value)
    assert str(refused.value).isprintable()


def test_an_unknown_profile_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("image: lehr:1\n")
    with pytest.raises(JobError, match=r'"gpus.yaml" is not a profile; did you mean gpu\.yaml\?'):
        load_profile(tmp_path / "gpus.yaml")


def test_a_profile_can_be_changed_from_the_command_line() -> None:
    changed = load_profile(
        ROOT / "cluster/profiles/queue.yaml", ["retries=0", "workers.count=7", "queue=", "priority="]
    )
    assert (changed.retries, changed.workers.count, changed.queue) == (0, 7, None)


def test_the_schemas_refuse_what_is_wrong() -> None:
    """The checks above are strict: they do not miss a wrong field."""
    objects = manifest(from_dict({}), profile())
    objects[1]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelecto"] = {}
    with pytest.raises(Exception, match="nodeSelecto"):
        check_pods(objects[1])
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check_core(objects[1])
