"""How each kind of class is taken apart into field values, and rebuilt from them.

A rebuilt object is restored, as by `copy` or `pickle`: its fields are set to what was stored, and nothing of the class
runs, neither validation nor conversion nor a hook after `__init__`. (A msgspec Struct can only be made by its library,
which runs its ``__post_init__``; the stored values are set once more after it.)

Optional libraries are recognised by what they leave on a class; none is imported unless the class uses it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag
from functools import partial
from itertools import starmap
from operator import attrgetter
from typing import Any

from runic_redis.errors import InvalidArgument, InvalidType, short_repr

__all__ = ["Build", "Kind", "Read", "kind_of"]

Read = Callable[[Any], Iterable[Any]]
Build = Callable[[Iterable[Sequence[Any]]], list[Any]]
Default = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the codec needs of a class.

    Attributes:
        fields: the names of its fields, in order.
        read: the values of an instance's fields, in that order.
        build: an instance from each row of values in that order; many at once, because then most of it runs in C. Each
            row has a value for each field. Raises ValueError for a value that no instance has.
        defaults: for fields that have one, what makes the default.
    """

    fields: tuple[str, ...]
    read: Read
    build: Build
    defaults: Mapping[str, Default]


def kind_of(cls: Any) -> Kind:
    """The kind of a class to be registered.

    Raises:
        InvalidType: it is not a class, or of no kind that can be registered.
    """
    if not isinstance(cls, type):
        raise InvalidType(f"@event registers classes, not {short_repr(cls)}.")
    if issubclass(cls, Enum):
        return _enum(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls)
    if hasattr(cls, "__struct_fields__"):
        return _msgspec_struct(cls)
    if hasattr(cls, "model_construct"):
        return _pydantic_model(cls)
    if "__attrs_attrs__" in cls.__dict__:
        return _attrs(cls)
    if dataclasses.is_dataclass(cls) and "__dataclass_fields__" in cls.__dict__:
        return _dataclass(cls)
    raise InvalidType(
        f"@event registers dataclasses, attrs classes, msgspec Structs, pydantic models, NamedTuples and Enums; "
        f"{cls.__qualname__} is none of them. Put @event above the decorator that makes it one, "
        "such as @dataclass."
    )


def _reader(fields: tuple[str, ...]) -> Read:
    if len(fields) > 1:
        return attrgetter(*fields)
    return lambda instance: [getattr(instance, name) for name in fields]


def _constant(value: Any) -> Default:
    return lambda: value


def _each(make: Callable[..., Any]) -> Build:
    # Not by map or starmap: a StopIteration out of the class would end those early, and events would be missing.
    return lambda rows: [make(*row) for row in rows]


def _restorer(cls: type, fields: tuple[str, ...], besides: Mapping[str, Any]) -> Build:
    """Build by setting the fields, and what else an instance must have, on a blank instance."""
    blank = object.__new__
    set_field = object.__setattr__
    try:
        blank(cls)
    except TypeError:
        raise InvalidType(
            f"@event cannot register {cls.__qualname__}: it derives from a built-in type that keeps more than fields, "
            "such as an exception or a list, or it is abstract. Give the event a class of its own."
        ) from None
    twin = None if besides else _twin(cls, fields)
    if twin is not None:

        def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
            instances = list(starmap(twin, rows))
            for instance in instances:
                instance.__class__ = cls
            return instances

        return build

    def restore(*values: Any) -> Any:
        instance: Any = blank(cls)
        for name, value in zip(fields, values, strict=True):
            set_field(instance, name, value)
        for name, value in besides.items():
            set_field(instance, name, value)
        return instance

    return _each(restore)


def _twin(cls: type, fields: tuple[str, ...]) -> Any:
    """A class that keeps the same fields in the same places, and whose `__init__` sets them and does nothing else.

    An instance of it becomes one of `cls` by its `__class__`: half the time of setting field after field by
    `object.__setattr__`. None where there is no such class, as for one that inherits its slots.
    """
    slots = {"__slots__": cls.__dict__["__slots__"]} if "__slots__" in cls.__dict__ else {}
    try:
        twin = dataclasses.make_dataclass(cls.__name__, fields, namespace=slots, repr=False, eq=False)
        twin(*fields).__class__ = cls
    except (TypeError, AttributeError):
        return None
    return twin


