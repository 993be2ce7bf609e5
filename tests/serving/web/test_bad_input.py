"""Bad photos, bad requests and bad clients: who caused it is told so, the others go on, and nothing is kept."""

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

from tests.serving.web.conftest import Page, picture, start_page, wait_until

RED, GREEN = (250, 5, 5), (5, 250, 5)
MB = 1_000_000


def claim(width_px: int, height_px: int) -> bytes:
    """Write a PNG that claims a size and holds zeros, packed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width_px, height_px, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width_px // 8 + 1) * height_px), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animate() -> bytes:
    """Write an animation that begins red and goes on green."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, GREEN)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def rotate() -> bytes:
    """Write a photo that its EXIF orientation turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(RED, exif=exif)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"This is a letter.", "not_an_image"),
        (b"", "empty"),
        (picture(RED)[:300], "damaged"),
        (claim(12_000, 12_000), "too_many_pixels"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "heic"),
        (picture(RED) + bytes(10 * MB), "too_large"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
    ids=["text", "empty", "truncated", "12000x12000", "heic", "too large", "svg"],
)
def test_a_photo_that_cannot_be_read_gets_a_sentence_and_the_others_go_on(
    page: Page, content: bytes, code: str
) -> None:
    first, bad, last = page.classify(("a.jpg", picture(RED)), ("b.jpg", content), ("c.jpg", picture(GREEN))).json()[
        "results"
    ]
    assert (first["label"], bad["image"], bad["code"], last["label"]) == ("red", "b.jpg", code, "green")
    assert re.fullmatch(r"This .*\. [A-Z].*\.", bad["error"])


def test_the_claim_is_a_small_file() -> None:
    assert len(claim(12_000, 12_000)) < 20_000


@pytest.mark.parametrize("content", [animate(), rotate()], ids=["animated", "rotated"])
def test_an_unusual_photo_is_read(page: Page, content: bytes) -> None:
    assert page.classify(("a", content)).json()["results"][0]["label"] == "red"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_hundred_megabytes_are_refused(page: Page, is_chunked: bool) -> None:
    body = bytes(MB)
    response = page.post("/api/classify", data=(body for _ in range(100)) if is_chunked else body * 100)
    assert response.status_code == 413
    assert response.json() == {"error": "A photo may take 10 MB, and this is larger. Send less at once."}


def test_a_hundred_megabytes_in_a_form_are_an_error_in_their_place(page: Page) -> None:
    response = page.classify(("a.jpg", bytes(100 * MB)), ("b.jpg", picture(RED)))
    large, small = response.json()["results"]
    assert large["error"] == "This photo is larger than 10 MB. Send a smaller copy."
    assert small["label"] == "red"


def test_five_hundred_files_are_refused(page: Page) -> None:
    response = page.classify(*[(f"{number}.jpg", picture(RED)) for number in range(500)])
    assert response.status_code == 413
    assert response.json()["error"] == "A request may hold 20 photos, and this one holds more. Send fewer at once."
    # The page says the same to a person.
    shown = page.post("/", files=[("photo", (f"{number}.jpg", picture(RED))) for number in range(500)])
    assert shown.status_code == 413
    assert "A request may hold 20 photos" in shown.text


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
    assert page.classify((name, picture(RED))).json()["results"][0]["image"] == shown
    html = page.post("/", files={"photo": (name, picture(RED))}).text
    assert "<script>alert" not in html
    assert "etc/passwd" not in html


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 422),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
        (b"nothing", {"Content-Type": "multipart/form-data; boundary=b"}, 400),
        (b"--b\r\nContent-Disposition: form-data; name=photo; filename=a\r\n\r\ncut", {}, 400),
        (b"--b\r\n\r\n\r\n--b--\r\n", {}, 400),
        (picture(RED), {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, 415),
    ],
    ids=["empty", "no boundary", "no form", "cut short", "no photo", "packed"],
)
def test_damaged_requests_are_refused_with_a_sentence(
    page: Page, body: bytes, headers: dict[str, str], status: int
) -> None:
    if body.startswith(b"--b"):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = page.post("/api/classify", data=body, headers=headers)
    assert response.status_code == status
    assert response.json()


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_uploads_never_touch_the_disk(tmp_path: Path, models_dir: Path) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", models_dir) as page:
        # From now on the service can write to no file at all.
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        large = picture(RED) + bytes(9 * MB)
        assert page.classify(("a.jpg", large), ("b.jpg", large)).status_code == 200
        assert page.post("/", files={"photo": ("a.jpg", large)}).status_code == 200
        assert page.post("/api/classify", data=large).status_code == 200


@pytest.fixture
def narrow(tmp_path: Path, models_dir: Path) -> Iterator[Page]:
    """A service that answers one request at a time, and 60 photos a minute."""
    arguments = ("--models-dir", models_dir, "--max-at-work", 1, "--photos-per-minute", 60)
    with start_page(tmp_path / "page.log", *arguments) as page:
        yield page


def send_half(page: Page) -> socket.socket:
    """Send the first half of a photo, and no more."""
    half = socket.create_connection(("127.0.0.1", page.port))
    head = b"POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    half.sendall(head + bytes(500))
    wait_until(lambda: page.metric("classifier_web_requests_at_work") == 1)
    return half


def test_one_more_than_can_be_at_work_is_told_to_come_again_and_a_hung_up_upload_makes_room(narrow: Page) -> None:
    half = send_half(narrow)
    refused = narrow.classify(("a.jpg", picture(RED)))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert refused.json()["error"].startswith("Everybody is asking at once, and no more than 1 can be at work.")
    half.close()
    wait_until(lambda: narrow.metric("classifier_web_requests_at_work") == 0)
    assert narrow.classify(("a.jpg", picture(RED))).status_code == 200
    assert narrow.metric("classifier_web_requests_total", route="/api/classify", status="499") == 1
    assert "Traceback" not in narrow.log()


def test_a_client_that_sends_too_many_photos_waits(narrow: Page) -> None:
    statuses = [narrow.classify(*[("a.jpg", picture(RED))] * 20).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = narrow.classify(("a.jpg", picture(RED)))
    assert int(refused.headers["Retry-After"]) >= 1
    assert "60 a minute" in refused.json()["error"]
    assert narrow.get("/").status_code == 200


def test_a_request_at_work_is_finished_when_the_service_ends(narrow: Page) -> None:
    photo = picture(RED)
    with socket.create_connection(("127.0.0.1", narrow.port)) as late:
        head = b"POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        late.sendall(head % len(photo) + photo[:100])
        wait_until(lambda: narrow.metric("classifier_web_requests_at_work") == 1)
        narrow.process.terminate()
        wait_until(lambda: "stopping" in narrow.log())
        late.sendall(photo[100:])
        assert late.recv(100).startswith(b"HTTP/1.1 200")
    assert narrow.process.wait(10) == 0


def test_nothing_of_a_photo_is_logged(narrow: Page) -> None:
    name = "very-private-name.jpg"
    narrow.classify((name, picture(RED)), (name, b"very private text"))
    narrow.stop()
    assert "private" not in narrow.log()
