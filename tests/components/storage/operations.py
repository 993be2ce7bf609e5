"""What a pipeline does with a bucket, and what must hold whether it finishes or fails."""

from abc import ABC, abstractmethod
from pathlib import Path

from components.data.sources.factory import open_source
from components.storage.bucket import Bucket
from components.storage.models import MARKER, open_models
from tests.components.candidates import Candidates
from tests.s3 import S3

SMALL, LARGE = b"small" * 200, bytes(range(256)) * 12_000
FILES = {"saved_model.pb": SMALL, "variables/variables.data": LARGE, "variables/variables.index": b"index"}
PHOTOS = {
    f"{label}/{number}.jpg": f"{label} {number}".encode() * 5000 for label in ("daisy", "rose") for number in range(4)
}


class Operation(ABC):
    """Something that is done with a bucket of its own.

    Args:
        s3: the bucket, without faults.
        folder: an empty one on this machine.
    """

    def __init__(self, s3: S3, folder: Path) -> None:
        self.s3 = s3
        self.folder = folder
        self.url = f"{s3.url}/below"
        self.prepare()

    def prepare(self) -> None:
        """Put there what is needed."""
        return

    @abstractmethod
    def run(self) -> None:
        """Do it, over the proxy, and check the result."""

    def check_after_failure(self) -> None:
        """Check that nothing is seen in halves."""
        return

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.s3.put(f"below/{name}", content)


class Read(Operation):
    """`examples.source=s3://…`"""

    def prepare(self) -> None:
        self.put(PHOTOS)

    def run(self) -> None:
        photos = open_source(self.url, num_synthetic_per_class=0, seed=0).photos
        assert {photo.name: photo.encoded for photo in photos} == PHOTOS


class List(Operation):
    """The names and sizes in a folder."""

    def prepare(self) -> None:
        self.put(PHOTOS)

    def run(self) -> None:
        files = Bucket(self.url).files()
        assert {name: info.size_bytes for name, info in files.items()} == {n: len(c) for n, c in PHOTOS.items()}
        assert Bucket(self.url).names() == ["daisy", "rose"]


class Download(Operation):
    """Files to a folder."""

    def prepare(self) -> None:
        self.put(FILES)

    def run(self) -> None:
        Bucket(self.url).download(FILES, self.folder / "here")
        assert self.found() == FILES

    def check_after_failure(self) -> None:
        assert self.found().items() <= FILES.items()
        assert not list(self.folder.glob(".incoming-*"))

    def found(self) -> dict[str, bytes]:
        below = self.folder / "here"
        return {p.relative_to(below).as_posix(): p.read_bytes() for p in below.rglob("*") if p.is_file()}


class Upload(Operation):
    """A folder, the marker last."""

    def prepare(self) -> None:
        for name, content in FILES.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(content)

    def run(self) -> None:
        Bucket(self.url).upload(self.folder, marker=MARKER)
        assert self.found() == FILES

    def check_after_failure(self) -> None:
        assert self.found().items() <= FILES.items()
        assert MARKER not in self.found() or self.found() == FILES

    def found(self) -> dict[str, bytes]:
        return {name: self.s3.get(f"below/{name}") for name in self.s3.keys_below("below/")}


class Claim(Operation):
    """A version's number: one is lost by no fault, and nobody else has it."""

    def run(self) -> None:
        models = open_models(self.url)
        assert [models.new_version("flowers", digest) for digest in ("a", "b", "a")] == [1, 2, 1]

    def check_after_failure(self) -> None:
        claims = [self.s3.get(f"below/.versions/{number}") for number in self.s3.keys_below("below/.versions/")]
        assert sorted(claims) in ([], [b"flowers a"], [b"flowers a", b"flowers b"])


class _Models(Operation):
    num_pushed = 0

    def prepare(self) -> None:
        self.candidates = Candidates(self.folder, self.url)
        self.candidates.add("a", "b", int8=True)
        for key in ("a", "b")[: self.num_pushed]:
            self.candidates.push(key)

    def check_after_failure(self) -> None:
        """Every version that is seen is complete, in the bucket and here."""
        for version in self.candidates.versions():
            self.candidates.assert_complete(version, "ab"[version - 1])
        self.run()  # the same command goes on from here


class Push(_Models):
    """A model and its LiteRT file."""

    def run(self) -> None:
        assert self.candidates.push("a")["version"] == 1
        self.candidates.assert_complete(1, "a")
        assert self.candidates.versions() == self.candidates.versions("tflite") == [1]


class Fetch(_Models):
    """The newest version to a folder that servers read."""

    num_pushed = 2

    def run(self) -> None:
        served = self.folder / "served"
        assert self.candidates.models.fetch("flowers", served) == 2
        content = (served / "flowers" / "2" / MARKER).read_text()
        assert (content, open_models(served).versions("tflite")) == ("graph of b", [2])

    def check_after_failure(self) -> None:
        for file in (self.folder / "served").glob("flowers/2/*"):
            assert file.is_dir() or file.read_text() == "graph of b"
        super().check_after_failure()


class Rollback(_Models):
    """The newest version is withdrawn."""

    num_pushed = 2

    def run(self) -> None:
        assert self.candidates.models.rollback("flowers") == (2, 1)
        assert self.candidates.versions() == self.candidates.versions("tflite") == [1]
        self.candidates.assert_complete(1, "a")

    def check_after_failure(self) -> None:
        """What is done is not done again: the version before would be withdrawn."""
        if self.candidates.store.files("flowers/2"):
            super().check_after_failure()
        else:
            assert self.candidates.versions() == [1]


OPERATIONS = (Read, List, Download, Upload, Claim, Push, Fetch, Rollback)
