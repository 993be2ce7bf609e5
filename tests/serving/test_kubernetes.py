"""What `kubectl apply -k` gets is valid, fits together, and runs with as few rights as the servers need."""

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
COMPOSE = yaml.safe_load((KUBERNETES.parent / "compose.yaml").read_text())["services"]
BUILT = {name: build(KUBERNETES / name) for name in ("overlays/volume", "overlays/bucket", "bulk")}
ALL = [(f"{name}: {' '.join(identify(m))}", manifests, m) for name, manifests in BUILT.items() for m in manifests]
MAY_BE_ABSENT = {"flowers-web", "flowers-bucket"}
"""Secrets that need not exist."""


def of_kind(*kinds: str) -> Any:
    """Run a test once for each manifest of these kinds, wherever it is built; no kinds: of all."""
    chosen = [(manifests, m) for _, manifests, m in ALL if not kinds or m["kind"] in kinds]
    names = [name for name, _, m in ALL if not kinds or m["kind"] in kinds]
    return pytest.mark.parametrize(("manifests", "manifest"), chosen, ids=names)


def find(kind: str, name: str, where: str = "overlays/volume") -> Manifest:
    return next(copy.deepcopy(m) for m in BUILT[where] if identify(m) == (kind, name))


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Give the pod templates."""
    return (m["spec"]["template"] for m in manifests if m["kind"] in ("Deployment", "Job"))


def containers(pod: Manifest) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    return [pod for pod in pods(manifests) if labels.items() <= pod["metadata"]["labels"].items()]


def ports(pod: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for each in containers(pod) for port in each.get("ports", ())}


def check(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


# The schemas.


@of_kind()
def test_a_manifest_fits_the_schema_of_kubernetes(manifests: list[Manifest], manifest: Manifest) -> None:
    check(manifest)


def container(manifest: Manifest) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]["containers"][0]


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
    manifest = find(kind, name)
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


# What names something else names something that is there.


@of_kind("Service", "PodDisruptionBudget", "NetworkPolicy")
def test_a_selector_selects_the_pods_of_one_workload(manifests: list[Manifest], manifest: Manifest) -> None:
    selector = manifest["spec"].get("podSelector" if manifest["kind"] == "NetworkPolicy" else "selector")
    labels = selector if manifest["kind"] == "Service" else selector.get("matchLabels", {})
    if manifest["metadata"]["name"] == "deny-all":
        assert selector == {}
        assert set(manifest["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        assert not {"ingress", "egress"} & set(manifest["spec"])
    else:
        assert len(selected(manifests, labels)) == 1


@of_kind("Deployment")
def test_a_deployment_selects_its_own_pods_and_spreads_them(manifests: list[Manifest], manifest: Manifest) -> None:
    template = manifest["spec"]["template"]
    labels = manifest["spec"]["selector"]["matchLabels"]
    assert selected(manifests, labels) == [template]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert manifest["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@of_kind("Service", "NetworkPolicy")
def test_a_port_exists_where_the_traffic_goes(manifests: list[Manifest], manifest: Manifest) -> None:
    if manifest["kind"] == "Service":
        (pod,) = selected(manifests, manifest["spec"]["selector"])
        for port in manifest["spec"]["ports"]:
            assert ports(pod)[port["targetPort"]] == port["port"]
        return
    for pod in selected(manifests, manifest["spec"]["podSelector"].get("matchLabels", {})):
        for rule in manifest["spec"].get("ingress", ()):
            assert {port["port"] for port in rule["ports"]} <= set(ports(pod))
    for rule in manifest["spec"].get("egress", ()):
        assert rule.get("to") or rule["ports"] == [{"port": 443}]
        for to in rule.get("to", ()):
            for pod in selected(manifests, to["podSelector"]["matchLabels"]) if "podSelector" in to else ():
                assert {port["port"] for port in rule["ports"]} <= set(ports(pod))


@of_kind("HorizontalPodAutoscaler")
def test_what_is_scaled_exists_and_asks_for_the_processors_that_are_measured(
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
def test_what_a_pod_mounts_and_reads_exists(manifests: list[Manifest], manifest: Manifest) -> None:
    spec = manifest["spec"]["template"]["spec"]
    existing = {identify(m) for m in [*manifests, *(BUILT["overlays/volume"] if manifest["kind"] == "Job" else ())]}
    assert ("ServiceAccount", spec["serviceAccountName"]) in existing
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = [mount for each in containers(manifest["spec"]["template"]) for mount in each["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == set(volumes), "what is mounted, and nothing else, is declared"
    for volume in volumes.values():
        maps = [volume, *volume.get("projected", {}).get("sources", ())]
        assert {("ConfigMap", m["configMap"]["name"]) for m in maps if "configMap" in m} <= existing
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in existing
        assert "hostPath" not in volume
        assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}
    for each in containers(manifest["spec"]["template"]):
        for source in each.get("envFrom", ()):
            assert source.get("secretRef", {}).get("name") in {None, *MAY_BE_ABSENT}
            assert source.get("secretRef", {"optional": True})["optional"]
            assert "secretRef" in source or ("ConfigMap", source["configMapRef"]["name"]) in existing
        for variable in each.get("env", ()):
            secret = variable.get("valueFrom", {}).get("secretKeyRef", {"name": None, "optional": True})
            assert secret["optional"]
            assert secret["name"] in {None, *MAY_BE_ABSENT}


# Rights and limits.


@of_kind("Deployment", "Job")
def test_a_pod_has_few_rights_and_limits(manifests: list[Manifest], manifest: Manifest) -> None:
    spec = manifest["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for each in containers(manifest["spec"]["template"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", each["image"]), "a whole version, which does not move"
        for part in ("requests", "limits"):
            assert set(each["resources"][part]) == {"cpu", "memory"}


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


def test_the_server_is_composes_and_the_local_server_knows_its_flags(caplog: pytest.LogCaptureFixture) -> None:
    server = container(find("Deployment", "server"))
    assert server["image"] == COMPOSE["server"]["image"] == launcher.IMAGE
    assert server["command"] == COMPOSE["server"]["entrypoint"]
    assert server["args"] == [flag.replace("${SERVING_CPUS:-2}", "2") for flag in COMPOSE["server"]["command"]]
    flags = parse(server["args"])
    assert not caplog.messages, "each flag means something"
    assert {"grpc": flags.port, "rest": flags.rest_api_port} == ports(find("Deployment", "server")["spec"]["template"])
    monitoring = protos.read(KUBERNETES.parent / "config" / "monitoring.config", protos.MonitoringConfig)
    assert server["livenessProbe"]["httpGet"]["path"] == monitoring.prometheus_config.path
    annotations = find("Deployment", "server")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == monitoring.prometheus_config.path
    assert annotations["prometheus.io/port"] == str(flags.rest_api_port)


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_the_server_is_ready_by_composes_healthcheck(probe: str) -> None:
    """tests/serving/test_config.py runs that one."""
    server = container(find("Deployment", "server"))
    assert ["CMD", *server[probe]["exec"]["command"]] == COMPOSE["server"]["healthcheck"]["test"]


def test_the_servers_files_are_those_of_its_flags() -> None:
    server = find("Deployment", "server")
    (config,) = (v for v in server["spec"]["template"]["spec"]["volumes"] if v["name"] == "config")
    mounted = {
        n for source in config["projected"]["sources"] for n in find("ConfigMap", source["configMap"]["name"])["data"]
    }
    named = {flag.split("=/config/")[1] for flag in container(server)["args"] if "=/config/" in flag}
    assert mounted == named
    models = find("ConfigMap", "flowers-models")["data"]["models.config"]
    assert models == (KUBERNETES.parent / "config" / "models.config").read_text()
    mounts = {mount["name"]: mount["mountPath"] for mount in container(server)["volumeMounts"]}
    assert f'base_path: "{mounts["models"]}/flowers"' in models


def test_a_changed_models_config_reaches_running_pods_and_the_other_files_roll_them() -> None:
    generators = yaml.safe_load((KUBERNETES.parent / "config" / "kustomization.yaml").read_text())["configMapGenerator"]
    keeps_its_name = {g["name"]: g.get("options", {}).get("disableNameSuffixHash", False) for g in generators}
    assert keeps_its_name == {"flowers-models": True, "flowers-server": False}
    mounts = container(find("Deployment", "server"))["volumeMounts"]
    assert not any("subPath" in mount for mount in mounts), "a file mounted alone is never renewed"


def test_the_web_page_asks_the_service_of_the_server() -> None:
    web = container(find("Deployment", "web"))
    assert web["image"] == COMPOSE["web"]["image"]
    options = _make_parser().parse_args(web["args"])
    host, _, port = options.rest.partition(":")
    rest = {each["name"]: each["port"] for each in find("Service", host)["spec"]["ports"]}["rest"]
    assert int(port) == rest
    assert ports(find("Deployment", "web")["spec"]["template"]) == {"http": options.port}


def test_the_bulk_job_runs_a_command_that_there_is() -> None:
    from pipelines.__main__ import _parser

    job = find("Job", "bulk", "bulk")
    assert container(job)["command"] == ["python", "-m", "pipelines", "infer"]
    options = _parser().parse_args(["infer", *container(job)["args"]])
    writable = [m["mountPath"] for m in container(job)["volumeMounts"] if not m.get("readOnly")]
    read_only = [m["mountPath"] for m in container(job)["volumeMounts"] if m.get("readOnly")]
    assert str(options.output).startswith(tuple(writable))
    assert str(options.model).startswith(tuple(read_only))
    assert options.num_workers == int(container(job)["resources"]["limits"]["cpu"])
    (rule,) = (r for r in job["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob")
    assert rule["onExitCodes"]["containerName"] == container(job)["name"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "or the rules would not be looked at"


def test_a_bulk_job_is_started_again_and_cleaned_up() -> None:
    spec = find("Job", "bulk", "bulk")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["ttlSecondsAfterFinished"] > 0
