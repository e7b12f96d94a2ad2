"""The archive: workflows and facts in one file, as docs/data-format.md specifies it.

A file is a first line and blocks. Each block has a checksum, so that an interrupted export can continue after the last
complete block. The records in the blocks are made in admin/exporting.py and read in admin/importing.py.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NoReturn, Self
from zlib import crc32

import msgpack
import zstandard

from runic_redis.errors import ConfigurationError, DecodeError

# A kind, and its values.
Record = list[Any]

# The version of the records.
FORMAT = 1
_FIRST_LINE = b"runic-redis archive 1\n"
_HEAD = struct.Struct(">II")
# About the size of a block. A larger record is a block alone.
_BLOCK_BYTES = 1024 * 1024
# The largest record: a snapshot, a log or a fact, and something around it.
_MOST_BYTES = 320 * 1024 * 1024
# A record holds at most this many values, since a few bytes of MessagePack may stand for an object of a hundred bytes.
# The exporter puts at most a thousand entries of 16 values into a record.
_MOST_VALUES = 24 * 1024
# The head of a `bin` in MessagePack, and the size from which it has this form.
_BIN = struct.Struct(">BI")
_LARGE = 2**16
_LEVEL = 3


class Digest:
    """The SHA-256 of records as MessagePack."""

    def __init__(self) -> None:
        self._hash = sha256()

    def add(self, record: Record) -> bytes:
        """Add a record. Return the digest of all records so far."""
        self._hash.update(msgpack.Packer().pack_array_header(len(record)))
        for part in record:
            # A packer would copy a snapshot of 256 MiB three times.
            is_large = type(part) is bytes and len(part) >= _LARGE
            self._hash.update(_BIN.pack(0xC6, len(part)) if is_large else msgpack.packb(part))
            if is_large:
                self._hash.update(part)
        return self._hash.digest()


class ArchiveWriter:
    """A writer of an archive. The file appears under its name once it is complete.

    Until then it is named FILE.partial. A writer that finds such a file, from an interrupted run, continues it.

    Args:
        path: the file.

    Attributes:
        found: the records of the interrupted run. Read them before you write the first record.
        size: the number of bytes in the file so far.

    Raises:
        ConfigurationError: the file exists already, or cannot be written; another run is writing it; or FILE.partial is
            not a part of an archive.
    """

    def __init__(self, path: Path) -> None:
        if not path.name:  # of "" or "."
            raise ConfigurationError(f"The file {str(path)!r} cannot be written: it is a directory. Name a file.")
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._check_free()
        self._packer = msgpack.Packer()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._records: list[bytes] = []
        self._pending = 0
        try:
            self._file = self._partial.open("a+b")
        except OSError as error:
            raise ConfigurationError(
                f"The file {str(self._partial)!r} cannot be written: {error}. Nothing was changed."
            ) from error
        try:
            self._lock()
            self._check_ours()
        except BaseException:
            self._file.close()
            raise
        self.size = 0
        self.found = self._resumed()

    def _check_free(self) -> None:
        if self._path.exists():
            raise ConfigurationError(
                f"The file {str(self._path)!r} exists already. Nothing was changed. Remove it, or name another file."
            )

    def _lock(self) -> None:
        """Lock the file against other writers."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another run is writing the file {str(self._partial)!r}: wait for it, or name another file. Nothing "
                "was changed."
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"The file {str(self._partial)!r} cannot be locked: {error}. Nothing was changed."
            ) from error
        # Another run may have finished it, and renamed it, just before.
        self._check_free()

    def _check_ours(self) -> None:
        """Reject a partial file that is not of an archive: it would be overwritten."""
        self._file.seek(0)
        if not _FIRST_LINE.startswith(self._file.read(len(_FIRST_LINE))):
            raise ConfigurationError(
                f"The file {str(self._partial)!r} is not a part of an archive that this version of runic_redis began. "
                "Nothing was changed. Move it away, or name another file."
            )

    def _resumed(self) -> Iterator[Record]:
        """Return the records of an interrupted run. Then cut off an incomplete block, and the block with the end."""
        self._file.seek(0)
        if self._file.read(len(_FIRST_LINE)) == _FIRST_LINE:
            while (block := _read_block(self._file)) is not None:
                try:
                    ended = any(record[0] == "end" for record in _records(block))
                except ValueError as error:
                    raise ConfigurationError(
                        f"The file {str(self._partial)!r} is damaged after byte {self.size}: {error}. Remove it, or "
                        "name another file. Nothing was changed."
                    ) from error
                if ended:
                    break
                yield from _records(block)
                self.size = self._file.tell()
        self._file.truncate(self.size)
        if not self.size:
            self._file.write(_FIRST_LINE)
            self.size = len(_FIRST_LINE)

    def write(self, record: Record) -> None:
        """Add a record."""
        packed = self._packer.pack(record)
        self._records.append(packed)
        self._pending += len(packed)
        if self._pending >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the added records as a block."""
        if self._records:
            body = self._compressor.compress(b"".join(self._records))
            self._file.write(_HEAD.pack(len(body), crc32(body)) + body)
            self._file.flush()
            self.size = self._file.tell()
            self._records = []
            self._pending = 0

    def finish(self) -> None:
        """Write the file to disk, and give it its name."""
        self.flush()
        os.fsync(self._file.fileno())
        # Closing the file unlocks it, so rename it before.
        self._partial.rename(self._path)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file. An unfinished one stays, for the next run to continue."""
        self._file.close()


