"""Walk through the blocks of an encoded image, in TensorFlow: what they say of it, and whether decoding it is cheap.

TensorFlow's decoders go through any number of blocks, and of a GIF through all frames: a file of 300 KB can keep them
busy for minutes. Every walk here is bounded; what has more blocks than that is refused. The client, which reads more
formats, has rules of its own.
Sources: ITU-T T.81, annex B (JPEG); PNG, third edition, 5.3 and 11.3; GIF89a, 15 to 26; RFC 9649, 2 and 3 (WebP);
Exif 2.3, 4.5.2 and 4.6.2.
"""

import tensorflow as tf

MAX_BLOCKS = 1000
"""Segments of a JPEG and chunks of a PNG before its pixels: cameras and editors write a few hundred at most."""

MAX_GIF_BLOCKS = 40_000
"""Blocks, of at most 255 bytes each, up to the end of the first frame: 10 MB of it, walked in a second."""

MAX_SCANS = 100
MAX_SCANNED_PIXELS = 800_000_000
"""Scans of a JPEG, and those times its pixels: each scan goes over all of them. Encoders write about ten."""

MAX_PACKED_TEXTS = 32
"""Compressed texts and colour profiles of a PNG; each may take 30 ms to be unpacked."""

MAX_WEBP_CHUNKS = 10_000
"""Chunks of a WebP, of which each frame of an animation is one, up to its image and its orientation."""

_EXIF_ORIENTATION = 0x0112
_WEBP_ANIMATION, _WEBP_EXIF, _WEBP_ALPHA = 0x02, 0x08, 0x10
_PADDING = 16


