"""Decode and resize an encoded image to the pixels that the model sees, in TensorFlow: the one definition.

The training pipeline and the served graph both call it. A JPEG and a PNG are turned upright by their EXIF orientation,
transparency is laid over white (in a GIF over black), 16-bit samples keep their high byte, of an animation the first
frame counts, and the whole image is resized (bilinear, antialiased, aspect ratio not kept) to a square.
"""

import tensorflow as tf

MAX_PIXELS = 25_000_000
"""Larger images are refused before they are decoded: a 17 KB PNG can claim 12000 × 12000 pixels."""

_EXIF_ORIENTATION = 0x0112  # Exif 2.3, 4.6.4 A
_MIRRORED, _FLIPPED, _FIRST_TRANSPOSED = [2, 3, 6, 7], [3, 4, 7, 8], 5


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image and turn it upright.

    Args:
        encoded: `string []`, the bytes of a JPEG, PNG, GIF or BMP file.

    Returns:
        `uint8 [height, width, 3]`, RGB, 0–255.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such image, are cut short, or claim more than `MAX_PIXELS`.
    """
    head = tf.strings.join([tf.strings.substr(encoded, 0, 32), b"\0" * 32])
    is_jpeg, is_png, is_gif, is_bmp = (
        tf.strings.substr(head, 0, len(magic)) == magic for magic in (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
    )
    # The message must be text, and a file begins with any bytes.
    begin = tf.strings.unicode_transcode(
        tf.strings.substr(encoded, 0, 16), "UTF-8", "UTF-8", replacement_char=ord("?"), replace_control_characters=True
    )
    known = tf.debugging.Assert(
        is_jpeg | is_png | is_gif | is_bmp, ["An image must be a JPEG, PNG, GIF or BMP file. It begins with:", begin]
    )
    # The branches of tf.case wait for what they read and for nothing else: so the bytes themselves wait for the checks.
    with tf.control_dependencies([known]):
        encoded, head = tf.identity(encoded), tf.identity(head)
    size = tf.case(
        [
            (is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2]),
            (is_png, lambda: _integers(head, 16, tf.int32, little_endian=False)),
            (is_gif, lambda: _gif_size(encoded, screen=_integers(head, 6, tf.uint16, little_endian=True))),
        ],
        # A BMP whose rows run from the top has a negative height.
        default=lambda: tf.abs(_integers(head, 18, tf.int32, little_endian=True)),
    )
    small = tf.debugging.assert_less_equal(
        tf.reduce_prod(tf.cast(size, tf.int64)),
        tf.constant(MAX_PIXELS, tf.int64),
        message=f"An image may have at most {MAX_PIXELS:,} pixels: send a smaller copy.",
    )
    with tf.control_dependencies([small]):
        encoded = tf.identity(encoded)
    image = tf.case(
        [
            (is_jpeg, lambda: _decode_jpeg(encoded)),
            (is_png, lambda: _decode_png(encoded)),
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


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    # The accurate DCT is the one that Pillow uses: with it both decoders give the same pixels.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return _upright(image, _jpeg_orientation(encoded))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    rgba = tf.cast(tf.io.decode_png(encoded, channels=4), tf.float32)
    depth, kind = tf.unstack(_bytes(encoded, 24, 2), num=2)
    # TensorFlow decodes grey of fewer than 8 bits with a wrong alpha.
    alpha = tf.where((kind == 0) & (depth < 8), 1.0, rgba[..., 3:] / 255.0)
    rgb = tf.cast(tf.round(rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)), tf.uint8)
    return _upright(rgb, _png_orientation(encoded))


def _decode_palette_bmp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow takes the indices of a palette for grey values. The palette, BGR0, follows the second header.
    indices = tf.io.decode_bmp(encoded)[..., 0]
    palette = tf.reshape(_bytes(encoded, 14 + _bytes(encoded, 14, 1)[0], 4 * 256), [256, 4])[:, 2::-1]
    return tf.cast(tf.gather(palette, tf.cast(indices, tf.int32)), tf.uint8)


def _gif_size(encoded: tf.Tensor, *, screen: tf.Tensor) -> tf.Tensor:
    """Return the width and height that hold the screen and every frame, `int32 [2]`: each frame has a size of its own.

    Walks the blocks (GIF89a, 15–26); `in_data` is true within a run of sub-blocks.
    """

    def table(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)

    def is_inside(position: tf.Tensor, _size: tf.Tensor, in_data: tf.Tensor) -> tf.Tensor:
        introducer = _bytes(encoded, position, 1)[0]
        return (position < tf.strings.length(encoded)) & (in_data | (introducer == 0x2C) | (introducer == 0x21))

    def next_block(position: tf.Tensor, size: tf.Tensor, in_data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        block = _bytes(encoded, position, 10)
        is_frame = ~in_data & (block[0] == 0x2C)
        frame = block[5:9:2] + 256 * block[6:10:2]
        step = tf.where(in_data, 1 + block[0], tf.where(is_frame, 11 + table(block[9]), 2))
        return position + step, tf.where(is_frame, tf.maximum(size, frame), size), ~in_data | (block[0] != 0)

    start = 13 + table(_bytes(encoded, 10, 1)[0])
    return tf.while_loop(is_inside, next_block, (start, screen, tf.constant(False)))[1]


def _bytes(encoded: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Return `count` bytes from `position` as `int32 [count]`, zeros past the end."""
    raw = tf.strings.substr(encoded, tf.clip_by_value(position, 0, tf.strings.length(encoded)), count)
    present = tf.cast(tf.io.decode_raw(raw, tf.uint8), tf.int32)
    return tf.pad(present, [[0, count - tf.size(present)]])