class ArchiveReader:
    """A reader of an archive.

    Args:
        path: the file.

    Attributes:
        size: the number of bytes in the file.
        position: how many of them have been read.

    Raises:
        ConfigurationError: there is no such file, it is not an archive, or it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists() and not path.is_file():
                raise ConfigurationError(
                    f"{str(path)!r} is not a regular file. Nothing was changed. Save the archive to a file, and import "
                    "that."
                )
            self._file = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise ConfigurationError(f"The file {str(path)!r} cannot be read: {error}. Nothing was changed.") from error
        if self._file.read(len(_FIRST_LINE)) != _FIRST_LINE:
            self._file.close()
            raise ConfigurationError(
                f"The file {str(path)!r} is not an archive of this version of runic_redis. Nothing was changed. Name a "
                "file that runic-redis export has written."
            )
        self.position = len(_FIRST_LINE)

    def __iter__(self) -> Iterator[Record]:
        """Return the records.

        Raises:
            DecodeError: the file is damaged.
        """
        while self.position < self.size:
            block = _read_block(self._file)
            if block is None:
                raise DecodeError(
                    f"The archive {str(self._path)!r} is damaged, or cut off, after byte {self.position}. The records "
                    "before it have been read. Copy or export it again."
                )
            records = _records(block)
            del block  # it may be large, and the unpacker has a copy
            try:
                yield from records
            except ValueError as error:
                raise DecodeError(
                    f"The archive {str(self._path)!r} is damaged after byte {self.position}: {error}. The "
                    "records before it have been read. Copy or export it again."
                ) from error
            self.position = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _read_block(file: IO[bytes]) -> bytes | None:
    """Return the records of the next block, packed; None if the block is not complete."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    if length > _MOST_BYTES:
        return None
    body = file.read(length)
    if len(body) < length or crc32(body) != checksum:
        return None
    try:
        if not 0 <= zstandard.frame_content_size(body) <= _MOST_BYTES:
            return None
        return zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


def _records(block: bytes) -> Iterator[Record]:
    """Return the records of a block.

    Raises:
        ValueError: it holds something else.
    """
    left, size = 0, len(block)

    def count(values: Any) -> Any:
        nonlocal left
        left -= 1 + len(values)
        if left < 0:
            raise ValueError(f"a record holds more than {_MOST_VALUES} values")
        return values

    def refuse(*_: object) -> NoReturn:
        raise ValueError("a record holds an extension")

    unpacker = msgpack.Unpacker(
        max_buffer_size=size,
        max_array_len=_MOST_VALUES,
        max_map_len=_MOST_VALUES,
        list_hook=count,
        object_hook=count,
        ext_hook=refuse,
    )
    unpacker.feed(block)
    del block
    while unpacker.tell() < size:
        left = _MOST_VALUES
        try:
            record = unpacker.unpack()
        except msgpack.UnpackException as error:
            raise ValueError(f"its MessagePack ends too early or nests too deep ({type(error).__name__})") from error
        if type(record) is not list or not record or type(record[0]) is not str:
            raise ValueError(f"{record!r:.40} is not a record")
        yield record
