"""A pod of a manifest, run by hand: a container that holds its network and processes, as a cluster's, and those in it.

Command, arguments, environment, user, groups, rights, limits and mounts are the manifest's. A ConfigMap is a folder
with its files, an `emptyDir` memory of its size, a claim the folder that a test names for it.
"""

import json
import re
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.containers.docker import docker
from tests.serving.kustomize import Manifest

UNITS = {"Mi": 2**20, "Gi": 2**30}
GRACE_S = 30
"""What Kubernetes takes where a pod says nothing."""


def find(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def num_bytes(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def _expand(word: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word)


class Pod:
    """A pod that runs as long as the block lasts; its containers are started one by one."""

    def __init__(
        self, manifests: Sequence[Manifest], kind: str, name: str, *, claims: Mapping[str, Path], folder: Path
    ) -> None:
        self.spec: dict[str, Any] = find(manifests, kind, name)["spec"]["template"]["spec"]
        self.name = f"pod-{name}-{secrets.token_hex(4)}"
        self.grace_s = self.spec.get("terminationGracePeriodSeconds", GRACE_S)
        self._service, self._claims, self._folder = name, claims, folder
        self.data = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}

    def start(self, image: str, *, network: str) -> "Pod":
        """Start the container that holds the pod's network, under the name of its Service, and its processes."""
        alias = () if network == "none" else ("--network-alias", self._service)
        command = ("--init", "--entrypoint", "sleep", image, "infinity")
        docker("run", "--detach", "--rm", "--name", self.name, "--network", network, *alias, *command)
        return self

    def remove(self) -> None:
        names = docker("ps", "--all", "--filter", f"name={self.name}", "--format", "{{.Names}}").split()
        for name in names:
            docker("rm", "--force", "--volumes", name)

    def container(self, name: str) -> "Container":
        named = [*self.spec.get("initContainers", ()), *self.spec["containers"]]
        return Container(self, next(entry for entry in named if entry["name"] == name))

    @property
    def address(self) -> str:
        networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", self.name))
        return next(iter(networks.values()))["IPAddress"]

    def mount(self, entry: Mapping[str, Any]) -> list[str]:
        """Return the options that mount a volume of the pod as a container says."""
        volume = next(volume for volume in self.spec["volumes"] if volume["name"] == entry["name"])
        target = entry["mountPath"]
        if "emptyDir" in volume:
            size = num_bytes(volume["emptyDir"]["sizeLimit"])
            return ["--tmpfs", f"{target}:rw,size={size},mode=1777"]
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            source, read_only = self._claims[claim["claimName"]], claim.get("readOnly") or entry.get("readOnly")
        else:
            source, read_only = self._write(volume), True
        return ["--volume", f"{source}:{target}{':ro' if read_only else ''}"]

    def _write(self, volume: Mapping[str, Any]) -> Path:
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        folder = self._folder / volume["name"]
        folder.mkdir(exist_ok=True)
        for source in sources:
            for name, content in self.data[source["configMap"]["name"]].items():
                (folder / name).write_text(content)
        return folder


class Container:
    """A container of a pod, its probes, and how it ends."""

    def __init__(self, pod: Pod, spec: Mapping[str, Any]) -> None:
        self._pod, self.spec = pod, spec
        self.name = f"{pod.name}-{spec['name']}"

    def start(self, *options: str) -> "Container":
        """Start it, with more options of `docker run`."""
        pod, rights, limits = self._pod.spec, self.spec["securityContext"], self.spec["resources"]["limits"]
        user = pod["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        environment = self._environment()
        command = [_expand(word, environment) for word in self.spec.get("command", ())]
        arguments = [_expand(word, environment) for word in self.spec.get("args", ())]
        docker(
            *("run", "--detach", "--name", self.name, "--network", f"container:{self._pod.name}"),
            *(("--pid", f"container:{self._pod.name}") if pod.get("shareProcessNamespace") else ()),
            *("--user", f"{user['runAsUser']}:{user['runAsGroup']}"),
            *(("--group-add", str(user["fsGroup"])) if "fsGroup" in user else ()),
            *("--read-only", "--security-opt", "no-new-privileges"),
            *(word for capability in rights["capabilities"]["drop"] for word in ("--cap-drop", capability)),
            *("--cpus", limits["cpu"], "--memory", str(num_bytes(limits["memory"]))),
            # No swap, as on a node.
            *("--memory-swap", str(num_bytes(limits["memory"]))),
            *(word for entry in self.spec["volumeMounts"] for word in self._pod.mount(entry)),
            *(word for name, value in environment.items() for word in ("--env", f"{name}={value}")),
            *options,
            *(("--entrypoint", command[0]) if command else ()),
            *(self.spec["image"], *command[1:], *arguments),
        )
        return self

    def _environment(self) -> dict[str, str]:
        """Return its variables; secrets are left out, and so must be optional."""
        environment: dict[str, str] = {}
        for source in self.spec.get("envFrom", ()):
            if "configMapRef" in source:
                environment |= self._pod.data[source["configMapRef"]["name"]]
            else:
                assert source["secretRef"]["optional"]
        for entry in self.spec.get("env", ()):
            if "value" in entry:
                environment[entry["name"]] = entry["value"]
            else:
                assert entry["valueFrom"]["secretKeyRef"]["optional"]
        return environment

    def wait_until_started(self) -> float:
        """Wait as long as its startup probe lets it; return the seconds."""
        probe, start = self.spec["startupProbe"], time.monotonic()
        while not self.passes("startupProbe"):
            waited = time.monotonic() - start
            assert self.is_running(), self.log()
            assert waited < probe["periodSeconds"] * probe["failureThreshold"], self.log()
            time.sleep(0.2)
        return time.monotonic() - start

    def passes(self, name: str) -> bool:
        """Carry out a probe once, within its time."""
        probe = self.spec[name]
        timeout_s = probe.get("timeoutSeconds", 1)
        try:
            if "exec" in probe:
                docker("exec", self.name, *probe["exec"]["command"], timeout_s=timeout_s)
                return True
            get = probe["httpGet"]
            port = next(port["containerPort"] for port in self.spec["ports"] if port["name"] == get["port"])
            url = f"http://{self._pod.address}:{port}{get['path']}"
            return 200 <= requests.get(url, timeout=timeout_s, allow_redirects=False).status_code < 400
        except (AssertionError, subprocess.TimeoutExpired, requests.RequestException):
            return False

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return its exit status; 137 is that of a process that was killed."""
        return int(docker("wait", self.name, timeout_s=timeout_s))

    def stop(self) -> int:
        """End it as a cluster does: the preStop command, SIGTERM, all within the pod's time; return its exit status."""
        end = time.monotonic() + self._pod.grace_s
        if command := self.spec.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command"):
            docker("exec", self.name, *command, timeout_s=self._pod.grace_s)
            assert self.is_running(), self.log()
        docker("kill", "--signal", "TERM", self.name)
        return self.wait(end - time.monotonic())

    def is_running(self) -> bool:
        return docker("inspect", "--format", "{{.State.Running}}", self.name) == "true"

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout + done.stderr
