"""`POST /api/classify` and what an operator queries, on a real service."""

import pytest
import requests

from tests.serving.web.conftest import GREY, RED, PageProcess, make_photo

UNREADABLE = {
    "image": "b.jpg",
    "code": "not_an_image",
    "error": "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture.",
}


def test_a_form_of_photos_has_results_in_their_order(page: PageProcess) -> None:
    response = page.classify(("a.jpg", RED), ("b.jpg", b"no photo"), ("c.png", make_photo((5, 250, 5), "PNG")))
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert (first["image"], first["label"], first["is_sure"], first["model_version"]) == ("a.jpg", "red", True, "1")
    assert second == UNREADABLE, "and the others go on"
    assert (third["image"], third["label"]) == ("c.png", "green")
    assert first["probability"] == max(first["probabilities"].values())
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)  # float32
    assert 0 < first["latency_ms"] < 30_000


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_any_other_body_is_itself_a_photo(page: PageProcess, kind: str | None, is_chunked: bool) -> None:
    body = iter([RED[:100], RED[100:]]) if is_chunked else RED
    (result,) = page.post("/api/classify", data=body, headers={"Content-Type": kind}).json()["results"]
    assert (result["label"], result["image"]) == ("red", "photo 1")


def test_below_the_threshold_a_result_is_not_sure(page: PageProcess) -> None:
    (result,) = page.classify(("a.jpg", GREY)).json()["results"]
    assert result["is_sure"] is False
    assert result["probability"] < 0.5


def test_where_no_photo_can_be_read_the_status_is_422(page: PageProcess) -> None:
    assert page.classify(("a.jpg", b"no photo")).status_code == 422


def test_the_description_has_the_responses_and_their_fields(page: PageProcess) -> None:
    description = page.get("/openapi.json").json()
    assert description["openapi"] == "3.1.0"
    operation = description["paths"]["/api/classify"]["post"]
    assert {"200", "400", "403", "408", "413", "415", "421", "422", "429", "431", "500", "503"} < set(
        operation["responses"]
    )
    results = page.classify(("a.jpg", RED), ("b.jpg", b"no photo")).json()["results"]
    for result, name in zip(results, ("Classified", "Unreadable"), strict=True):
        schema = description["components"]["schemas"][name]
        assert set(result) == set(schema["required"]) == set(schema["properties"])


def test_health_and_readiness(page: PageProcess) -> None:
    assert page.get("/healthz").json() == {"status": "ok"}
    assert page.get("/readyz").json() == {"status": "ready", "model": "flowers", "version": "1"}


def test_metrics_count_requests_photos_and_classes(page: PageProcess) -> None:
    def read() -> list[float]:
        return [
            page.metric("classifier_web_photos_total", outcome="sure"),
            page.metric("classifier_web_photos_total", outcome="damaged"),
            page.metric("classifier_web_predictions_total", label="red"),
            page.metric("classifier_web_requests_total", route="/api/classify", status="200"),
            page.metric("classifier_web_photo_seconds_count"),
        ]

    before = read()
    page.classify(("a.jpg", RED), ("b.jpg", RED[:300]))
    assert [after - start for after, start in zip(read(), before, strict=True)] == [1, 1, 1, 1, 1]
    assert page.metric("classifier_web_model_ready") == 1
    assert page.metric("classifier_web_requests_at_work") == 0


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/classify", 405), ("GET", "/nothing", 404), ("DELETE", "/", 405)]
)
def test_other_requests_are_refused_with_a_sentence(page: PageProcess, method: str, path: str, status: int) -> None:
    response = page.session.request(method, page.url + path, timeout=30)
    assert response.status_code == status
    assert response.text


@pytest.mark.parametrize(
    ("path", "allow"), [("/", "GET, HEAD, POST"), ("/api/classify", "POST"), ("/healthz", "GET, HEAD")]
)
def test_a_method_that_a_path_lacks_is_refused_with_those_that_it_has(page: PageProcess, path: str, allow: str) -> None:
    response = page.session.request("DELETE", page.url + path, timeout=30)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)  # RFC 9110, 15.5.6


@pytest.mark.parametrize("path", ["/model/", "/healthz/", "/api/classify/"])
def test_nothing_redirects_to_the_host_that_a_request_names(page: PageProcess, path: str) -> None:
    response = page.get(path, headers={"Host": "elsewhere"}, allow_redirects=False)
    assert response.status_code == 404
    assert "Location" not in response.headers


@pytest.mark.parametrize(
    "path", ["/", "/model", "/healthz", "/openapi.json", "/nothing", "/static/app.js", "/samples/daisy.jpg"]
)
def test_every_response_carries_the_headers(page: PageProcess, path: str) -> None:
    headers = page.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy, "WebAssembly, and no script that is not the page's own"
    assert policy.count("unsafe") == 1
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Set-Cookie" not in headers
    assert ("immutable" in headers["Cache-Control"]) is path.startswith(("/static/", "/samples/"))


def test_an_asset_that_is_known_is_not_sent_again(page: PageProcess) -> None:
    first = page.get("/static/style.css")
    assert first.headers["Content-Type"].startswith("text/css")
    again = page.get("/static/style.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/static/../pages.py", "/static/%2e%2e%2fpages.py", "/samples/..%2fREADME.md"])
def test_no_other_file_is_served(page: PageProcess, path: str) -> None:
    request = requests.Request("GET", page.url).prepare()
    request.url = page.url + path
    assert page.session.send(request, timeout=30).status_code == 404
