"""What a release asks of the server, over REST, and of the proxy, on its control port."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests

from client.classifier_client import ConnectionOptions
from components.errors import ReleaseError

_CALL_S = 10.0
_POLL_S = 0.1


class Http:
    """A server on `host:port`.

    Args:
        address: of the server.
        name: says in errors what it is.
        start: says how to start it.
        options: whether it speaks TLS, and the token that it gets.
    """

    def __init__(self, address: str, *, name: str, start: str, options: ConnectionOptions | None = None) -> None:
        options = options or ConnectionOptions()
        self._address, self._name, self._start = address, name, start
        self._url = f"http{'s' if options.tls else ''}://{address}"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(options.ca_file) if options.ca_file else True
        if options.token:
            self._session.headers["Authorization"] = f"Bearer {options.token}"

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON of a response.

        Raises:
            ReleaseError: there is none.
        """
        try:
            response = self._session.request(method, self._url + path, json=body, timeout=_CALL_S)
            return response.status_code, response.json()
        except (requests.RequestException, ValueError) as exc:
            raise ReleaseError(
                f"A release needs the {self._name} at {self._address}, and it does not respond ({type(exc).__name__}). "
                f"{self._start}"
            ) from exc


class ModelServer(Http):
    """The server that reads `models.config`."""

    def __init__(
        self, address: str, model_name: str, *, timeout_s: float, options: ConnectionOptions | None = None
    ) -> None:
        super().__init__(
            address,
            name="server",
            start="Start it with --model_config_file and --model_config_file_poll_wait_seconds, and give its REST "
            "address with --server; check --tls and --ca-file.",
            options=options,
        )
        self._path = f"/v1/models/{quote(model_name, safe='')}"
        self._timeout_s = timeout_s

    def wait_for_version(self, version: int) -> str:
        """Return when a version serves, "", or has failed to load, with the server's reason.

        Raises:
            ReleaseError: neither happens in time.
        """
        found: list[dict[str, Any]] = []

        def is_settled() -> bool:
            status, document = self.call("GET", f"{self._path}/versions/{version}")
            found[:] = document["model_version_status"] if status == 200 else []
            return bool(found) and (found[0]["state"] == "AVAILABLE" or _error(found[0]) != "")

        self._wait(is_settled, f"version {version} as AVAILABLE")
        return _error(found[0])

    def wait_for_label(self, label: str, version: int) -> None:
        """Return when a label names a version.

        Raises:
            ReleaseError: it does not in time.
        """

        def is_set() -> bool:
            status, document = self.call("GET", f"{self._path}/labels/{quote(label, safe='')}/metadata")
            return status == 200 and int(document["model_spec"]["version"]) == version

        self._wait(is_set, f"the label {label} at version {version}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + self._timeout_s
        while not condition():
            if time.monotonic() > end_s:
                status, document = self.call("GET", self._path)
                raise ReleaseError(
                    f"The server must show {what} within {self._timeout_s:g} s, and shows (HTTP {status}): {document}. "
                    "Check that it polls this --config, and its log; then run the command again, which goes on."
                )
            time.sleep(_POLL_S)


def _error(version: dict[str, Any]) -> str:
    status = version.get("status", {})
    return "" if status.get("error_code", "OK") == "OK" else str(status.get("error_message", "it cannot be loaded"))


class Proxy(Http):
    """The proxy's control port."""

    def __init__(self, address: str) -> None:
        super().__init__(
            address,
            name="proxy",
            start="Start it with python -m serving.proxy, and give its control port with --proxy.",
        )

    def begin(self, plan: dict[str, Any]) -> int:
        """Let the proxy compare two versions; return the number of the last observation before."""
        status, document = self.call("PUT", "/plan", plan)
        if status != 200:
            raise ReleaseError(f"The proxy must take the plan, and does not: {document}")
        return int(document["num_observed"])

    def end(self, salt: str) -> None:
        """Let the proxy send everything to stable, if the plan in force is this release's."""
        self.call("DELETE", f"/plan?salt={salt}")

    def observations(self, after: int, salt: str) -> dict[str, Any]:
        """Return what was seen for this release's plan after an observation."""
        document: dict[str, Any] = self.call("GET", f"/observations?after={after}&salt={salt}")[1]
        return document
