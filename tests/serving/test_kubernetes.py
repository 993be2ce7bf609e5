"""The manifests of `kubectl apply -k` are valid, fit together, and run with as few rights as the servers need."""

import copy
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving import launcher
from serving.local_server import protos
from serving.local_server.flags import parse
from serving.web.__main__ import _make_parser
from tests.serving.kustomize import Manifest, build, identify

KUBERNETES = Path(launcher.__file__).parent / "kubernetes"
CONFIG = launcher.CONFIG
COMPOSE = yaml.safe_load((KUBERNETES.parent / "compose.yaml").read_text())["services"]
BUILT = {name: build(KUBERNETES / name) for name in ("overlays/volume", "overlays/bucket", "bulk")}
MAY_BE_ABSENT = {"flowers-web", "flowers-bucket"}
"""Secrets that need not exist."""


def of_kind(*kinds: str) -> Any:
    """Run a test once for each manifest of these kinds, wherever it is built; no kinds: of all."""
    chosen = {
        f"{name}: {' '.join(identify(manifest))}": (manifests, manifest)
        for name, manifests in BUILT.items()
        for manifest in manifests
        if not kinds or manifest["kind"] in kinds
    }
    return pytest.mark.parametrize(("manifests", "manifest"), chosen.values(), ids=chosen)


