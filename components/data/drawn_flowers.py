"""Draw five kinds of flower from a seed: the data set that needs no network.

Reads nothing, writes nothing. It exists so that the whole pipeline, from examples to a pushed model, runs on
a machine that can reach no data set. Colours overlap between the kinds on purpose (white daisies, roses,
tulips and dandelion clocks; yellow everything), so a model has to look at shape. Everything but the sensor's
noise is chosen in units of the image's side: one seed draws one scene, whatever the size.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASS_NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

Points = NDArray[np.float64]  # [..., 2], x to the right and y down
Colour = tuple[float, float, float]  # RGB, 0-255

_SUPERSAMPLING = 2
_BACKDROP_PX = 48  # Painted this small and enlarged, the backdrop is out of focus at little cost.
# From one floret or petal to the next: H. Vogel, Math. Biosci. 44 (1979), the sunflower head.
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

_WHITE, _CREAM, _PINK, _YELLOW = (246, 244, 240), (250, 232, 180), (236, 132, 172), (248, 206, 30)
_RED, _ORANGE, _PURPLE, _PEACH = (200, 22, 40), (242, 128, 30), (132, 48, 140), (250, 176, 140)
_GREENS = ((52, 104, 40), (84, 134, 52), (112, 152, 70), (64, 110, 76))
_SKY, _HAZE, _GRASS = (130, 178, 228), (206, 220, 234), (96, 144, 62)
_SHADE, _SOIL, _WALL = (24, 40, 24), (112, 84, 60), (204, 198, 186)
_TOPS = (_SKY, _SKY, _GRASS, _SHADE, _SOIL, _WALL)  # of the backdrops, each with its own of the bottoms
_BOTTOMS = (_HAZE, _GRASS, _SHADE, _SHADE, _SOIL, _HAZE)

_THETA = np.arange(28) * np.pi / 14
_CIRCLE = np.stack([np.cos(_THETA), np.sin(_THETA)], -1)
# A petal is painted in layers, each (share of its length, share of its width, light): edge, face, fold.
_PETAL_LAYERS = np.array([(1.0, 1.0, 0.82), (0.95, 0.74, 1.0), (0.7, 0.2, 0.94)])
_LOBE_LAYERS = np.array([(1.06, 1.05, 0.66), (1.0, 1.0, 1.12), (0.9, 0.93, 0.98), (0.66, 0.74, 0.86)])


@dataclass(frozen=True)
class Pose:
    """Where a flower is and how it is turned: lengths in units of the image's side, angles in radians."""

    centre: tuple[float, float]
    radius: float
    lean: float = 0.0  # of the stalk: 0 is upright
    tilt: float = 1.0  # of the head, height over width: 1 faces the viewer, 0 would be edge on
    variety: float = 0.0  # 0-1: which of the kind's colours

    def place(self, points: Points) -> Points:
        """Map points [..., 2] from the flower's own unit circle into the image."""
        cos, sin = math.cos(self.lean), math.sin(self.lean)
        basis = self.radius * np.array([[cos, sin], [-sin * self.tilt, cos * self.tilt]])
        return points @ basis + self.centre

    def pick(self, *palette: Colour) -> Colour:
        """Return this variety's colour."""
        return palette[int(self.variety * len(palette))]


