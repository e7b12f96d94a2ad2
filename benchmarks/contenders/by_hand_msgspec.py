"""redis-py and msgspec by hand: Structs are encoded and decoded without a dict in between.

It takes part in the cases with Structs, to tell the gain of this store from the gain of msgspec.
"""

from functools import cache
from typing import Any

import msgspec

from .by_hand import ByHand


@cache
def _decoder(kind: type[Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


class ByHandMsgspec(ByHand):
    name = "redis-py and msgspec by hand"
    about = "one XADD an event, in a pipeline; msgspec encodes Structs and decodes straight to them"
    usual = False

    def pack(self, event: Any) -> bytes:
        return msgspec.msgpack.encode(event)

    def unpack(self, data: bytes, kind: type[Any]) -> Any:
        return _decoder(kind).decode(data)


CONTENDERS = [ByHandMsgspec]