def find(kind: str, name: str, built: str = "overlays/volume") -> Manifest:
    return next(manifest for manifest in BUILT[built] if identify(manifest) == (kind, name))


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Yield the pod templates."""
    return (m["spec"]["template"] for m in manifests if m["kind"] in ("Deployment", "Job"))


def containers(pod: Manifest) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    return [pod for pod in pods(manifests) if labels.items() <= pod["metadata"]["labels"].items()]


def ports(pod: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for each in containers(pod) for port in each.get("ports", ())}


def container(manifest: Manifest) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]["containers"][0]


def check(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


# The schemas.


@of_kind()
def test_a_manifest_fits_the_schema_of_kubernetes(manifests: list[Manifest], manifest: Manifest) -> None:
    check(manifest)


@pytest.mark.parametrize(
    ("kind", "name", "breaks"),
    [
        ("Deployment", "server", lambda m: container(m).update(livenesProbe={})),
        ("Deployment", "server", lambda m: container(m)["ports"].append({"containerPort": "rest"})),
        ("Deployment", "server", lambda m: container(m)["resources"].update(limits=["4Gi"])),
        ("Deployment", "server", lambda m: m["spec"].pop("selector")),
        ("Deployment", "server", lambda m: m["spec"].update(replicas="two")),
        ("Service", "web", lambda m: m["spec"]["ports"][0].pop("port")),
        ("HorizontalPodAutoscaler", "web", lambda m: m["spec"].pop("maxReplicas")),
        ("PodDisruptionBudget", "web", lambda m: m["spec"].update(minAvailable=[1])),
        ("NetworkPolicy", "server", lambda m: m["spec"]["ingress"][0].update(form=[])),
        ("PersistentVolumeClaim", "flowers-models", lambda m: m["spec"].update(accessModes="ReadWriteMany")),
        ("ConfigMap", "flowers-models", lambda m: m["data"].update(number=1)),
    ],
)
def test_a_broken_copy_does_not(kind: str, name: str, breaks: Callable[[Manifest], object]) -> None:
    manifest = copy.deepcopy(find(kind, name))
    breaks(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest)


def test_an_unknown_version_of_an_api_has_no_schema() -> None:
    with pytest.raises((kubernetes_validate.SchemaNotFoundError, kubernetes_validate.ValidationError)):
        check({**find("HorizontalPodAutoscaler", "web"), "apiVersion": "autoscaling/v2beta2"})


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("name", BUILT)
def test_kubectl_builds_the_same(name: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / name)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    hashes = "|".join(m["metadata"]["name"] for m in BUILT[name] if m["kind"] == "ConfigMap")
    theirs = list(yaml.safe_load_all(re.sub(rf"\b({hashes})-[a-z0-9]{{10}}\b", r"\1", built) if hashes else built))
    assert sorted(theirs, key=identify) == sorted(BUILT[name], key=identify)


# Every reference has its target.


@of_kind("Service", "PodDisruptionBudget", "NetworkPolicy")
def test_a_selector_selects_the_pods_of_one_workload(manifests: list[Manifest], manifest: Manifest) -> None:
    spec = manifest["spec"]
    selector = spec.get("podSelector" if manifest["kind"] == "NetworkPolicy" else "selector")
    if manifest["metadata"]["name"] == "deny-all":
        assert selector == {}
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        assert not {"ingress", "egress"} & set(spec)
    else:
        labels = selector if manifest["kind"] == "Service" else selector.get("matchLabels", {})
        assert len(selected(manifests, labels)) == 1


@of_kind("Deployment")
def test_a_deployment_selects_its_own_pods_and_spreads_them(manifests: list[Manifest], manifest: Manifest) -> None:
    template = manifest["spec"]["template"]
    labels = manifest["spec"]["selector"]["matchLabels"]
    assert selected(manifests, labels) == [template]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert manifest["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@of_kind("Service")
def test_a_service_leads_to_a_port_of_its_pods(manifests: list[Manifest], manifest: Manifest) -> None:
    (pod,) = selected(manifests, manifest["spec"]["selector"])
    for port in manifest["spec"]["ports"]:
        assert ports(pod)[port["targetPort"]] == port["port"]


@of_kind("NetworkPolicy")
def test_a_policy_allows_ports_that_its_pods_have(manifests: list[Manifest], manifest: Manifest) -> None:
    spec = manifest["spec"]
    allowed = [(spec["podSelector"], rule) for rule in spec.get("ingress", ())]
    for rule in spec.get("egress", ()):
        assert rule.get("to") or rule["ports"] == [{"port": 443}]
        allowed += [(to["podSelector"], rule) for to in rule.get("to", ()) if "podSelector" in to]
    for selector, rule in allowed:
        for pod in selected(manifests, selector.get("matchLabels", {})):
            assert {port["port"] for port in rule["ports"]} <= set(ports(pod))


@of_kind("HorizontalPodAutoscaler")
def test_a_scaled_workload_exists_and_requests_the_processors_that_are_measured(
    manifests: list[Manifest], manifest: Manifest
) -> None:
    target = manifest["spec"]["scaleTargetRef"]
    (scaled,) = (m for m in manifests if identify(m) == (target["kind"], target["name"]))
    assert scaled["apiVersion"] == target["apiVersion"]
    assert "replicas" not in scaled["spec"], "applying again would undo the autoscaler"
    assert all(each["resources"]["requests"]["cpu"] for each in containers(scaled["spec"]["template"]))
    (budget,) = (m for m in manifests if identify(m) == ("PodDisruptionBudget", target["name"]))
    assert manifest["spec"]["minReplicas"] > budget["spec"]["minAvailable"], "or no node could ever be emptied"


@of_kind("Deployment", "Job")
def test_everything_that_a_pod_mounts_and_reads_exists(manifests: list[Manifest], manifest: Manifest) -> None:
    pod = manifest["spec"]["template"]
    existing = {identify(m) for m in [*manifests, *(BUILT["overlays/volume"] if manifest["kind"] == "Job" else ())]}
    assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in existing
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = [mount for each in containers(pod) for mount in each["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == set(volumes), "what is mounted, and nothing else, is declared"
    for volume in volumes.values():
        maps = [volume, *volume.get("projected", {}).get("sources", ())]
        assert {("ConfigMap", m["configMap"]["name"]) for m in maps if "configMap" in m} <= existing
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in existing
        assert "hostPath" not in volume
        assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}
    sources = [source for each in containers(pod) for source in each.get("envFrom", ())]
    variables = [variable.get("valueFrom", {}) for each in containers(pod) for variable in each.get("env", ())]
    assert {("ConfigMap", s["configMapRef"]["name"]) for s in sources if "secretRef" not in s} <= existing
    secrets = [s["secretRef"] for s in sources if "secretRef" in s]
    secrets += [v["secretKeyRef"] for v in variables if "secretKeyRef" in v]
    assert all(secret["optional"] and secret["name"] in MAY_BE_ABSENT for secret in secrets)


# Rights and limits.


@of_kind("Deployment", "Job")
def test_a_pod_has_few_rights_and_limits(manifests: list[Manifest], manifest: Manifest) -> None:
    pod = manifest["spec"]["template"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["runAsUser"] > 0
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
    for each in containers(pod):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", each["image"]), "a whole version, which does not move"
        assert set(each["resources"]["requests"]) == set(each["resources"]["limits"]) == {"cpu", "memory"}


@of_kind("Deployment")
def test_a_container_that_stays_is_probed_at_ports_that_it_has(manifests: list[Manifest], manifest: Manifest) -> None:
    template = manifest["spec"]["template"]
    for each in template["spec"]["containers"]:
        for probe in (each["startupProbe"], each["readinessProbe"], each["livenessProbe"]):
            assert "exec" in probe or probe["httpGet"]["port"] in ports(template)
        (pause_s,) = (int(word) for word in each["lifecycle"]["preStop"]["exec"]["command"] if word.isdecimal())
        assert pause_s < template["spec"]["terminationGracePeriodSeconds"]
    assert all("startupProbe" in sidecar for sidecar in template["spec"].get("initContainers", ()))


def test_the_namespace_holds_its_pods_to_the_restricted_standard() -> None:
    labels = find("Namespace", "flowers")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


# The commands.

SERVER, WEB, JOB = find("Deployment", "server"), find("Deployment", "web"), find("Job", "bulk", "bulk")


def test_the_server_is_composes_and_the_local_server_knows_its_flags(caplog: pytest.LogCaptureFixture) -> None:
    server = container(SERVER)
    assert server["image"] == COMPOSE["server"]["image"] == launcher.IMAGE
    assert server["command"] == COMPOSE["server"]["entrypoint"]
    assert server["args"] == [flag.replace("${SERVING_CPUS:-2}", "2") for flag in COMPOSE["server"]["command"]]
    flags = parse(server["args"])
    assert not caplog.messages, "each flag means something"
    assert {"grpc": flags.port, "rest": flags.rest_api_port} == ports(SERVER["spec"]["template"])
    monitoring = protos.read(CONFIG / "monitoring.config", protos.MonitoringConfig).prometheus_config
    assert server["livenessProbe"]["httpGet"]["path"] == monitoring.path
    annotations = SERVER["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == monitoring.path
    assert annotations["prometheus.io/port"] == str(flags.rest_api_port)


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_the_server_is_ready_by_composes_healthcheck(probe: str) -> None:
    """tests/serving/test_config.py runs that one."""
    command = container(SERVER)[probe]["exec"]["command"]
    assert ["CMD", *command] == COMPOSE["server"]["healthcheck"]["test"]


def test_the_servers_files_are_those_of_its_flags() -> None:
    (config,) = (v for v in SERVER["spec"]["template"]["spec"]["volumes"] if v["name"] == "config")
    maps = [find("ConfigMap", source["configMap"]["name"])["data"] for source in config["projected"]["sources"]]
    named = {flag.split("=/config/")[1] for flag in container(SERVER)["args"] if "=/config/" in flag}
    assert {name for data in maps for name in data} == named
    models = find("ConfigMap", "flowers-models")["data"]["models.config"]
    assert models == (CONFIG / "pinned.config").read_text()
    mounts = {mount["name"]: mount["mountPath"] for mount in container(SERVER)["volumeMounts"]}
    assert f'base_path: "{mounts["models"]}/flowers"' in models


def test_a_changed_models_config_reaches_running_pods_and_the_other_files_roll_them() -> None:
    generators = yaml.safe_load((CONFIG / "kustomization.yaml").read_text())["configMapGenerator"]
    keeps_its_name = {g["name"]: g.get("options", {}).get("disableNameSuffixHash", False) for g in generators}
    assert keeps_its_name == {"flowers-models": True, "flowers-server": False}
    mounts = container(SERVER)["volumeMounts"]
    assert not any("subPath" in mount for mount in mounts), "a file mounted alone is never renewed"


def test_the_web_page_queries_the_service_of_the_server() -> None:
    web = container(WEB)
    assert web["image"] == COMPOSE["web"]["image"]
    options = _make_parser().parse_args(web["args"])
    host, _, port = options.rest.partition(":")
    rest = {each["name"]: each["port"] for each in find("Service", host)["spec"]["ports"]}["rest"]
    assert int(port) == rest
    assert ports(WEB["spec"]["template"]) == {"http": options.port}


def test_the_bulk_job_runs_a_command_that_exists() -> None:
    from pipelines.__main__ import _parser

    bulk = container(JOB)
    assert bulk["command"] == ["python", "-m", "pipelines", "infer"]
    options = _parser().parse_args(["infer", *bulk["args"]])
    read_only = {mount["mountPath"]: mount.get("readOnly", False) for mount in bulk["volumeMounts"]}
    assert str(options.output).startswith(tuple(path for path in read_only if not read_only[path]))
    assert str(options.model).startswith(tuple(path for path in read_only if read_only[path]))
    assert options.num_workers == int(bulk["resources"]["limits"]["cpu"])
    (rule,) = (r for r in JOB["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob")
    assert rule["onExitCodes"]["containerName"] == bulk["name"]
    assert JOB["spec"]["template"]["spec"]["restartPolicy"] == "Never", "or the rules would be ignored"


def test_a_bulk_job_is_started_again_and_cleaned_up() -> None:
    assert JOB["spec"]["backoffLimit"] > 0
    assert JOB["spec"]["ttlSecondsAfterFinished"] > 0
