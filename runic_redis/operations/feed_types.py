"""Which commits hold an event of some types."""

from collections.abc import Collection, Sequence
from typing import Any

from runic_redis.context import Context
from runic_redis.errors import InvalidArgument, InvalidType, short_repr
from runic_redis.events import UnknownEvent
from runic_redis.events.plain import event_type

_DICT = "dict"


class TypeFilter:
    """Tells whether a commit holds an event of one of some types.

    Args:
        context: the store's.
        types: registered classes, or names of types. The type of a plain dict is in its field type, kind or event; or
            it is "dict".

    Attributes:
        names: the names of the types.
    """

    def __init__(self, context: Context, types: Collection[str | type]) -> None:
        if isinstance(types, str | type) or not isinstance(types, Collection):
            raise InvalidType(f"types is a list of event types, not {short_repr(types)}; nothing was sent.")
        self._context = context
        self.names = frozenset(map(self._name, types))
        if not self.names:
            raise InvalidArgument("types is empty, so no commit would fit; nothing was sent. Leave it out for all.")

    def may_fit(self, header: bytes) -> bool:
        """Return whether an entry with this header may hold such an event."""
        named = self._context.codec.type_names(header)
        return _DICT in named or any(map(self._may_become, named))

    def fits(self, events: Sequence[Any]) -> bool:
        """Return whether one of the events is of such a type."""
        return any(self._type_of(event) in self.names for event in events)

    def _name(self, wanted: str | type) -> str:
        if isinstance(wanted, str):
            return self._context.codec.registry.current_name(wanted)
        registered = self._context.codec.registry.of(wanted) if isinstance(wanted, type) else None
        if registered is None:
            raise InvalidArgument(f"{short_repr(wanted)} is not registered as an event; nothing was sent.")
        return registered.schema.name

    def _may_become(self, name: str) -> bool:
        """Return whether an event that was written under a name may be read as one of a wanted type."""
        registry = self._context.codec.registry
        return registry.current_name(name) in self.names or registry.has_upcasters(name)

    def _type_of(self, event: Any) -> str:
        if type(event) is dict:
            return event_type(event)
        if type(event) is UnknownEvent:
            return self._context.codec.registry.current_name(event.name)
        registered = self._context.codec.registry.of(type(event))
        return "" if registered is None else registered.schema.name
