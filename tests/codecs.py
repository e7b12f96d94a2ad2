"""The codec, and the same codec without msgspec, to compare them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from runic_redis.codec import Codec, Entry, entry_encoder, schemas


@contextmanager
def rows_by_msgpack() -> Iterator[None]:
    """Leave all rows to msgpack."""
    with (
        patch.object(entry_encoder, "write_rows", lambda rows, walked: None),
        patch.object(entry_encoder, "write_columns", lambda rows, schema, find_reader: None),
        patch.object(schemas, "row_reader", lambda index, forms: None),
    ):
        yield


class MsgpackCodec(Codec):
    """A codec that leaves all rows to msgpack."""

    @rows_by_msgpack()
    def encode_commit(self, events: Sequence[Any], facts: dict[str, bytes] | None = None) -> list[Entry]:
        return super().encode_commit(events, facts)

    @rows_by_msgpack()
    def encode_log(self, log: Sequence[Any], facts: dict[str, bytes] | None = None) -> bytes:
        return super().encode_log(log, facts)

    @rows_by_msgpack()
    def decode_entry(self, header: bytes, payload: bytes) -> list[Any]:
        return super().decode_entry(header, payload)

    @rows_by_msgpack()
    def decode_log(self, data: bytes) -> list[Any]:
        return super().decode_log(data)


BOTH: tuple[Callable[..., Codec], ...] = (Codec, MsgpackCodec)
