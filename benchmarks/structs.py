"""The mixed events as msgspec Structs, in a separate module because msgspec is an extra."""

from typing import Any

import msgspec

from runic_redis import event

from .events import MIXED, Kind, mixed_values


@event("benchmark.mixed_struct")
class MixedStruct(msgspec.Struct, frozen=True):
    """The event `Mixed` as a Struct, which Python builds faster."""

    input_hash: bytes
    output_hash: bytes
    arguments: dict[str, Any]
    labels: dict[str, str]
    step: str
    attempt: int


MIXED_STRUCT = Kind(
    "mixed-structs",
    "mixed events as msgspec Structs",
    lambda source: MixedStruct(*mixed_values(source)),
    MIXED.row,
    lambda row: MixedStruct(*row),
    MixedStruct,
)
