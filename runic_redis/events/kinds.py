"""Read the field values of each kind of class, and rebuild instances from them.

A rebuilt instance is restored as by `copy` or `pickle`: its fields get the stored values, and no code of the class
runs. There is no validation, no conversion and no hook after `__init__`. The exception is a msgspec Struct. Only its
library can make one, and runs its ``__post_init__``. Then the stored values are set again.

The attributes of a class show which optional library it uses. No other library is imported.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from enum import Enum, Flag
from functools import partial
from itertools import starmap
from operator import itemgetter
from typing import Any, NamedTuple

from runic_redis.errors import InvalidArgument, InvalidType, short_repr
from runic_redis.events.attributes import (
    ATTRIBUTES,
    Beside,
    Build,
    Read,
    attribute_name,
    attribute_reader,
    attributes_beside,
    build_each,
    is_descriptor,
    plain_names,
    restoring_build,
    set_attributes,
    slot_names,
)

# Makes a default from the values of the known fields.
Default = Callable[[Mapping[str, Any]], Any]
# The value of a field that has none. The field is not stored, and has no value when it is read.
UNSET: Any = object()
_set_field = object.__setattr__
# The attributes in which pydantic keeps the state of a model.
_PYDANTIC_SLOTS = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
# The names in the data of the fields of a pydantic model that were given, and of the fields that it does not declare.
FIELDS_SET = "__pydantic_fields_set__"
EXTRA_FIELDS = "__pydantic_extra__"


class Kind(NamedTuple):
    """How to read and rebuild the instances of a class.

    Attributes:
        fields: the names of the fields in the data, in order.
        read: returns the values of an instance's fields, in that order.
        build: makes an instance from each row of values in that order. It takes many rows, because then most of the
            work runs in C. Each row has a value for each field. Raises ValueError for a value that no instance has.
        defaults: the function that makes the default, for each field that has one.
        beside: returns the data of an instance that is not in its fields; None if instances have no such data.
        restore: sets this data on an instance. It also receives the names of the stored fields.
        held: the names that `__dict__` has, in this order, if an instance holds nothing but its fields; None if
            `__dict__` alone does not show this.
        optional: the fields that may be left out: a field without a value, or a field with a default whose value cannot
            be encoded. It comes back with its default, or without a value.
        inexact: whether an instance may come back different, so that the writer must try each instance.
    """

    fields: tuple[str, ...]
    read: Read
    build: Build
    defaults: Mapping[str, Default]
    beside: Beside | None = None
    restore: Callable[[Any, Mapping[str, Any], Collection[str]], None] | None = None
    held: tuple[str, ...] | None = None
    optional: frozenset[str] = frozenset()
    inexact: bool = False

    def may_leave_out(self, name: str) -> bool:
        """Return whether a field is left out if its value cannot be encoded."""
        return name in self.optional and name in self.defaults


def kind_of(cls: Any, *, transient: Collection[str] = (), members: Mapping[str, str] | None = None) -> Kind:
    """Return the kind of a class to register.

    Args:
        cls: the class.
        transient: the fields and attributes that are not stored.
        members: for an Enum, the current name of each renamed member by its old name.

    Raises:
        InvalidType: the argument is not a class, or is a class that cannot be registered.
        InvalidArgument: `transient` or `members` does not fit the class.
    """
    if not isinstance(cls, type):
        raise InvalidType(f"@event registers classes, not {short_repr(cls)}.")
    if members is not None and issubclass(cls, Flag):
        raise InvalidArgument(
            f"renamed_members is not needed for {cls.__qualname__}: a Flag is stored by its value, so its members may "
            "be renamed."
        )
    if members is not None and not issubclass(cls, Enum):
        raise InvalidArgument(f"renamed_members is for an Enum, and {cls.__qualname__} is not one.")
    make = _maker(cls)
    if make is None:
        raise InvalidType(
            "@event registers dataclasses, attrs classes, msgspec Structs, pydantic models, NamedTuples and Enums; "
            f"{cls.__qualname__} is none of them. {_advice(cls)}"
        )
    if make is _enum:
        if transient:
            raise InvalidArgument(f"transient names fields; {cls.__qualname__} is an Enum, which has no fields.")
        return _enum(cls, members or {})
    return _without_transient(make(cls, frozenset(transient)), cls, transient)


def _maker(cls: Any) -> Callable[..., Kind] | None:
    for is_of_kind, make in (
        (issubclass(cls, Enum), _enum),
        (issubclass(cls, tuple) and hasattr(cls, "_fields"), _named_tuple),
        (hasattr(cls, "__struct_fields__"), _msgspec_struct),
        (hasattr(cls, "model_construct"), _pydantic_model),
        ("__attrs_attrs__" in cls.__dict__, _attrs),
        ("__dataclass_fields__" in cls.__dict__, _dataclass),
    ):
        if is_of_kind:
            return make
    return None


def _advice(cls: type) -> str:
    if any(base.__module__.startswith("pydantic.v1") for base in cls.__mro__):
        return (
            "Models of pydantic.v1 can be registered by register_type(cls, name, lambda model: model.dict(), "
            "cls.parse_obj); or derive it from pydantic.BaseModel of version 2."
        )
    return (
        "Put @event above the decorator, such as @dataclass, which a subclass also needs; or register "
        "the class with register_type(cls, name, encode, decode)."
    )


def _without_transient(kind: Kind, cls: type, transient: Collection[str]) -> Kind:
    """Return the kind without the transient fields, which come back with their defaults."""
    left_out = [name for name in kind.fields if name in transient or attribute_name(cls, name) in transient]
    unknown = set(transient).difference(left_out, (attribute_name(cls, name) for name in left_out))
    if unknown and not cls.__dictoffset__:
        raise InvalidArgument(f"transient names {sorted(unknown)}, and {cls.__qualname__} has no such field.")
    if not left_out:
        return kind
    for name in left_out:
        if name not in kind.defaults and name not in kind.optional:
            raise InvalidArgument(
                f"The transient field {name!r} of {cls.__qualname__} has no default, and an event that is read needs "
                "one: give it a default or a default factory."
            )
    all_fields = kind.fields
    stored = tuple(name for name in all_fields if name not in left_out)
    places = [place for place, name in enumerate(all_fields) if name not in left_out]

    def read(instance: Any) -> Iterable[Any]:
        values = list(kind.read(instance))
        return [values[place] for place in places]

    def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
        return kind.build([all_values(kind, dict(zip(stored, row, strict=True))) for row in rows])

    return kind._replace(fields=stored, read=read, build=build, held=None)


def all_values(kind: Kind, known: dict[str, Any]) -> list[Any]:
    """Return the values of all fields, in order: the known values, and defaults for the other fields.

    Raises:
        LookupError: a field without a default needs a value and has none.
    """
    for name in kind.fields:
        if name not in known and (name in kind.defaults or name not in kind.optional):
            known[name] = kind.defaults[name](known)
    return [known.get(name, UNSET) for name in kind.fields]


def _constant_default(value: Any) -> Default:
    return lambda _: value


def _factory_default(factory: Callable[[], Any]) -> Default:
    return lambda _: factory()


def _dataclass(cls: Any, hidden: Collection[str]) -> Kind:
    fields = dataclasses.fields(cls)
    kind = _of_attributes(cls, tuple(field.name for field in fields), {}, hidden)
    defaults = _field_defaults(kind.fields, fields, dataclasses.MISSING)
    # A pydantic dataclass declares its defaults differently.
    defaults |= _pydantic_defaults(getattr(cls, "__pydantic_fields__", {}))
    return kind._replace(defaults=defaults)


def _field_defaults(names: Sequence[str], fields: Iterable[Any], missing: Any) -> dict[str, Default]:
    """Return the defaults of fields as a dataclass or a Struct declares them."""
    defaults: dict[str, Default] = {}
    for name, field in zip(names, fields, strict=True):
        if field.default is not missing:
            defaults[name] = _constant_default(field.default)
        elif field.default_factory is not missing:
            defaults[name] = _factory_default(field.default_factory)
    return defaults


def _of_attributes(cls: Any, attributes: tuple[str, ...], besides: Mapping[str, Any], hidden: Collection[str]) -> Kind:
    """Return the kind, without defaults, of a class whose instances consist of their attributes."""
    inexact = cls.__getattribute__ is not object.__getattribute__ or any(
        is_descriptor(cls, name) for name in attributes
    )
    beside = attributes_beside(cls, attributes, {*hidden, *besides})
    names, read = plain_names(cls, attributes), attribute_reader(attributes)
    build = restoring_build(cls, attributes, besides)
    held = attributes if not inexact and beside is not None and not slot_names(cls) else None
    return Kind(names, read, build, {}, beside, partial(set_attributes, cls), held=held, inexact=inexact)


def _attrs(cls: Any, hidden: Collection[str]) -> Kind:
    all_attributes = cls.__attrs_attrs__
    attributes = tuple(attribute.name for attribute in all_attributes)
    # With cache_hash=True, the code that attrs generates expects an attribute for the hash.
    code = getattr(cls.__hash__, "__code__", None)
    cached = "_attrs_cached_hash"
    besides = {cached: None} if code is not None and cached in code.co_names + code.co_consts else {}
    kind = _of_attributes(cls, attributes, besides, hidden)
    defaults: dict[str, Default] = {}
    for name, attribute in zip(kind.fields, all_attributes, strict=True):
        factory = getattr(attribute.default, "factory", None)
        if factory is None:
            # attrs marks "no default" with a special value, recognised here by its name.
            if getattr(attribute.default, "name", None) != "NOTHING":
                defaults[name] = _constant_default(attribute.default)
        elif attribute.default.takes_self:
            defaults[name] = partial(_default_from_self, cls, dict(zip(kind.fields, attributes, strict=True)), factory)
        else:
            defaults[name] = _factory_default(factory)
    return kind._replace(defaults=defaults)


def _default_from_self(
    cls: type, attributes: Mapping[str, str], factory: Callable[[Any], Any], known: Mapping[str, Any]
) -> Any:
    """Return a default that the class computes from an instance with the known fields."""
    instance: Any = object.__new__(cls)
    for name, value in known.items():
        if name in attributes:
            _set_field(instance, attributes[name], value)
    return factory(instance)


def _msgspec_struct(cls: Any, hidden: Collection[str]) -> Kind:
    import msgspec  # noqa: PLC0415 - only if the class is a Struct, so that the library is installed

    fields = msgspec.structs.fields(cls)
    attributes = tuple(field.name for field in fields)
    names = plain_names(cls, attributes)
    # Keyword-only fields cannot be passed by position, and are missing here.
    by_position = cls.__match_args__ == attributes
    hooked = hasattr(cls, "__post_init__")

    def make(*values: Any) -> Any:
        # The hook gets copies, because it may change lists and dicts in place.
        given = deepcopy(values) if hooked else values
        instance = cls(*given) if by_position else cls(**dict(zip(attributes, given, strict=True)))
        if hooked:
            for name, value in zip(attributes, values, strict=True):
                msgspec.structs.force_setattr(instance, name, value)
        return instance

    # If the library only sets the fields, everything runs in C.
    build = build_each(make) if hooked or not by_position else lambda rows: list(starmap(cls, rows))
    beside = attributes_beside(cls, attributes, hidden) if cls.__dictoffset__ else None
    defaults = _field_defaults(names, fields, msgspec.NODEFAULT)
    restore = partial(set_attributes, cls)
    return Kind(names, attribute_reader(attributes), build, defaults, beside, restore, inexact=hooked)


def _pydantic_model(cls: Any, hidden: Collection[str]) -> Kind:
    fields = tuple(cls.model_fields)
    # Private attributes are part of equality between models, so they are stored.
    private = tuple(cls.__private_attributes__)
    attributes = (*fields, *private)
    names = plain_names(cls, attributes)
    defaults = _pydantic_defaults(cls.model_fields)
    private_names = names[len(fields) :]
    for name, attribute in zip(private_names, private, strict=True):
        if _has_default(cls.__private_attributes__[attribute]):
            defaults[name] = _pydantic_default(cls.__private_attributes__[attribute])
    allows_extra = cls.model_config.get("extra") == "allow"
    all_fields = frozenset(fields)
    # The attributes in which pydantic keeps a model are not extra state.
    own_attributes = attributes_beside(cls, fields, {*hidden, *_PYDANTIC_SLOTS})

    def beside(instance: Any) -> dict[str, Any]:
        extra = instance.__pydantic_extra__
        given = instance.__pydantic_fields_set__
        if not extra and len(instance.__dict__) == len(fields) and given >= all_fields:
            return {}
        found = own_attributes(instance) if own_attributes is not None else {}
        if extra:
            found[EXTRA_FIELDS] = {name: value for name, value in extra.items() if name not in hidden}
        if not given >= all_fields or ATTRIBUTES in found:
            found[FIELDS_SET] = [name for name in (*fields, *found.get(ATTRIBUTES, ())) if name in given]
        return found

    def restore(instance: Any, beside: Mapping[str, Any], stored: Collection[str]) -> None:
        set_attributes(cls, instance, beside, stored)
        given = all_fields.intersection(stored) | beside.get(ATTRIBUTES, {}).keys()
        if FIELDS_SET in beside:
            given = given.intersection(beside[FIELDS_SET])
        if allows_extra:
            extra = {name: value for name, value in beside.get(EXTRA_FIELDS, {}).items() if name not in all_fields}
            instance.__pydantic_extra__.update(extra)
            given |= extra.keys()
        _set_field(instance, "__pydantic_fields_set__", set(given))

    read, build = _pydantic_reader(fields, private), _pydantic_builder(cls, fields, private)
    return Kind(names, read, build, defaults, beside, restore, optional=frozenset(private_names))


def _pydantic_reader(fields: Sequence[str], private: Sequence[str]) -> Read:
    pick = itemgetter(*fields) if len(fields) > 1 else lambda values: [values[name] for name in fields]

    def read(instance: Any) -> Iterable[Any]:
        # Not with getattr, which warns about deprecated fields.
        try:
            values: Iterable[Any] = pick(instance.__dict__)
        except KeyError as error:
            raise ValueError(f"its field {error} was never set") from None
        if not private:
            return values
        own = instance.__pydantic_private__ or {}
        return [*values, *[own.get(name, UNSET) for name in private]]

    return read


def _pydantic_builder(cls: Any, fields: Sequence[str], private: Sequence[str]) -> Build:
    attributes = (*fields, *private)
    allows_extra = cls.model_config.get("extra") == "allow"
    # The library's method: a class may define another `__setstate__` for unpickling.
    set_state = next(
        vars(base)["__setstate__"]
        for base in cls.__mro__
        if base.__module__.partition(".")[0] == "pydantic" and "__setstate__" in vars(base)
    )

    def make(*values: Any) -> Any:
        stored = dict(zip(attributes, values, strict=True))
        own = {name: stored.pop(name) for name in private}
        instance: Any = object.__new__(cls)
        given = {name: value for name, value in own.items() if value is not UNSET}
        state = {
            "__pydantic_private__": given if private else None,
            "__dict__": stored,
            "__pydantic_fields_set__": set(stored),
            "__pydantic_extra__": {} if allows_extra else None,
        }
        set_state(instance, state)
        return instance

    return build_each(make)


def _has_default(attribute: Any) -> bool:
    return attribute.default_factory is not None or type(attribute.default).__name__ != "PydanticUndefinedType"


def _pydantic_defaults(fields: Mapping[str, Any]) -> dict[str, Default]:
    return {name: _pydantic_default(field) for name, field in fields.items() if not field.is_required()}


def _pydantic_default(field: Any) -> Default:
    factory = field.default_factory
    if factory is None:
        return _factory_default(field.get_default)  # copies a mutable default
    if getattr(field, "default_factory_takes_validated_data", False):
        return lambda known: factory(dict(known))
    return _factory_default(factory)


def _named_tuple(cls: Any, hidden: Collection[str]) -> Kind:
    defaults = {name: _constant_default(value) for name, value in cls._field_defaults.items()}
    beside = attributes_beside(cls, (), hidden) if cls.__dictoffset__ else None

    def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
        return [tuple.__new__(cls, row) for row in rows]

    return Kind(tuple(cls._fields), list, build, defaults, beside, partial(set_attributes, cls))


def _enum(cls: Any, renamed: Mapping[str, str]) -> Kind:
    if not len(cls):
        raise InvalidArgument(f"@event cannot register {cls.__qualname__}: this Enum has no members.")
    # Combinations of a Flag have values but no names. Other Enums keep their names when values change. (The code uses
    # _name_, because a class may give its members another `name`.)
    if issubclass(cls, Flag):
        return Kind(("value",), lambda member: [member.value], build_each(cls), {})
    for old, new in renamed.items():
        if new not in cls.__members__ or old in cls.__members__:
            raise InvalidArgument(
                f"renamed_members maps old names to present ones, and {cls.__qualname__} has "
                + (f"no member {new!r}." if new not in cls.__members__ else f"a member {old!r} still.")
            )

    def member_named(name: Any) -> Any:
        try:
            return cls.__members__[renamed.get(name, name)]
        except (KeyError, TypeError):
            raise ValueError(
                f"the class has no member {short_repr(name)}; if you renamed it, add it to renamed_members"
            ) from None

    def name_of(member: Any) -> list[str]:
        if cls.__members__.get(member._name_) is not member:
            raise ValueError(
                "the class made this member in _missing_, and it has no name; a member is stored by its name: store "
                "its value instead"
            )
        return [member._name_]

    return Kind(("name",), name_of, build_each(member_named), {})
