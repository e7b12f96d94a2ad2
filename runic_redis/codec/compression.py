"""The envelope around a payload: one byte that names the compression, then the payload."""

from threading import local

import zstandard

from runic_redis.errors import DecodeError, reason

PLAIN = b"\x00"
ZSTD = b"\x01"
# The first bytes of a frame that holds data.
_FRAME = zstandard.FRAME_HEADER
# Compressing a smaller payload costs more time than it is worth.
COMPRESS_FROM_BYTES = 1024
# A higher level costs more time than it saves memory, and a lower one the other way round: see docs/performance.md.
LEVEL = -1
# Writers never exceed this size, so readers never expand a payload beyond it.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024


class _Zstd(local):
    """A compressor for each thread: threads cannot share one, and making one costs more than using it."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def compress(payload: bytes) -> bytes:
    """Return the payload in its envelope, compressed if that makes it smaller."""
    if len(payload) >= COMPRESS_FROM_BYTES:
        compressed = _zstd.compressor.compress(payload)
        if len(compressed) < len(payload):
            return ZSTD + compressed
    return PLAIN + payload


def payload_size(data: bytes) -> int:
    """Return the size that an envelope states for its payload, in bytes."""
    return zstandard.frame_content_size(data[1:]) if data[:1] == ZSTD else len(data)


def payload_start(data: bytes, size: int) -> bytes:
    """Return the first bytes of the payload in an envelope.

    Raises:
        DecodeError: the envelope is damaged.
    """
    if data[:1] == PLAIN:
        return data[1 : size + 1]
    try:
        start: bytes = _zstd.decompressor.stream_reader(data[1:]).read(size)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DecodeError(f"a compressed payload is damaged: {reason(error)}") from error
    return start


def decompress(data: bytes, most: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Return the payload in an envelope.

    Args:
        data: the envelope.
        most: how many bytes the payload may expand to.

    Raises:
        DecodeError: the envelope is damaged, or the payload would expand to more than `most`.
    """
    kind = data[:1]
    if kind == PLAIN:
        if len(data) - 1 > most:
            raise DecodeError(f"a payload holds {len(data) - 1} bytes, and at most {most} are allowed")
        return data[1:]
    if kind != ZSTD:
        raise DecodeError(f"a payload starts with {kind!r}, which names no compression")
    try:
        # Read the size first: zstandard would allocate as much as a damaged frame claims. (A frame to skip has no size,
        # and zstandard would allocate the size of the skipped bytes.)
        size = zstandard.frame_content_size(data[1:]) if data.startswith(_FRAME, 1) else -1
        if not 0 <= size <= most:
            claimed = size if size >= 0 else "an unknown number of"
            raise DecodeError(f"a payload claims to hold {claimed} bytes, and at most {most} are allowed")
        return _zstd.decompressor.decompress(data[1:], allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DecodeError(f"a compressed payload is damaged: {reason(error)}") from error