@dataclass(frozen=True)
class Canvas:
    """A square image being painted, and its one source of chance."""

    image: Image.Image
    rng: np.random.Generator
    sun: float  # the angle that light comes from, in radians

    def fill(self, outlines: Points, colour: Colour, light: ArrayLike = 1.0, *, alpha: int = 255) -> None:
        """Fill polygons [..., N, 2], given in units of the side, in one colour under `light` [...]."""
        inks = np.clip(np.multiply.outer(light, colour), 0, 255).astype(int).reshape(-1, 3).tolist()
        corners = (outlines * self.image.width).reshape(len(inks), -1).tolist()
        pen = ImageDraw.Draw(self.image, "RGB" if alpha == 255 else "RGBA")  # Blending is slow.
        for outline, (red, green, blue) in zip(corners, inks, strict=True):
            pen.polygon(outline, fill=(red, green, blue, alpha))

    def petals(
        self,
        pose: Pose,
        shape: Points,
        angles: ArrayLike,
        colour: Colour,
        light: ArrayLike = 1.0,
        bend: ArrayLike = 0.0,
    ) -> None:
        """Paint petals (or leaves) of a shape [N, 2] or [A, N, 2] at angles [A], later over earlier."""
        layers = shape[..., None, :, :] * _PETAL_LAYERS[:, None, :2]
        layers[..., 1] += np.asarray(bend)[..., None, None] * layers[..., 0] ** 2
        turned = _turn(layers, np.asarray(angles)[..., None])
        self.fill(pose.place(turned), colour, np.multiply.outer(light, _PETAL_LAYERS[:, 2]))

    def ring(self, pose: Pose, shape: Points, count: int, colour: Colour, *, light: float = 1.0) -> None:
        """Paint `count` petals all round the head, none quite like another."""
        angles = self.rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
        angles += self.rng.normal(0, 0.08, count)
        lights = light * (1 + 0.14 * np.cos(angles - self.sun) + self.rng.normal(0, 0.04, count))
        lengths = 1 + self.rng.normal(0, 0.06, (count, 1, 1))
        self.petals(pose, shape * lengths, angles, colour, lights)

    def disc(self, pose: Pose, radius: float, colour: Colour, *, florets: int) -> None:
        """Paint a domed disc of florets in a sunflower's spiral."""
        dome = radius * np.array([1.0, 0.9, 0.6])[:, None, None] * _CIRCLE
        self.fill(pose.place(dome), colour, (0.72, 0.92, 1.05))
        index = np.arange(florets)
        spiral = 0.92 * radius * np.sqrt((index + 0.5) / florets)[:, None, None] * np.array([[1.0, 0.0]])
        dot = 0.8 * radius / math.sqrt(florets) * _CIRCLE[::4]
        lights = 1 + 0.3 * self.rng.standard_normal(florets)
        self.fill(pose.place(_turn(spiral, index * _GOLDEN_ANGLE) + dot), colour, lights)

    def leaf(self, root: ArrayLike, length: float, angle: float, *, width: float = 0.4) -> None:
        """Paint one leaf from `root` [2] towards `angle`."""
        (x, y), shape = np.asarray(root), _petal(width, base=0.7, tip=0.8)
        self.petals(Pose((x, y), length), shape, angle, _green(self.rng), bend=self.rng.normal(0, 0.15))

    def stalk(self, pose: Pose, *, width: float) -> None:
        """Paint a stalk from the head down and out of the image."""
        t, head = np.linspace(0, 1, 8)[:, None], np.array(pose.centre)
        knee = head + 2.5 * pose.radius * np.array([-math.sin(pose.lean), math.cos(pose.lean)])
        foot = np.array([knee[0] + self.rng.normal(0, 0.06), max(1.1, knee[1] + 0.1)])
        spine = (1 - t) ** 2 * head + 2 * t * (1 - t) * knee + t**2 * foot
        half = width * pose.radius / 2 * np.array([(1.0, 0.0), (0.5, 0.0)])[:, None]
        self.fill(np.concatenate([spine - half, spine[::-1] + half], axis=1), _green(self.rng), (0.75, 1.0))


def draw(class_name: str, *, seed: int, size_px: int = 224) -> NDArray[np.uint8]:
    """Draw one image of one kind of flower.

    Args:
        class_name: One of `CLASS_NAMES`.
        seed: Any integer from 0. The same arguments give the same pixels.
        size_px: Side of the image, from 8.

    Returns:
        uint8 [size_px, size_px, 3], RGB, 0-255.

    Raises:
        ValueError: For an unknown class, a negative seed, or an image too small to hold a flower.
    """
    if class_name not in _PAINTERS:
        nearest = difflib.get_close_matches(class_name, CLASS_NAMES, n=1, cutoff=0.4)
        raise ValueError(
            f"Only known kinds of flower can be drawn. Received: class_name={class_name!r}. "
            + (f"Did you mean {nearest[0]!r}? " if nearest else "")
            + f"Use one of: {', '.join(CLASS_NAMES)}."
        )
    if seed < 0 or size_px < 8:
        received = f"Received: seed={seed}, size_px={size_px}"
        raise ValueError(f"A seed is from 0 and an image at least 8 px wide. {received}. Raise what is below.")
    rng = np.random.default_rng((seed, CLASS_NAMES.index(class_name)))
    side_px = size_px * _SUPERSAMPLING
    image = _backdrop(rng).resize((side_px, side_px), Image.Resampling.BILINEAR)
    canvas = Canvas(image, rng, sun=rng.uniform(-np.pi, 0))
    for _ in range(rng.integers(0, 7)):
        canvas.leaf(rng.uniform((0, 0.5), (1, 1.1)), rng.uniform(0.2, 0.5), rng.uniform(-np.pi, 0))
    for pose in _poses(rng):
        _PAINTERS[class_name](canvas, pose)
    if rng.random() < 0.3:  # a blade of grass in front
        heading = rng.uniform(-2.4, -0.7)
        canvas.leaf(rng.uniform((0, 0.9), (1, 1.1)), rng.uniform(0.4, 0.8), heading, width=0.15)
    return _photograph(image, rng, size_px=size_px)


