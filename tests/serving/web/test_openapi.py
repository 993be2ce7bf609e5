"""The API's description, beside what the service really sends."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from serving.web.app import make_app
from serving.web.metrics import Metrics
from serving.web.models import FileModel
from serving.web.openapi import describe
from serving.web.settings import Limits, Settings
from tests.serving.web.conftest import RED, Page, PageProcess, open_page

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
NUM_EXAMPLES = 300
SLOW_S = 900


@pytest.fixture(scope="module")
def strict(file_model: FileModel) -> Iterator[Page]:
    """A service that wants a token, and has little patience."""
    limits = Limits(max_photo_bytes=5000, max_photos=2, patience_s=0.2, photos_per_minute=1, burst_photos=9)
    with open_page(file_model, token="secret", limits=limits) as page:
        yield page


def check(page: Page, response: requests.Response, path: str, method: str = "post") -> None:
    """Compare a response with the description of its route: status, type, and schema or headers."""
    description = page.get("/openapi.json").json()
    documented = description["paths"][path][method]["responses"][str(response.status_code)]
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    contents = documented.get("content", {})
    assert (kind in contents) if response.content else not contents
    if kind == "application/json":
        schema = {**contents[kind]["schema"], "components": description["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())
    assert ("headers" in documented) is ("Retry-After" in response.headers)


def test_every_route_is_described(file_model: FileModel) -> None:
    with open_page(file_model) as page:
        paths = page.get("/openapi.json").json()["paths"]
    app = make_app(_Unused(), Settings(), Metrics())  # type: ignore[arg-type]
    routes = {(route.path, method.lower()) for route in app.routes for method in route.methods}  # type: ignore[attr-defined]
    described = {(path, method) for path, item in paths.items() for method in item if method != "parameters"}
    assert described == {(path, method) for path, method in routes if method != "head"}


class _Unused:
    """A classifier of a service that is not started."""


@pytest.mark.parametrize("path", ["/api/classify", "/"])
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, {"Authorization": "Bearer wrong"}, RED),
        (400, FORM, b"nothing"),
        (400, {}, b""),
        (403, {"Sec-Fetch-Site": "cross-site"}, RED),
        (413, {}, bytes(100_000)),
        (415, {"Content-Encoding": "gzip"}, RED),
        (421, {"Host": "evil.com"}, RED),
        (422, {}, b"no photo"),
        (431, {"X-Large": "x" * 70_000}, RED),
    ],
)
def test_every_refusal_is_as_described(
    strict: Page, path: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    if path == "/" and status == 401:
        headers = {**headers, **FORM}
        body = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    response = requests.post(
        strict.url + path, data=body, headers={"Authorization": "Bearer secret", **headers}, timeout=30
    )
    assert response.status_code == status
    check(strict, response, path)


def test_a_request_that_is_no_http_is_as_described(page: PageProcess) -> None:
    response = page.session.request("NOMETHOD", page.url + "/api/classify", timeout=30)
    assert response.status_code == 400
    check(page, response, "/api/classify")


def test_a_rate_that_is_exceeded_is_as_described(file_model: FileModel) -> None:
    with open_page(file_model, limits=Limits(burst_photos=1, photos_per_minute=1)) as page:
        assert page.classify(("a.jpg", RED)).status_code == 200
        for path in ("/api/classify", "/"):
            response = page.post(path, data=RED)
            assert response.status_code == 429
            check(page, response, path)


def test_the_description_names_the_limits() -> None:
    text = json.dumps(describe(Settings(limits=Limits(photos_per_minute=77))))
    assert "A client may send 77 photos a minute" in text
    assert "at most 10 MB and 25 megapixels, a JPEG that is not progressive 210" in text


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("schemathesis"), reason="needs schemathesis (requirements-dev.txt)")
def test_schemathesis_finds_no_response_that_is_not_described(page: PageProcess, tmp_path: Path) -> None:
    checks = [
        *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
        *("response_headers_conformance", "unsupported_method", "allow_header_conformance"),
    ]
    arguments: list[Any] = ["run", page.url + "/openapi.json", "--checks", ",".join(checks), "-n", NUM_EXAMPLES]
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *map(str, arguments), "--continue-on-failure", "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SLOW_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2000:]
    assert page.get("/healthz").status_code == 200
    assert "Traceback" not in page.log()
