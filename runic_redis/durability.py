"""How durable a write must be before it is acknowledged."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from runic_redis.errors import InvalidArgument, InvalidType, short_repr

__all__ = ["Durability", "Replicated", "check_durability", "replicated"]

_MOST_REPLICAS = 1000


@dataclass(frozen=True, slots=True)
class Replicated:
    """A durability, made by `replicated`."""

    replicas: int
    fsync: bool


Durability: TypeAlias = Literal["memory", "fsync"] | Replicated


def replicated(replicas: int, *, fsync: bool = False) -> Replicated:
    """Return the durability of a write that replicas have confirmed.

    Such a write survives the loss of the primary as long as one of these replicas takes over. (A failover chooses the
    replica with the most data, of those that it can reach.)

    Args:
        replicas: the number of replicas that must have it.
        fsync: whether these, and the primary, must have it on disk as well.

    Raises:
        InvalidArgument: replicas is not a number from 1 to 1000.
    """
    if type(replicas) is not int or not 0 < replicas <= _MOST_REPLICAS:
        raise InvalidArgument(
            f"replicated takes a number of replicas, from 1 to {_MOST_REPLICAS}, not {short_repr(replicas)}."
        )
    return Replicated(replicas, bool(fsync))


def check_durability(durability: Any) -> Durability:
    """Return a durability.

    Raises:
        InvalidArgument: it is no durability.
    """
    if isinstance(durability, Replicated) or (isinstance(durability, str) and durability in {"memory", "fsync"}):
        return cast("Durability", durability)
    kind = InvalidArgument if isinstance(durability, str) else InvalidType
    raise kind(f'durability is "memory", "fsync" or replicated(n), not {short_repr(durability)}; nothing was sent.')