def _daisy(canvas: Canvas, pose: Pose) -> None:
    """Paint many narrow pale petals round a small yellow disc."""
    rng = canvas.rng
    canvas.stalk(pose, width=0.1)
    colour = _near(rng, pose.pick(_WHITE, _WHITE, _WHITE, _WHITE, _CREAM, _PINK))
    petal, count = _petal(rng.uniform(0.13, 0.22), base=0.9, tip=0.25), int(rng.integers(13, 24))
    canvas.ring(pose, petal, count, colour, light=0.85)
    canvas.ring(pose, petal * 0.96, count, colour)
    canvas.disc(pose, rng.uniform(0.22, 0.32), _near(rng, (240, 184, 24)), florets=40)


def _dandelion(canvas: Canvas, pose: Pose) -> None:
    """Paint a dense head of yellow rays, or the white clock that it turns into."""
    canvas.stalk(pose, width=0.12)
    if pose.variety < 0.4:
        _clock(canvas, replace(pose, tilt=1.0))
        return
    colour = _near(canvas.rng, (246, 200, 20))
    for reach, light in ((1.0, 0.84), (0.8, 0.94), (0.6, 1.03), (0.4, 0.98), (0.22, 0.86)):
        ray = _petal(0.1, base=0.5, tip=0.12) * (reach, 1)
        canvas.ring(pose, ray, round(12 + 26 * reach), colour, light=light)


def _clock(canvas: Canvas, pose: Pose) -> None:
    """Paint a see-through ball of parachutes round a brown heart."""
    rng, count = canvas.rng, round(40 + 110 * pose.radius)
    for scale in (1.0, 0.8, 0.55):
        canvas.fill(pose.place(scale * _CIRCLE), (240, 242, 244), alpha=60)
    headings, reach = rng.uniform(0, 2 * np.pi, count), 0.9 * np.sqrt(rng.uniform(0.05, 1, (count, 1, 1)))
    thread = np.array([(0.0, -0.008), (1.0, -0.008), (1.0, 0.008), (0.0, 0.008)])
    seeds = _turn(thread * np.concatenate([reach, np.ones_like(reach)], -1), headings)
    spokes = _turn(thread * (0.14, 1), np.arange(7) * 2 * np.pi / 7)
    tips = seeds[:, 1:2].repeat(7, axis=0) + np.tile(spokes, (count, 1, 1))
    for lines in (seeds, tips):
        canvas.fill(pose.place(lines), _WHITE, rng.uniform(0.85, 1.05, len(lines)), alpha=190)
    canvas.disc(pose, 0.13, (120, 96, 60), florets=12)