def _integers(head: tf.Tensor, position: int, dtype: tf.DType, *, little_endian: bool) -> tf.Tensor:
    """Read two neighbouring integers of a file's head, such as its width and height: `int32 [2]`."""
    raw = tf.strings.substr(head, position, 2 * dtype.size)
    return tf.cast(tf.io.decode_raw(raw, dtype, little_endian=little_endian), tf.int32)


def _jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation of a JPEG, `int32 []`, 1–8; 1 where there is none or it is invalid.

    Walks the segments before the image data to APP1 "Exif" and looks the tag up in the first image file directory
    (JPEG: ITU-T T.81 annex B; Exif 2.3, 4.5.2 and 4.6.2).
    """

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        head = _bytes(encoded, position, 8)
        return (head[1] == 0xE1) & tf.reduce_all(head[4:8] == [0x45, 0x78, 0x69, 0x66])

    def is_other(position: tf.Tensor) -> tf.Tensor:
        # Application data (APP0 to APP15) and comments come first; the image begins with the first table.
        head = _bytes(encoded, position, 2)
        return (head[0] == 0xFF) & ((head[1] >= 0xE0) & (head[1] <= 0xEF) | (head[1] == 0xFE)) & ~is_exif(position)

    def next_segment(position: tf.Tensor) -> tuple[tf.Tensor]:
        size = _bytes(encoded, position + 2, 2)
        return (position + 2 + tf.maximum(size[0] * 256 + size[1], 2),)

    (segment,) = tf.while_loop(is_other, next_segment, (tf.constant(2),))
    return tf.cond(is_exif(segment), lambda: _orientation_tag(encoded, segment + 10), lambda: tf.constant(1))


def _png_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation of a PNG, `int32 []`, 1–8; 1 where there is none or it is invalid.

    Walks the chunks to the first eXIf or to the image data: what stands behind it does not count, as in browsers
    (PNG, third edition, 5.3 and 11.3.4.5).
    """
    size = tf.strings.length(encoded)

    def is_chunk(position: tf.Tensor, name: bytes) -> tf.Tensor:
        return tf.reduce_all(_bytes(encoded, position + 4, 4) == list(name))

    def is_other(position: tf.Tensor) -> tf.Tensor:
        return (position < size) & ~is_chunk(position, b"eXIf") & ~is_chunk(position, b"IDAT")

    def next_chunk(position: tf.Tensor) -> tuple[tf.Tensor]:
        length = tf.reduce_sum(_bytes(encoded, position, 4) * [1 << 24, 1 << 16, 1 << 8, 1])
        # A damaged length may be negative, or more than there is.
        return (tf.where((length < 0) | (length > size - position), size, position + length + 12),)

    (chunk,) = tf.while_loop(is_other, next_chunk, (tf.constant(8),))
    return tf.cond(is_chunk(chunk, b"eXIf"), lambda: _orientation_tag(encoded, chunk + 8), lambda: tf.constant(1))


def _orientation_tag(encoded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Look the orientation up in the TIFF structure at a position, `int32 []`; 1 where it is not there."""
    head = _bytes(encoded, tiff, 8)
    # "II" stores the low byte first, "MM" the high byte.
    weights16 = tf.where(head[0] == 0x49, tf.constant([1, 1 << 8]), tf.constant([1 << 8, 1]))
    weights32 = tf.where(
        head[0] == 0x49, tf.constant([1, 1 << 8, 1 << 16, 1 << 24]), tf.constant([1 << 24, 1 << 16, 1 << 8, 1])
    )
    directory = tiff + tf.reduce_sum(head[4:8] * weights32)
    num_entries = tf.reduce_sum(_bytes(encoded, directory, 2) * weights16)
    entries = tf.reshape(_bytes(encoded, directory + 2, 12 * num_entries), [num_entries, 12])
    tags = tf.reduce_sum(entries[:, :2] * weights16, axis=1)
    values = tf.reduce_sum(entries[:, 8:10] * weights16, axis=1)
    found = (tags == _EXIF_ORIENTATION) & (values >= 1) & (values <= 8)
    return tf.concat([values[found], [1]], axis=0)[0]


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo an EXIF orientation: transpose for 5–8, then mirror left-right, then flip upside down."""

    def any_of(orientations: list[int]) -> tf.Tensor:
        return tf.reduce_any(orientation == orientations)

    image = tf.cond(orientation >= _FIRST_TRANSPOSED, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(any_of(_MIRRORED), lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(any_of(_FLIPPED), lambda: tf.reverse(image, [0]), lambda: image)
