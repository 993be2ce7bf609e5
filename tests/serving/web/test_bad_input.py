"""Bad photos, bad requests and bad clients: each gets an error of its own, the others go on, and nothing is kept."""

import io
import re
import resource
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from serving.web.models import FileModel
from serving.web.settings import Limits
from tests.serving.web.conftest import GREEN, RED, Page, make_photo, open_page, start_page, wait_until

MB = 1_000_000
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def claim(width_px: int, height_px: int) -> bytes:
    """Encode a PNG that claims a size and holds zeros, packed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width_px, height_px, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width_px // 8 + 1) * height_px), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animate() -> bytes:
    """Encode an animation that begins red and goes on green."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), color) for color in ((250, 5, 5), (5, 250, 5))]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def rotate() -> bytes:
    """Encode a photo that its EXIF orientation turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return make_photo((250, 5, 5), exif=exif)


BOMB = claim(12_000, 12_000)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"This is a letter.", "not_an_image"),
        (b"", "empty"),
        (RED[:300], "damaged"),
        (BOMB, "too_many_pixels"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "heic"),
        (RED + bytes(10 * MB), "too_large"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
    ids=["text", "empty", "truncated", "12000x12000", "heic", "too large", "svg"],
)
def test_a_photo_that_cannot_be_read_gets_a_sentence_and_the_others_go_on(
    page: Page, content: bytes, code: str
) -> None:
    response = page.classify(("a.jpg", RED), ("b.jpg", content), ("c.jpg", GREEN))
    first, bad, last = response.json()["results"]
    assert (first["label"], bad["image"], bad["code"], last["label"]) == ("red", "b.jpg", code, "green")
    assert re.fullmatch(r"This .*\. [A-Z].*\.", bad["error"])


def test_the_claim_is_a_small_file() -> None:
    assert len(BOMB) < 20_000


@pytest.mark.parametrize("content", [animate(), rotate()], ids=["animated", "rotated"])
def test_an_unusual_photo_is_read(page: Page, content: bytes) -> None:
    assert page.classify(("a", content)).json()["results"][0]["label"] == "red"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_hundred_megabytes_are_refused(page: Page, is_chunked: bool) -> None:
    body = bytes(MB)
    response = page.post("/api/classify", data=(body for _ in range(100)) if is_chunked else body * 100)
    assert response.status_code == 413
    assert response.json() == {"error": "A photo may take 10 MB, and this is larger. Send less at once."}


def test_a_hundred_megabytes_in_a_form_are_an_error_of_that_photo(page: Page) -> None:
    large, small = page.classify(("a.jpg", bytes(100 * MB)), ("b.jpg", RED)).json()["results"]
    assert large["error"] == "This photo is larger than 10 MB. Send a smaller copy."
    assert small["label"] == "red"


@pytest.mark.parametrize("path", ["/api/classify", "/"])
def test_five_hundred_files_are_refused(page: Page, path: str) -> None:
    response = page.post(path, files=[("photo", (f"{number}.jpg", RED)) for number in range(500)])
    assert response.status_code == 413
    assert "A request may hold 20 photos, and this one holds more. Send fewer at once." in response.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\tulip.jpg", "tulip.jpg"),
        ("<script>alert(1)<b>.jpg", "<script>alert(1)<b>.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("x" * 200, "x" * 80),
        ("../", "photo 1"),
    ],
)
def test_names_are_not_trusted(page: Page, name: str, shown: str) -> None:
    assert page.classify((name, RED)).json()["results"][0]["image"] == shown
    html = page.post("/", files={"photo": (name, RED)}).text
    assert "<script>alert" not in html
    assert "etc/passwd" not in html


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"", {"Content-Type": "image/jpeg"}, 400),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
        (b"nothing", FORM, 400),
        (b"--b\r\nContent-Disposition: form-data; name=photo; filename=a\r\n\r\ncut", FORM, 400),
        (b"--b\r\n\r\n\r\n--b--\r\n", FORM, 400),
        (RED, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, 415),
    ],
    ids=["empty", "empty photo", "no boundary", "no form", "cut short", "no photo", "packed"],
)
def test_damaged_requests_are_refused_with_a_sentence(
    page: Page, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = page.post("/api/classify", data=body, headers=headers)
    assert response.status_code == status
    assert response.json()


def test_a_bad_form_writes_no_log_line(tmp_path: Path, models_dir: Path) -> None:
    forms = [
        b"--b\r\nx: y\r\n\r\nz\r\n--b--\r\nafter the end",
        b"nothing\nERROR forged",
        b"--b\r\nCont\x00ent: a\r\n\r\n",
        b"--b\r\n: \r\n",
        b"--bERROR forged",
    ]
    with start_page(tmp_path / "page.log", "--models-dir", models_dir) as page:
        before = page.log()
        for form in forms:
            assert page.post("/api/classify", data=form, headers=FORM).status_code == 400
        with socket.create_connection(("127.0.0.1", page.port)) as connection:
            connection.sendall(b"no HTTP at all\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        assert page.log() == before


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_uploads_never_touch_the_disk(tmp_path: Path, models_dir: Path) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", models_dir) as page:
        # From now on the service can write to no file at all.
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        large = RED + bytes(9 * MB)
        assert page.classify(("a.jpg", large), ("b.jpg", large)).status_code == 200
        assert page.post("/", files={"photo": ("a.jpg", large)}).status_code == 200
        assert page.post("/api/classify", data=large).status_code == 200


@pytest.fixture
def narrow(file_model: FileModel) -> Iterator[Page]:
    """A service that handles one request of a client at a time, and 60 photos a minute."""
    with open_page(file_model, limits=Limits(max_requests_per_client=1, photos_per_minute=60)) as page:
        yield page


def begin_upload(page: Page) -> socket.socket:
    """Send the head of a request and the first half of its photo, and wait until it is in progress."""
    upload = socket.create_connection(("127.0.0.1", page.port))
    head = f"POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(RED)}\r\n\r\n"
    upload.sendall(head.encode() + RED[:300])
    wait_until(lambda: page.metric("classifier_web_requests_at_work") == 1)
    return upload


def test_a_request_too_many_is_refused_and_a_hung_up_upload_makes_room(
    narrow: Page, caplog: pytest.LogCaptureFixture
) -> None:
    with begin_upload(narrow):
        refused = narrow.classify(("a.jpg", RED))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"].startswith("No more than 1 requests of one address")
    wait_until(lambda: narrow.metric("classifier_web_requests_at_work") == 0)
    assert narrow.classify(("a.jpg", RED)).status_code == 200
    assert narrow.metric("classifier_web_requests_total", route="/api/classify", status="499") == 1
    assert "Traceback" not in caplog.text


def test_a_client_that_sends_too_many_photos_waits(narrow: Page) -> None:
    statuses = [narrow.classify(*[("a.jpg", RED)] * 20).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = narrow.classify(("a.jpg", RED))
    assert int(refused.headers["Retry-After"]) >= 1
    assert "60 a minute" in refused.json()["error"]
    assert narrow.get("/").status_code == 200


def test_a_request_in_progress_is_finished_when_the_service_ends_and_nothing_of_a_photo_is_logged(
    tmp_path: Path, models_dir: Path
) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", models_dir) as page:
        page.classify(("very-private-name.jpg", RED), ("very-private-name.jpg", b"very private text"))
        with begin_upload(page) as upload:
            page.process.terminate()
            wait_until(lambda: "stopping" in page.log())
            upload.sendall(RED[300:])
            assert upload.recv(100).startswith(b"HTTP/1.1 200")
        assert page.process.wait(10) == 0
        assert "private" not in page.log()
