"""Decode and resize an encoded image to the pixels that the model sees, in TensorFlow: the one definition.

The training pipeline and the served graph both call it. A JPEG, a PNG and a WebP are turned upright by their EXIF
orientation, transparency is laid over white (in a GIF over black), 16-bit samples keep their high byte, of an animation
the first frame counts, and the whole image is resized (bilinear, antialiased, aspect ratio not kept) to a square.

A WebP goes through the operator `DecodeImage`, which every TensorFlow Serving has: one that reads no WebP loads the
model all the same, and refuses that image alone.
"""

import tensorflow as tf

from export import structure

MAX_PIXELS = 25_000_000
"""Larger images are refused before they are decoded: a 17 KB PNG can claim 12000 × 12000 pixels."""

MAX_WEBP_PIXELS = 16_000_000
"""Of a WebP, as in the client: its decoder takes more memory for each."""

_BAND_PIXELS = 1 << 20
_MIRRORED, _FLIPPED, _FIRST_TRANSPOSED = [2, 3, 6, 7], [3, 4, 7, 8], 5


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image and turn it upright.

    Args:
        encoded: `string []`, the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
        `uint8 [height, width, 3]`, RGB, 0–255.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such image, are cut short, claim more than `MAX_PIXELS`, or
            have more blocks or scans than `structure` allows.
    """
    head = tf.strings.join([tf.strings.substr(encoded, 0, 32), b"\0" * 32])
    is_jpeg, is_png, is_gif, is_bmp = (
        tf.strings.substr(head, 0, len(magic)) == magic for magic in (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
    )
    is_webp = (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")
    # The message must be text, and a file begins with any bytes.
    begin = tf.strings.unicode_transcode(
        tf.strings.substr(encoded, 0, 16), "UTF-8", "UTF-8", replacement_char=ord("?"), replace_control_characters=True
    )
    known = tf.debugging.Assert(
        is_jpeg | is_png | is_gif | is_bmp | is_webp,
        ["An image must be a JPEG, PNG, GIF, BMP or WebP file. It begins with:", begin],
    )
    # The branches of tf.case wait for what they read and for nothing else: so the bytes themselves wait for the checks.
    with tf.control_dependencies([known]):
        encoded, head = tf.identity(encoded), tf.identity(head)
    encoded, gif_size = tf.cond(is_gif, lambda: structure.cut_gif(encoded), lambda: (encoded, tf.constant([0, 0])))
    size = tf.case(
        [
            (is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2]),
            (is_png, lambda: _integers(head, 16, tf.int32, little_endian=False)),
            (is_gif, lambda: gif_size),
            (is_webp, lambda: _webp_size(head)),
        ],
        # A BMP whose rows run from the top has a negative height.
        default=lambda: tf.abs(_integers(head, 18, tf.int32, little_endian=True)),
    )
    num_pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    small = tf.debugging.assert_less_equal(
        num_pixels,
        tf.where(is_webp, tf.constant(MAX_WEBP_PIXELS, tf.int64), tf.constant(MAX_PIXELS, tf.int64)),
        message=f"An image may have at most {MAX_PIXELS:,} pixels, a WebP {MAX_WEBP_PIXELS:,}: send a smaller copy.",
    )
    with tf.control_dependencies([small]):
        encoded = tf.identity(encoded)
    image = tf.case(
        [
            (is_jpeg, lambda: _decode_jpeg(encoded, num_pixels)),
            (is_png, lambda: _decode_png(encoded)),
            (is_webp, lambda: _decode_webp(encoded)),
            (is_bmp & (_bytes(head, 28, 1)[0] == 8), lambda: _decode_palette_bmp(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, size_px: int) -> tf.Tensor:
    """Resize `uint8 [height, width, 3]` to `uint8 [size_px, size_px, 3]`: bilinear, antialiased, rounded.

    >>> image = tf.constant([[[0, 0, 0], [200, 100, 50]]], tf.uint8)
    >>> resize(image, 1).numpy().tolist()
    [[[100, 50, 25]]]
    """
    resized = tf.image.resize(image, [size_px, size_px], method="bilinear", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)


def load(encoded: tf.Tensor, size_px: int) -> tf.Tensor:
    """Decode and resize one image: `string []` to `uint8 [size_px, size_px, 3]`, RGB, 0–255."""
    return resize(decode(encoded), size_px)


def _decode_jpeg(encoded: tf.Tensor, num_pixels: tf.Tensor) -> tf.Tensor:
    orientation = structure.check_jpeg(encoded, num_pixels)
    with tf.control_dependencies([orientation]):
        encoded = tf.identity(encoded)
    # The accurate DCT is the one that Pillow uses: with it both decoders give the same pixels.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return _upright(image, orientation)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    orientation, is_transparent = structure.check_png(encoded)
    with tf.control_dependencies([orientation]):
        encoded = tf.identity(encoded)
    rgb = tf.cond(
        is_transparent,
        lambda: _lay_over_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    return _upright(rgb, orientation)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    orientation, is_animation, has_alpha = structure.check_webp(encoded)
    # TensorFlow 2.21 writes the alpha of an animation that says it has none beyond the image's memory. So the number of
    # channels is always given, which it then checks, and an animation always says that it has one.
    flagged = tf.strings.join([tf.strings.substr(encoded, 0, 20), b"\x12", tf.strings.substr(encoded, 21, -1)])
    with tf.control_dependencies([orientation]):
        encoded = tf.where(is_animation, flagged, encoded)

    def decode(channels: int) -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        return tf.ensure_shape(image, [None, None, channels])

    rgb = tf.case(
        [
            (has_alpha, lambda: _lay_over_white(decode(4))),
            (is_animation, lambda: decode(4)[..., :3]),
        ],
        default=lambda: decode(3),
    )
    return _upright(rgb, orientation)


def _webp_size(head: tf.Tensor) -> tf.Tensor:
    """Return a WebP's height and width, from the head of its first chunk: `int32 [2]` (RFC 9649, 2.5 to 2.7)."""
    kind = tf.strings.substr(head, 12, 4)
    extended, lossless, lossy = (_bytes(head, position, count) for position, count in ((24, 6), (21, 4), (26, 4)))
    return tf.case(
        [
            (kind == b"VP8X", lambda: 1 + tf.linalg.matvec(tf.reshape(extended, [2, 3]), [1, 1 << 8, 1 << 16])),
            (
                kind == b"VP8L",
                lambda: tf.stack(
                    [
                        1 + lossless[0] + lossless[1] % 64 * 256,
                        1 + lossless[1] // 64 + lossless[2] * 4 + lossless[3] % 16 * 1024,
                    ]
                ),
            ),
        ],
        default=lambda: lossy[::2] + lossy[1::2] % 64 * 256,
    )


