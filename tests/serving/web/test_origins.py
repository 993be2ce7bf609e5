"""Which hosts the service is known by, and whose pages may send photos."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from serving.web.models import FileModel
from serving.web.screenshots import open_browser
from serving.web.settings import Settings
from tests.serving.web.browser import needs_browser, wait_for
from tests.serving.web.conftest import CALL_S, RED, Page, open_page, start_page


def send(
    page: Page, path: str = "/api/classify", *, method: str = "POST", headers: list[tuple[str, str]], body: bytes = RED
) -> tuple[int, str]:
    """Send a request with these headers only; return the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=CALL_S)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:{port}",
        "localhost:{port}",
        "192.168.1.20:8080",
        "[::1]:8080",
        "[fe80::1]",
        "LOCALHOST",
        "page.localhost:8080",
        "web:8080",
        "printer.local",
        "web.flowers.svc",
        "web.flowers.svc.cluster.local:80",
        "localhost.",
    ],
)
def test_addresses_and_names_that_nobody_can_register_reach_the_service(page: Page, host: str) -> None:
    status, _ = send(page, headers=[("Host", host.format(port=page.port))])
    assert status == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com", "127.0.0.1.evil.com:80", "evil.com.", "a b", "[::1", "x@y.com", "é"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/api/classify"), ("GET", "/nothing")])
def test_a_name_that_turned_into_this_address_is_refused(page: Page, host: str, method: str, path: str) -> None:
    status, text = send(page, path, method=method, headers=[("Host", host)])
    assert status == 421
    assert "start it with --allowed-host" in text


def test_a_program_need_not_name_a_host_and_nobody_names_two(page: Page) -> None:
    assert send(page, headers=[])[0] == 200
    assert send(page, headers=[("Host", "localhost"), ("Host", "evil.com")])[0] == 400


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({"allowed_hosts": ("Photos.example.com",)}, "photos.example.com:443", 200),
        ({"allowed_hosts": ("photos.example.com",)}, "other.example.com", 421),
        ({"allowed_hosts": ("*",)}, "other.example.com", 200),
        ({"host": "photos.example.com"}, "photos.example.com", 200),
    ],
)
def test_other_names_are_told(file_model: FileModel, options: dict[str, Any], host: str, status: int) -> None:
    with open_page(file_model, **options) as page:
        assert send(page, headers=[("Host", host)])[0] == status


def test_names_are_told_by_options_and_the_environment(tmp_path: Path, model_path: Path) -> None:
    options = ("--tflite", model_path, "--allowed-host", "a.example.com", "--allowed-host", "b.example.com")
    env = {"CLASSIFIER_WEB_ALLOWED_HOSTS": "c.example.com, d.example.com"}
    with start_page(tmp_path / "page.log", *options, env=env) as page:
        statuses = [send(page, headers=[("Host", f"{name}.example.com")])[0] for name in "abcde"]
    assert statuses == [200, 200, 200, 200, 421]


@pytest.mark.parametrize("host", ["http://a.example.com", "a.example.com/", "", "*.example.com"])
def test_what_is_no_name_is_an_error_of_the_operator(host: str) -> None:
    with pytest.raises(ValueError, match="must be names such as"):
        Settings(allowed_hosts=(host,))


FORM = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n' + RED + b"\r\n--b--\r\n"


@pytest.mark.parametrize("path", ["/", "/api/classify"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8080"}, 403),
        ({"Origin": "http://localhost:8080"}, 200),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "https://evil.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        # A proxy that names the page by its address; the browser knows its own name.
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://photos.example.com"}, 200),
    ],
)
def test_no_foreign_page_sends_photos(page: Page, path: str, headers: dict[str, str], status: int) -> None:
    sent = [("Host", "localhost:8080"), ("Content-Type", "multipart/form-data; boundary=b"), *headers.items()]
    assert send(page, path, headers=sent, body=FORM)[0] == status


def test_a_link_from_another_site_opens_the_page(page: Page) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.com"}
    assert page.get("/", headers=headers).status_code == 200


FOREIGN = """<!doctype html><body><form method="post" action="{url}/" enctype="multipart/form-data">
<input name="sample" value="rose.jpg"><button>Win a prize</button></form>
<script>fetch("{url}/api/classify", {{method: "POST", mode: "no-cors", body: new Blob(["x"])}})
  .catch(() => null).then(() => {{ document.title = "sent"; }});</script>"""


@needs_browser
def test_a_foreign_page_in_a_real_browser_spends_nothing(file_model: FileModel) -> None:
    with open_page(file_model) as page:

        class Foreign(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(FOREIGN.format(url=page.url).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server, open_browser() as browser:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            # For a browser localhost is another site than 127.0.0.1.
            browser.get(f"http://localhost:{server.server_port}")
            wait_for(browser, lambda: browser.title == "sent")
            browser.find_element(By.CSS_SELECTOR, "button").click()
            wait_for(browser, lambda: browser.current_url.startswith(page.url))
            assert "Photos are not taken from pages of other sites." in browser.page_source
            server.shutdown()
        for route in ("other", "/api/classify", "/"):
            assert page.metric("classifier_web_requests_total", route=route, status="200") == 0
        assert page.metric("classifier_web_requests_total", route="other", status="403") == 2
