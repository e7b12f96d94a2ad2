"""The envelope around a payload: one byte that says how it is compressed, then the payload."""

from threading import local

import zstandard

from runic_redis.errors import DecodeError, reason

__all__ = ["MAX_PAYLOAD_BYTES", "compress", "decompress", "payload_size", "payload_start"]

PLAIN = b"\x00"
ZSTD = b"\x01"
# What a frame starts with, unless it is to be skipped.
_FRAME = zstandard.FRAME_HEADER
# Below this, what compression saves is not worth its time.
COMPRESS_FROM_BYTES = 1024
# The level where, on events, a higher one costs more time than it saves memory; see docs/performance.md.
LEVEL = 1
# No payload is larger when written, so none is expanded further when read.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024


class _Zstd(local):
    """A compressor may be used by one thread at a time, and costs more to make than to use."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def compress(payload: bytes) -> bytes:
    """The payload in its envelope, compressed where that makes it smaller."""
    if len(payload) >= COMPRESS_FROM_BYTES:
        compressed = _zstd.compressor.compress(payload)
        if len(compressed) < len(payload):
            return ZSTD + compressed
    return PLAIN + payload


def payload_size(data: bytes) -> int:
    """How many bytes a payload has out of its envelope, as far as it says."""
    return zstandard.frame_content_size(data[1:]) if data[:1] == ZSTD else len(data)


def payload_start(data: bytes, size: int) -> bytes:
    """Return the first bytes of a payload out of its envelope.

    Raises:
        DecodeError: it is damaged.
    """
    if data[:1] == PLAIN:
        return data[1 : size + 1]
    try:
        start: bytes = _zstd.decompressor.stream_reader(data[1:]).read(size)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DecodeError(f"a compressed payload is damaged: {reason(error)}") from error
    return start


def decompress(data: bytes, most: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The payload out of its envelope.

    Args:
        data: the envelope.
        most: how many bytes it may expand to.

    Raises:
        DecodeError: it is damaged, or would expand to more.
    """
    kind = data[:1]
    if kind == PLAIN:
        if len(data) - 1 > most:
            raise DecodeError(f"a payload holds {len(data) - 1} bytes, and at most {most} are allowed")
        return data[1:]
    if kind != ZSTD:
        raise DecodeError(f"a payload starts with {kind!r}, which names no compression")
    try:
        # The size is read first: zstandard would allocate whatever a damaged frame claims. (A frame to be skipped is of
        # no size, and zstandard would allocate what it is to skip.)
        size = zstandard.frame_content_size(data[1:]) if data.startswith(_FRAME, 1) else -1
        if not 0 <= size <= most:
            claimed = size if size >= 0 else "an unknown number of"
            raise DecodeError(f"a payload claims to hold {claimed} bytes, and at most {most} are allowed")
        return _zstd.decompressor.decompress(data[1:], allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DecodeError(f"a compressed payload is damaged: {reason(error)}") from error