def _dataclass(cls: Any) -> Kind:
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields)
    defaults: dict[str, Default] = {}
    for field in fields:
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = _constant(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory
    # A pydantic dataclass has its own idea of a default.
    defaults |= _pydantic_defaults(getattr(cls, "__pydantic_fields__", {}))
    return Kind(names, _reader(names), _restorer(cls, names, {}), defaults)


def _attrs(cls: Any) -> Kind:
    attributes = cls.__attrs_attrs__
    names = tuple(attribute.name for attribute in attributes)
    defaults: dict[str, Default] = {}
    for attribute in attributes:
        factory = getattr(attribute.default, "factory", None)
        if factory is None:
            # attrs marks "no default" by a value of its own, which has a name and no other use.
            if getattr(attribute.default, "name", None) != "NOTHING":
                defaults[attribute.name] = _constant(attribute.default)
        elif not attribute.default.takes_self:
            defaults[attribute.name] = factory
    # With cache_hash=True, what attrs generates expects a place for the hash.
    code = getattr(cls.__hash__, "__code__", None)
    cached = "_attrs_cached_hash"
    besides = {cached: None} if code is not None and cached in code.co_names + code.co_consts else {}
    return Kind(names, _reader(names), _restorer(cls, names, besides), defaults)


def _msgspec_struct(cls: Any) -> Kind:
    import msgspec  # noqa: PLC0415 - the class is a Struct, so the library is there; nobody else pays for it

    fields = msgspec.structs.fields(cls)
    names = tuple(field.name for field in fields)
    defaults: dict[str, Default] = {}
    for field in fields:
        if field.default is not msgspec.NODEFAULT:
            defaults[field.name] = _constant(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            defaults[field.name] = field.default_factory

    # Keyword-only fields cannot be passed by position, and are not among these.
    by_position = cls.__match_args__ == names
    hooked = hasattr(cls, "__post_init__")

    def make(*values: Any) -> Any:
        instance = cls(*values) if by_position else cls(**dict(zip(names, values, strict=True)))
        if hooked:
            for name, value in zip(names, values, strict=True):
                msgspec.structs.force_setattr(instance, name, value)
        return instance

    # Where the library has only to set the fields, all of it runs in C.
    build = _each(make) if hooked or not by_position else lambda rows: list(starmap(cls, rows))
    return Kind(names, _reader(names), build, defaults)


def _pydantic_model(cls: Any) -> Kind:
    model_fields = tuple(cls.model_fields)
    # Part of what makes two models equal, and so of what is kept.
    private = tuple(cls.__private_attributes__)
    defaults = _pydantic_defaults(cls.model_fields)
    for name, attribute in cls.__private_attributes__.items():
        defaults[name] = attribute.get_default
    allows_extra = cls.model_config.get("extra") == "allow"
    names = (*model_fields, *private)
    read_fields = _reader(names)

    def read(instance: Any) -> Iterable[Any]:
        if allows_extra and instance.__pydantic_extra__:
            extra = ", ".join(instance.__pydantic_extra__)
            raise ValueError(f"has extra fields that its model does not declare: {extra}")
        return read_fields(instance)

    def make(*values: Any) -> Any:
        stored = dict(zip(names, values, strict=True))
        instance = cls.__new__(cls)
        instance.__setstate__(
            {
                "__pydantic_private__": {name: stored.pop(name) for name in private} or None,
                "__dict__": stored,
                "__pydantic_fields_set__": set(stored),
                "__pydantic_extra__": {} if allows_extra else None,
            }
        )
        return instance

    return Kind(names, read, _each(make), defaults)


def _pydantic_defaults(fields: Mapping[str, Any]) -> dict[str, Default]:
    defaults: dict[str, Default] = {}
    for name, field in fields.items():
        takes_data = field.default_factory is not None and getattr(field, "default_factory_takes_validated_data", False)
        if not field.is_required() and not takes_data:
            # Each one anew: pydantic copies a default that could be changed.
            defaults[name] = partial(field.get_default, call_default_factory=True)
    return defaults


def _named_tuple(cls: Any) -> Kind:
    defaults = {name: _constant(value) for name, value in cls._field_defaults.items()}
    names = tuple(cls._fields)
    return Kind(names, list, lambda rows: [tuple.__new__(cls, row) for row in rows], defaults)


def _enum(cls: Any) -> Kind:
    if not len(cls):
        raise InvalidArgument(f"@event cannot register {cls.__qualname__}: it is an Enum without members.")
    # A Flag's combinations have a value each but no name of their own; an Enum's names outlive its values. (By
    # _name_, for a class may give its members another name.)
    if issubclass(cls, Flag):
        return Kind(("value",), lambda member: [member.value], _each(cls), {})

    def member_named(name: Any) -> Any:
        try:
            return cls.__members__[name]
        except (KeyError, TypeError):
            raise ValueError(f"no member {name!r:.80}") from None

    return Kind(("name",), lambda member: [member._name_], _each(member_named), {})