def _lay_over_white(rgba: tf.Tensor) -> tf.Tensor:
    """Lay `uint8 [height, width, 4]` over white: `uint8 [height, width, 3]`, by bands, since floats take more."""
    height, width = tf.unstack(tf.shape(rgba)[:2])
    num_rows = tf.maximum(_BAND_PIXELS // tf.maximum(width, 1), 1)
    num_bands = -(-height // num_rows)

    def lay_band(index: tf.Tensor, bands: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        band = tf.cast(rgba[index * num_rows : (index + 1) * num_rows], tf.float32)
        alpha = band[..., 3:] / 255.0
        rgb = tf.cast(tf.round(band[..., :3] * alpha + 255.0 * (1.0 - alpha)), tf.uint8)
        return index + 1, bands.write(index, rgb)

    bands = tf.TensorArray(tf.uint8, num_bands, infer_shape=False, element_shape=[None, None, 3])
    _, bands = tf.while_loop(
        lambda index, _: index < num_bands, lay_band, (tf.constant(0), bands), parallel_iterations=1
    )
    return bands.concat()


def _decode_palette_bmp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow takes the indices of a palette for grey values. The palette, BGR0, follows the second header.
    indices = tf.io.decode_bmp(encoded)[..., 0]
    palette = tf.reshape(_bytes(encoded, 14 + _bytes(encoded, 14, 1)[0], 4 * 256), [256, 4])[:, 2::-1]
    return tf.gather(tf.cast(palette, tf.uint8), tf.cast(indices, tf.int32))


def _bytes(encoded: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Return `count` bytes from `position` as `int32 [count]`, zeros past the end."""
    raw = tf.strings.substr(encoded, tf.clip_by_value(position, 0, tf.strings.length(encoded)), count)
    present = tf.cast(tf.io.decode_raw(raw, tf.uint8), tf.int32)
    return tf.pad(present, [[0, count - tf.size(present)]])


def _integers(head: tf.Tensor, position: int, dtype: tf.DType, *, little_endian: bool) -> tf.Tensor:
    """Read two neighbouring integers of a file's head, such as its width and height: `int32 [2]`."""
    raw = tf.strings.substr(head, position, 2 * dtype.size)
    return tf.cast(tf.io.decode_raw(raw, dtype, little_endian=little_endian), tf.int32)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo an EXIF orientation: transpose for 5–8, then mirror left-right, then flip upside down."""

    def any_of(orientations: list[int]) -> tf.Tensor:
        return tf.reduce_any(orientation == orientations)

    image = tf.cond(orientation >= _FIRST_TRANSPOSED, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(any_of(_MIRRORED), lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(any_of(_FLIPPED), lambda: tf.reverse(image, [0]), lambda: image)