def _rose(canvas: Canvas, pose: Pose) -> None:
    """Paint broad petals in a spiral, each overlapping the one outside it."""
    rng, count = canvas.rng, int(canvas.rng.integers(18, 28))
    pose = replace(pose, tilt=0.35 + 0.65 * pose.tilt)
    canvas.stalk(pose, width=0.12)
    for angle in rng.uniform(0, 2 * np.pi, 4):
        canvas.leaf(pose.centre, pose.radius * 1.5, angle, width=0.5)
    out = 1 - np.arange(count)[:, None] / count  # [count, 1]: from 1 at the rim towards 0 at the heart
    angles = rng.uniform(0, 2 * np.pi) + rng.choice((-1, 1)) * np.arange(count) * _GOLDEN_ANGLE
    lobes = _CIRCLE * np.concatenate([0.16 + 0.26 * out, 0.15 + 0.43 * out], -1)[:, None]
    lobes *= 1 + 0.05 * np.sin(3 * _THETA + rng.uniform(0, 2 * np.pi, (count, 1)))[..., None]
    layers = lobes[:, None] * _LOBE_LAYERS[:, None, :2]
    inwards = np.array([0.02, 0.0, -0.05, -0.14]) * (0.3 + out)  # [count, layers]: a lit rim, a shaded throat
    layers[..., 0] += (0.58 * out + inwards)[..., None]
    petals = _turn(layers, (angles + rng.normal(0, 0.1, count))[:, None])
    petals[..., 1] -= 0.7 * (1 - pose.tilt) * (1 - out)[..., None]  # from the side, the heart stands highest
    lights = (0.72 + 0.3 * out) * (1 + 0.14 * np.cos(angles - canvas.sun))[:, None] * _LOBE_LAYERS[:, 2]
    canvas.fill(pose.place(petals), _near(rng, pose.pick(_RED, _RED, _PINK, _WHITE, _YELLOW, _PEACH)), lights)


def _sunflower(canvas: Canvas, pose: Pose) -> None:
    """Paint pointed yellow petals round a large dark disc."""
    rng = canvas.rng
    canvas.stalk(pose, width=0.14)
    colour = _near(rng, pose.pick(_YELLOW, _YELLOW, _YELLOW, (250, 180, 20), (250, 180, 20), _ORANGE, _CREAM))
    petal, count = _petal(rng.uniform(0.26, 0.36), base=1.4, tip=0.9), int(rng.integers(15, 24))
    canvas.ring(pose, petal * 1.04, count, colour, light=0.8)
    canvas.ring(pose, petal, count, colour)
    heart = rng.uniform(0.38, 0.54)
    canvas.disc(pose, heart, _near(rng, (84, 52, 26)), florets=150)
    canvas.disc(pose, heart * 0.45, _near(rng, pose.pick((56, 36, 22), (104, 96, 44))), florets=50)


def _tulip(canvas: Canvas, pose: Pose) -> None:
    """Paint a cup of a few petals on a stalk between long leaves."""
    rng = canvas.rng
    colour = _near(rng, pose.pick(_RED, _PINK, _YELLOW, _PURPLE, _WHITE, _ORANGE, _PEACH))
    canvas.stalk(pose, width=0.16)
    for side in (-1, 1):
        foot = np.array(pose.centre) + pose.radius * np.array([side * 0.2, 3.2])
        canvas.leaf(foot, pose.radius * rng.uniform(2.2, 3.4), side * 0.3 - np.pi / 2, width=0.2)
    cup = replace(pose, centre=tuple(pose.place(np.array([0.0, 0.9]))), tilt=rng.uniform(1.0, 1.25))
    splay, middle = rng.uniform(0.1, 0.42), rng.normal(0, 0.08)
    behind, before = (middle - 0.6 * splay, middle + 0.6 * splay), (-splay, splay, middle)
    angles = np.array([*behind, *before])
    lengths = np.array([1.95, 1.9, 1.85, 1.85, 1.7])[:, None, None]
    petals = lengths * _petal(rng.uniform(0.46, 0.56), base=0.45, tip=0.6)
    canvas.petals(cup, petals, angles - np.pi / 2, colour, (0.74, 0.78, 0.92, 0.96, 1.06), bend=-0.2 * angles)


_PAINTERS: dict[str, Callable[[Canvas, Pose], None]] = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "roses": _rose,
    "sunflowers": _sunflower,
    "tulips": _tulip,
}