def check_jpeg(encoded: tf.Tensor, num_pixels: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of a JPEG, `int32 []`, 1–8; 1 where there is none or it is invalid.

    Args:
        encoded: `string []`.
        num_pixels: `int64 []`.

    Raises:
        tf.errors.InvalidArgumentError: it has too many segments or scans.
    """
    raw = _to_bytes(encoded)

    def is_segment(position: tf.Tensor, _exif: tf.Tensor, _frame: tf.Tensor) -> tf.Tensor:
        head = _integers(raw, position, 2)
        # All but the marker of a scan, and those that stand alone.
        return (head[0] == 0xFF) & (head[1] >= 0xC0) & ((head[1] < 0xD0) | (head[1] > 0xDA))

    def next_segment(position: tf.Tensor, exif: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = _integers(raw, position, 8)
        is_exif = (head[1] == 0xE1) & tf.reduce_all(head[4:8] == [0x45, 0x78, 0x69, 0x66])
        is_frame = (head[1] == 0xC0) | (head[1] == 0xC1)
        return (
            position + 2 + tf.maximum(head[2] * 256 + head[3], 2),
            tf.where(is_exif & (exif == 0), position + 10, exif),
            tf.where(is_frame, position, frame),
        )

    none = tf.constant(0)
    position, exif, frame = tf.while_loop(
        is_segment, next_segment, (tf.constant(2), none, none), maximum_iterations=MAX_BLOCKS
    )
    scan = _integers(raw, position, 5)
    # A sequential JPEG whose first scan holds all of its components has no other.
    is_in_one_scan = (frame > 0) & (scan[1] == 0xDA) & (scan[4] == _integers(raw, frame + 9, 1)[0])
    num_blocks, num_scans = tf.cond(is_in_one_scan, lambda: (tf.constant(0), tf.constant(1)), lambda: _count_scans(raw))
    few_blocks = _assert_at_most(MAX_BLOCKS, num_blocks, "JPEG", "segments")
    few_scans = _assert_at_most(MAX_SCANS, num_scans, "JPEG", "scans")
    scanned = tf.cast(num_scans, tf.int64) * num_pixels
    few_passes = _assert_at_most(MAX_SCANNED_PIXELS, scanned, "JPEG", "pixels in all of its scans together")
    with tf.control_dependencies([few_blocks, few_scans, few_passes]):
        return tf.cond(exif > 0, lambda: _orientation_tag(raw, exif), lambda: tf.constant(1))


def check_png(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the EXIF orientation of a PNG and whether any of its pixels may be transparent, `int32 []` and `bool []`.

    What stands behind the first image data does not count, as in browsers.

    Raises:
        tf.errors.InvalidArgumentError: it has too many chunks.
    """
    raw = _to_bytes(encoded)
    size = tf.strings.length(encoded)

    def is_chunk(position: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (position < size) & ~_is_name(raw, position + 4, b"IDAT")

    def next_chunk(
        position: tf.Tensor, exif: tf.Tensor, is_transparent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length = tf.reduce_sum(_integers(raw, position, 4) * [1 << 24, 1 << 16, 1 << 8, 1])
        is_exif = (exif == 0) & _is_name(raw, position + 4, b"eXIf")
        return (
            # A damaged length may be negative, or more than there is.
            tf.where((length < 0) | (length > size - position), size, position + length + 12),
            tf.where(is_exif, position + 8, exif),
            is_transparent | _is_name(raw, position + 4, b"tRNS"),
        )

    depth, kind = tf.unstack(_integers(raw, 24, 2), num=2)
    position, exif, is_transparent = tf.while_loop(
        is_chunk,
        next_chunk,
        (tf.constant(8), tf.constant(0), (kind == 4) | (kind == 6)),
        maximum_iterations=MAX_BLOCKS,
    )
    checks = [
        tf.debugging.Assert(
            ~is_chunk(position), [f"A PNG may have at most {MAX_BLOCKS} chunks before its pixels: save it anew."]
        ),
        _assert_at_most(MAX_BLOCKS, _count(encoded, "tEXt|zTXt|iTXt"), "PNG", "texts"),
        _assert_at_most(MAX_PACKED_TEXTS, _count(encoded, "zTXt|iTXt|iCCP"), "PNG", "packed texts"),
    ]
    with tf.control_dependencies(checks):
        orientation = tf.cond(exif > 0, lambda: _orientation_tag(raw, exif), lambda: tf.constant(1))
        # TensorFlow decodes grey of fewer than 8 bits with a wrong alpha.
        return orientation, is_transparent & ~((kind == 0) & (depth < 8))


def cut_gif(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a GIF up to the end of its first frame, and the width and height that hold it: `string []`, `int32 [2]`.

    TensorFlow would decode all of its frames, each of a size of its own.

    Raises:
        tf.errors.InvalidArgumentError: it has too many blocks.
    """
    raw = _to_bytes(encoded)

    def table(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)

    def is_inside(position: tf.Tensor, frame: tf.Tensor, in_data: tf.Tensor) -> tf.Tensor:
        introducer = raw[position]
        is_block = (introducer == 0x21) | (introducer == 0x2C)
        return (position < tf.size(raw) - _PADDING) & (in_data | ((frame == 0) & is_block))

    def next_block(position: tf.Tensor, frame: tf.Tensor, in_data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        block = _integers(raw, position, 10)
        is_frame = ~in_data & (block[0] == 0x2C)
        step = tf.where(in_data, 1 + block[0], tf.where(is_frame, 11 + table(block[9]), 2))
        return position + step, tf.where(is_frame, position, frame), ~in_data | (block[0] != 0)

    start = 13 + table(_integers(raw, 10, 1)[0])
    end, frame, in_data = tf.while_loop(
        lambda *state: is_inside(_clip(raw, state[0]), *state[1:]),
        next_block,
        (start, tf.constant(0), tf.constant(False)),
        maximum_iterations=MAX_GIF_BLOCKS,
    )
    end = _clip(raw, end)
    few_blocks = tf.debugging.Assert(
        ~is_inside(end, frame, in_data),
        [f"A GIF may have at most {MAX_GIF_BLOCKS} blocks up to the end of its first frame: save it anew."],
    )
    with tf.control_dependencies([few_blocks]):
        sides = _integers(raw, frame + 5, 4)
        screen = _integers(raw, 6, 4)
    size = tf.maximum(screen[::2] + 256 * screen[1::2], tf.where(frame > 0, sides[::2] + 256 * sides[1::2], 0))
    return tf.strings.join([tf.strings.substr(encoded, 0, end), b"\x3b"]), size


def check_webp(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the EXIF orientation of a WebP, `int32 []`; and whether it is an animation, and has an alpha, `bool []`.

    Raises:
        tf.errors.InvalidArgumentError: it has too many chunks.
    """
    raw = _to_bytes(encoded)
    size = tf.minimum(tf.strings.length(encoded), 8 + _webp_length(raw, 4))
    flags = tf.where(_is_name(raw, 12, b"VP8X"), _integers(raw, 20, 1)[0], 0)
    is_animation, has_exif, has_alpha = (
        tf.bitwise.bitwise_and(flags, flag) > 0 for flag in (_WEBP_ANIMATION, _WEBP_EXIF, _WEBP_ALPHA)
    )

    def is_before(position: tf.Tensor, image: tf.Tensor, exif: tf.Tensor, _alpha: tf.Tensor) -> tf.Tensor:
        return (position < size) & (((image == 0) & ~is_animation) | ((exif == 0) & has_exif))

    def next_chunk(
        position: tf.Tensor, image: tf.Tensor, exif: tf.Tensor, alpha: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        length = _webp_length(raw, position + 4)
        is_image = (image == 0) & (_is_name(raw, position, b"VP8 ") | _is_name(raw, position, b"VP8L"))
        is_exif = (exif == 0) & _is_name(raw, position, b"EXIF")
        return (
            tf.where(length > size - position, size, position + 8 + length + length % 2),
            tf.where(is_image, position, image),
            tf.where(is_exif, position + 8, exif),
            alpha | ((image == 0) & _is_name(raw, position, b"ALPH")),
        )

    zero = tf.constant(0)
    state = tf.while_loop(
        is_before, next_chunk, (tf.constant(12), zero, zero, has_alpha), maximum_iterations=MAX_WEBP_CHUNKS
    )
    _, image, exif, alpha = state
    # A lossless image says it itself, in the bit behind its width and height.
    of_lossless = _integers(raw, image + 12, 1)[0] // 16 % 2 == 1
    alpha = tf.where(is_animation, has_alpha, tf.where(_is_name(raw, image, b"VP8L"), of_lossless, alpha))
    few_chunks = tf.debugging.Assert(
        ~is_before(*state), [f"A WebP may have at most {MAX_WEBP_CHUNKS:,} chunks: save it anew."]
    )
    with tf.control_dependencies([few_chunks]):
        exif += tf.where(_is_name(raw, exif, b"Exif\0\0"), 6, 0)
        return tf.cond(exif > 0, lambda: _orientation_tag(raw, exif), lambda: tf.constant(1)), is_animation, alpha


def _webp_length(raw: tf.Tensor, position: tf.Tensor | int) -> tf.Tensor:
    """Return the length at a position, `int32 []`; of more than a gigabyte, a gigabyte."""
    length = _integers(raw, position, 4)
    value = tf.reduce_sum(length % [256, 256, 256, 64] * [1, 1 << 8, 1 << 16, 1 << 24])
    return tf.where(length[3] >= 64, 1 << 30, value)


def _count_scans(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the numbers of segments, at most one more than `MAX_BLOCKS`, and of scans among them.

    As libjpeg does, it looks for the next marker behind a segment, whatever stands between: the data of a scan, say.
    """
    code = raw[1:]
    # Restarts stand alone, and within the data.
    is_marker = (raw[:-1] == 0xFF) & (code >= 0xC0) & (code != 0xFF) & ((code < 0xD0) | (code > 0xD8))
    markers = tf.cast(tf.where(is_marker)[:, 0], tf.int32)

    def is_before_end(index: tf.Tensor, _blocks: tf.Tensor, _scans: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            index < tf.size(markers), lambda: _integers(raw, markers[index], 2)[1] != 0xD9, lambda: tf.constant(False)
        )

    def next_marker(index: tf.Tensor, blocks: tf.Tensor, scans: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = _integers(raw, markers[index], 4)
        behind = markers[index] + 2 + tf.maximum(head[2] * 256 + head[3], 2)
        return tf.searchsorted(markers, [behind])[0], blocks + 1, scans + tf.cast(head[1] == 0xDA, tf.int32)

    zero = tf.constant(0)
    _, num_blocks, num_scans = tf.while_loop(
        is_before_end, next_marker, (zero, zero, zero), maximum_iterations=MAX_BLOCKS + 1
    )
    return num_blocks, num_scans


def _count(encoded: tf.Tensor, names: str) -> tf.Tensor:
    """Return how often any of some names of four letters stands in a file."""
    without = tf.strings.regex_replace(encoded, names, "")
    return (tf.strings.length(encoded) - tf.strings.length(without)) // 4


def _assert_at_most(limit: int, received: tf.Tensor, kind: str, what: str) -> tf.Operation:
    message = f"A {kind} may have at most {limit:,} {what}: save it anew."
    return tf.debugging.assert_less_equal(received, tf.constant(limit, received.dtype), message=message)


def _to_bytes(encoded: tf.Tensor) -> tf.Tensor:
    """Return the bytes, `uint8`, and zeros behind them: what a walk reads past the end."""
    return tf.io.decode_raw(tf.strings.join([encoded, b"\0" * _PADDING]), tf.uint8)


def _clip(raw: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(position, 0, tf.size(raw) - _PADDING)


def _integers(raw: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Return `count` bytes, no more than `_PADDING`, from a position as `int32 [count]`, zeros past the end."""
    start = _clip(raw, tf.convert_to_tensor(position))
    return tf.cast(tf.ensure_shape(raw[start : start + count], [count]), tf.int32)


def _is_name(raw: tf.Tensor, position: tf.Tensor, name: bytes) -> tf.Tensor:
    return tf.reduce_all(_integers(raw, position, len(name)) == list(name))


def _orientation_tag(raw: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Look the orientation up in the TIFF structure at a position, `int32 []`; 1 where it is not there."""
    head = _integers(raw, tiff, 8)
    # "II" stores the low byte first, "MM" the high byte.
    weights16 = tf.where(head[0] == 0x49, tf.constant([1, 1 << 8]), tf.constant([1 << 8, 1]))
    weights32 = tf.where(
        head[0] == 0x49, tf.constant([1, 1 << 8, 1 << 16, 1 << 24]), tf.constant([1 << 24, 1 << 16, 1 << 8, 1])
    )
    directory = tiff + tf.reduce_sum(head[4:8] * weights32)
    num_entries = tf.reduce_sum(_integers(raw, directory, 2) * weights16)
    start = _clip(raw, directory + 2)
    table = tf.cast(raw[start : start + 12 * num_entries], tf.int32)
    entries = tf.reshape(tf.pad(table, [[0, 12 * num_entries - tf.size(table)]]), [num_entries, 12])
    tags = tf.reduce_sum(entries[:, :2] * weights16, axis=1)
    values = tf.reduce_sum(entries[:, 8:10] * weights16, axis=1)
    found = (tags == _EXIF_ORIENTATION) & (values >= 1) & (values <= 8)
    return tf.concat([values[found], [1]], axis=0)[0]
