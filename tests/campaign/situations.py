"""Small random situations: a folder of photos, options, and one fault. `draw` makes one from a seed and a number.

A new kind of photo is a function in `ODDITIES`, a new layout one in `LAYOUTS`, a new kind of fault one in
`faults.FAULTS`: whatever is there is drawn.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

CLASS_NAMES = ("rose", "tulip", "daisy", "été", "薔薇", "two words", "UPPER", "c.d", "no")
ODD_CLASS_NAMES = (" leading", "new\nline", "trailing ", "all", "%s", "{x}")
FORMATS = ("png", "jpeg", "bmp", "gif", "webp", "tiff")
COLOURS = ((210, 40, 40), (40, 190, 60), (40, 60, 210), (220, 210, 40))


@dataclass(frozen=True)
class Situation:
    """What is drawn.

    Attributes:
        seed: of everything that is random in it.
        layout: name in `LAYOUTS`.
        class_names: of its folders.
        num_photos: of each class.
        formats: of its photos, one after the other.
        sizes_px: width and height, one after the other.
        oddities: names in `ODDITIES`; each adds or changes a photo.
        fault: name in `faults.FAULTS`.
        options: assignments for `--set`, beside the tiny ones.
    """

    seed: str
    layout: str
    class_names: tuple[str, ...]
    num_photos: tuple[int, ...]
    formats: tuple[str, ...]
    sizes_px: tuple[tuple[int, int], ...]
    oddities: tuple[str, ...]
    fault: str
    options: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether nothing about its photos is a reason for an error."""
        return self.fault != "none"


def draw(seed: int, number: int, faults: tuple[str, ...]) -> Situation:
    """Draw the situation of a number. One with a fault has plain photos, so that it must come to a good end."""
    random = Random(f"{seed}/{number}")
    fault = random.choice(("none", *faults, "none"))
    num_classes = random.choice((2, 2, 3, 4))
    plain = Situation(
        seed=f"{seed}/{number}",
        layout="classes",
        class_names=tuple(random.sample(CLASS_NAMES, num_classes)),
        num_photos=tuple(random.randint(12, 16) for _ in range(num_classes)),
        formats=tuple(random.sample(FORMATS, random.choice((1, 1, 2)))),
        sizes_px=tuple((random.randint(24, 90), random.randint(24, 90)) for _ in range(2)),
        oddities=(),
        fault=fault,
        options=random.choice(((), (), ("evaluator.min_accuracy=0.9",))),
    )
    if plain.is_plain:
        return plain
    num_photos = tuple(random.choice((3, 6, 12, 12, 16, 40)) for _ in range(num_classes))
    names = random.sample((*CLASS_NAMES, *random.sample(ODD_CLASS_NAMES, 1)), num_classes)
    return replace(
        plain,
        layout=random.choice(tuple(LAYOUTS)),
        class_names=tuple(names),
        num_photos=num_photos,
        oddities=tuple(random.sample(tuple(ODDITIES), random.randint(0, 3))),
    )


def build(situation: Situation, folder: Path) -> None:
    """Write the photos of a situation to a folder."""
    random = Random(situation.seed)
    for label, (name, number) in enumerate(zip(situation.class_names, situation.num_photos, strict=True)):
        for position in range(number):
            place = LAYOUTS[situation.layout](name, position, number)
            kind = situation.formats[position % len(situation.formats)]
            width, height = situation.sizes_px[position % len(situation.sizes_px)]
            path = folder / place / f"{position:03d}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(draw_photo(random, label, width, height), kind))
    for oddity in situation.oddities:
        ODDITIES[oddity](random, random.choice(photos(folder)), folder)