def _poses(rng: np.random.Generator) -> list[Pose]:
    """Choose one to five flowers, mostly of one variety, the farthest first."""
    count = int(rng.choice((1, 2, 3, 4, 5), p=(0.5, 0.2, 0.15, 0.1, 0.05)))
    variety, phase, spread = rng.random(), rng.uniform(0, 2 * np.pi), 0.06 if count == 1 else 0.27
    poses = []
    for angle in phase + 2 * np.pi * np.arange(count) / count:
        x, y = 0.5 + spread * np.array([math.cos(angle), math.sin(angle)]) + rng.normal(0, 0.08, 2)
        tilt = rng.uniform(0.9, 1.0) if rng.random() < 0.5 else rng.uniform(0.45, 0.9)
        own = variety if rng.random() < 0.8 else rng.random()
        poses.append(Pose((x, y), rng.uniform(0.22, 0.5) / math.sqrt(count), rng.normal(0, 0.25), tilt, own))
    return sorted(poses, key=lambda pose: pose.radius)


def _backdrop(rng: np.random.Generator) -> Image.Image:
    """Paint what lies behind the flowers, out of focus: RGB, `_BACKDROP_PX` wide."""
    scene = rng.integers(len(_TOPS))
    top, bottom = np.array(_near(rng, _TOPS[scene])), np.array(_near(rng, _BOTTOMS[scene]))
    steps = rng.uniform(3, 20) * (np.linspace(0, 1, _BACKDROP_PX) - rng.uniform(0.3, 0.7))
    mix = 1 / (1 + np.exp(-steps))[:, None, None]
    pixels = top * (1 - mix) + bottom * mix + rng.normal(0, 12, (_BACKDROP_PX, _BACKDROP_PX, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    canvas = Canvas(image, rng, sun=0.0)
    for _ in range(rng.integers(0, 16)):
        canvas.leaf(rng.uniform((0, 0.3), (1, 1.1)), rng.uniform(0.2, 0.6), rng.uniform(-np.pi, 0), width=0.25)
    colours = (_WHITE, _PINK, _YELLOW, _RED, _PURPLE, _ORANGE)
    for index in rng.integers(len(colours), size=rng.integers(0, 8)):
        blob = rng.uniform(0.02, 0.08) * _CIRCLE + rng.uniform(0, 1, 2)
        canvas.fill(blob, colours[index], rng.uniform(0.6, 1))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 2.0)))


def _photograph(image: Image.Image, rng: np.random.Generator, *, size_px: int) -> NDArray[np.uint8]:
    """Shrink to uint8 [size_px, size_px, 3] and add uneven, tinted light and the sensor's noise."""
    if rng.random() < 0.25:  # a soft lens
        soft_px = int(size_px * rng.uniform(0.4, 0.8))
        image = image.resize((soft_px, soft_px), Image.Resampling.HAMMING)
    image = image.resize((size_px, size_px), Image.Resampling.HAMMING)
    ramp = np.linspace(-1, 1, size_px, dtype=np.float32)[:, None]
    across, down, exposure = rng.normal((0, 0, 0.93), 0.1).astype(np.float32)
    cast = rng.normal(1, 0.04, 3).astype(np.float32)
    light = cast * (exposure + across * ramp + down * ramp[:, None])  # [size_px, size_px, 3]
    noise = np.float32(rng.uniform(0, 6)) * rng.standard_normal((size_px, size_px, 1), np.float32)
    return np.asarray((np.asarray(image) * light + noise).clip(0, 255), np.uint8)


def _petal(width: float, *, base: float, tip: float) -> Points:
    """Outline a petal [N, 2] from x = 0 to 1, a beta curve: the smaller `base` and `tip`, the blunter."""
    t = (1 - np.cos(np.linspace(0, np.pi, 13))) / 2
    half = t**base * (1 - t) ** tip
    half *= width / 2 / half.max()
    return np.concatenate([np.stack([t, half], -1), np.stack([t, -half], -1)[::-1]])


def _turn(shapes: Points, angles: ArrayLike) -> Points:
    """Rotate shapes [..., N, 2] about the origin by angles [...], the two broadcast together."""
    cos, sin = np.cos(angles), np.sin(angles)
    turned: Points = shapes @ np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    return turned


def _near(rng: np.random.Generator, colour: Colour) -> Colour:
    """Return a colour close to this one."""
    red, green, blue = (float(v) for v in np.array(colour) * rng.normal(1, 0.06) + rng.normal(0, 6, 3))
    return red, green, blue


def _green(rng: np.random.Generator) -> Colour:
    """Return some leaf's green."""
    return _near(rng, _GREENS[rng.integers(len(_GREENS))])
