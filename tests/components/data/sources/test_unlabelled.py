from pathlib import Path

import pytest

from components.data.sources.unlabelled import describe_unlabelled, open_unlabelled
from components.errors import DataError
from tests.components.data.sources.test_folder import fill


def test_photos_without_labels_lie_in_any_depth(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "a/2.jpg", "a/b/c/3.jpg", ".hidden/4.jpg")
    photos = open_unlabelled(str(tmp_path))
    assert [(p.name, p.label, p.encoded) for p in photos] == [
        (f"{tmp_path}/{name}", -1, name.encode()) for name in ("1.jpg", "a/2.jpg", "a/b/c/3.jpg")
    ]
    assert photos.read(f"{tmp_path}/a/2.jpg") == b"a/2.jpg"
    before = describe_unlabelled(str(tmp_path))
    assert before["num_files"] == 3
    fill(tmp_path, "a/5.jpg")
    assert describe_unlabelled(str(tmp_path)) != before


def test_photos_at_a_url_are_those_of_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "a/2.jpg")
    url = tmp_path.as_uri()
    photos = open_unlabelled(url)
    assert [(p.name, p.encoded) for p in photos] == [(f"{url}/1.jpg", b"1.jpg"), (f"{url}/a/2.jpg", b"a/2.jpg")]
    assert describe_unlabelled(url)["num_files"] == 2


@pytest.mark.parametrize("path", ["{}/../secret", "/etc/passwd", "{}/.hidden", "1.jpg"])
def test_nothing_else_is_read(tmp_path: Path, path: str) -> None:
    photos = open_unlabelled(str(fill(tmp_path / "photos", "1.jpg", ".hidden")))
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(DataError, match="not one of the photos"):
        photos.read(path.format(tmp_path / "photos"))


def test_photos_without_labels_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="must hold some"):
        open_unlabelled(str(tmp_path))
    with pytest.raises(DataError, match="lie in a folder"):
        describe_unlabelled(str(tmp_path / "gone"))