def photos(folder: Path) -> list[Path]:
    """Return the files of a folder that are not hidden, in order, and its links to nothing."""
    found = (path for path in folder.rglob("*") if path.is_file() or (path.is_symlink() and not path.is_dir()))
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def draw_photo(random: Random, label: int, width: int, height: int) -> Image.Image:
    """Draw a photo that tells its class by its colour, and no two alike."""
    noise = np.random.default_rng(random.getrandbits(32)).integers(-70, 70, (6, 6, 1))
    pixels = np.clip(noise + np.array(COLOURS[label % len(COLOURS)]), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _shares(*names: str) -> Callable[[str, int, int], str]:
    """Return the layout of three splits: a fifth in the second and in the third folder."""

    def place(class_name: str, position: int, _number: int) -> str:
        return f"{names[{3: 1, 4: 2}.get(position % 5, 0) % len(names)]}/{class_name}"

    return place


LAYOUTS: dict[str, Callable[[str, int, int], str]] = {
    "classes": lambda name, _position, _number: name,
    "classes below": lambda name, position, _number: f"{name}/{position % 3}",
    "train, validation and test": _shares("train", "validation", "test"),
    "train and val": _shares("train", "val"),
    "train and test": _shares("train", "test"),
    "Train and Test": _shares("Train", "Test"),
    "training and testing": _shares("training", "testing"),
    "val and test": _shares("val", "test"),
    "splits below classes": lambda name, position, _number: f"{name}/{'test' if position % 4 == 0 else 'train'}",
    "train beside a class": lambda name, position, _number: name if name < "c" else f"train/{name}",
    "train as a class": lambda name, position, _number: "train" if position % 3 == 0 else name,
    "no class": lambda _name, _position, _number: ".",
}


Oddity = Callable[[Random, Path, Path], object]
"""Changes or adds to the folder of the situation, or to the photo that is passed."""

ODDITIES: dict[str, Oddity] = {
    "empty file": lambda _random, photo, _folder: photo.with_name("empty.jpg").touch(),
    "text as a photo": lambda _random, photo, _folder: photo.with_name("text.jpg").write_text("not a photo"),
    "truncated": lambda _random, photo, _folder: photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2]),
    "same bytes": lambda _random, photo, _folder: _copy(photo, photo.with_name(f"copy{photo.suffix}")),
    "same bytes in another class": lambda random, photo, folder: _copy(
        photo, random.choice(photos(folder)).with_name(f"other{photo.suffix}")
    ),
    "recompressed": lambda _random, photo, _folder: _recompress(photo, photo.with_name("small.jpg")),
    "recompressed in another folder": lambda random, photo, folder: _recompress(
        photo, random.choice(photos(folder)).with_name("small.jpg")
    ),
    "grey": lambda random, photo, _folder: draw_photo(random, 0, 40, 40).convert("L").save(photo.with_name("g.png")),
    "transparent": lambda random, photo, _folder: (
        draw_photo(random, 1, 40, 40).convert("RGBA").save(photo.with_name("transparent.png"))
    ),
    "CMYK": lambda random, photo, _folder: draw_photo(random, 2, 40, 40).convert("CMYK").save(photo.with_name("k.jpg")),
    "16 bits": lambda random, photo, _folder: _save_16_bits(random, photo.with_name("deep.tiff")),
    "floating point": lambda random, photo, _folder: (
        draw_photo(random, 1, 40, 40).convert("F").save(photo.with_name("float.tiff"))
    ),
    "one pixel": lambda _random, photo, _folder: Image.new("RGB", (1, 1), "red").save(photo.with_name("one.png")),
    "many pixels": lambda _random, photo, _folder: Image.new("RGB", (5200, 5000), "red").save(
        photo.with_name("large.png"), compress_level=1
    ),
    "solid colours": lambda _random, _photo, folder: _save_solid(folder),
    "not UTF-8": lambda _random, photo, _folder: _copy(photo, photo.with_name(os.fsdecode(b"caf\xe9.png"))),
    "newline in a name": lambda random, photo, _folder: draw_photo(random, 0, 40, 40).save(
        photo.with_name("new\nline.png")
    ),
    "broken link": lambda _random, photo, _folder: photo.with_name("link.jpg").symlink_to("nowhere.jpg"),
    "linked photo": lambda random, photo, folder: photo.with_name(f"link{photo.suffix}").symlink_to(
        random.choice(photos(folder)).absolute()
    ),
    "linked folder": lambda random, photo, folder: _link_folder(random, photo, folder),
    "hidden": lambda _random, photo, _folder: photo.with_name("._photo.jpg").write_bytes(b"\0"),
    "empty class": lambda _random, _photo, folder: (folder / "nothing").mkdir(exist_ok=True),
    "file beside the classes": lambda random, _photo, folder: draw_photo(random, 1, 40, 40).save(folder / "stray.png"),
    "subfolder": lambda random, photo, _folder: _save_below(random, photo.parent / "more"),
}


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _recompress(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        target.write_bytes(encode(image.convert("RGB"), "jpeg"))


def _save_16_bits(random: Random, path: Path) -> None:
    grey = np.asarray(draw_photo(random, 0, 40, 40).convert("L")).astype(np.uint16) * 200
    Image.fromarray(grey).save(path)


def _save_solid(folder: Path) -> None:
    """Give each folder plain photos in four shades of its colour."""
    for number, parent in enumerate(sorted({path.parent for path in photos(folder)})):
        for share in (0.4, 0.6, 0.8, 1.0):
            colour = tuple(int(share * value) for value in COLOURS[number % len(COLOURS)])
            Image.new("RGB", (40, 40), colour).save(parent / f"plain-{share}.png")


def _save_below(random: Random, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    draw_photo(random, 0, 40, 40).save(folder / "deep.png")


def _link_folder(random: Random, photo: Path, folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    _save_below(random, elsewhere)
    (photo.parent / "linked").symlink_to(elsewhere.absolute())
