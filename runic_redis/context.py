"""What the operations of one store share: its namespace, its codec, and how long it tries."""

from dataclasses import dataclass

from runic_redis.codec import Codec
from runic_redis.keys import Keys

__all__ = ["Context"]


@dataclass(slots=True)
class Context:
    """The settings of one open store.

    Attributes:
        keys: the namespace's key names.
        codec: encodes and decodes.
        deadline_s: for how many seconds an operation is tried.
        made: whether the namespace is known to have been made, with these settings.
    """

    keys: Keys
    codec: Codec
    deadline_s: float
    made: bool = False
