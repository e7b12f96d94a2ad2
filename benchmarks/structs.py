"""The same event as a msgspec Struct, in a separate module because msgspec is an extra.

Readers see the same event, and Python builds it faster.
"""

import msgspec

from runic_redis import event


@event("benchmark.order_placed_struct")
class OrderPlacedStruct(msgspec.Struct, frozen=True):
    """An event of about 130 bytes, as MessagePack with field names."""

    order_id: str
    customer: str
    item: str
    quantity: int
    price: float
    placed_at: float
