"""How each kind of class is taken apart into field values, and rebuilt from them.

A rebuilt object is restored, as by `copy` or `pickle`: its fields are set to what was stored, and nothing of the class
runs, neither validation nor conversion nor a hook after `__init__`. (A msgspec Struct can only be made by its library,
which runs its ``__post_init__``; the stored values are set once more after it.)

Optional libraries are recognised by what they leave on a class; none is imported unless the class uses it.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum, Flag
from functools import cached_property, partial
from inspect import getattr_static
from itertools import starmap
from operator import attrgetter, itemgetter
from types import MemberDescriptorType
from typing import Any

from runic_redis.errors import InvalidArgument, InvalidType, short_repr

__all__ = ["ATTRIBUTES", "EXTRA_FIELDS", "FIELDS_SET", "UNSET", "Build", "Kind", "Read", "complete", "kind_of"]

Read = Callable[[Any], Iterable[Any]]
Build = Callable[[Iterable[Sequence[Any]]], list[Any]]
# A default, made from the values of the fields that are known.
Default = Callable[[Mapping[str, Any]], Any]
# What an instance holds beside its fields, by names that no field has.
Beside = Callable[[Any], dict[str, Any]]

# Stands for a field that has no value: it is left out, and stays without one.
UNSET: Any = object()
# Where pydantic keeps a model.
_PYDANTIC_SLOTS = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
# The names in the data: attributes that are no fields; the fields of a pydantic model that were given; and those that
# the model does not declare.
ATTRIBUTES = "__dict__"
FIELDS_SET = "__pydantic_fields_set__"
EXTRA_FIELDS = "__pydantic_extra__"


@dataclass(frozen=True, slots=True)
class Kind:
    """What the codec needs of a class.

    Attributes:
        fields: the names of its fields in the data, in order.
        read: the values of an instance's fields, in that order.
        build: an instance from each row of values in that order; many at once, because then most of it runs in C. Each
            row has a value for each field. Raises ValueError for a value that no instance has.
        defaults: for fields that have one, what makes the default.
        beside: what an instance holds beside its fields; None for a class whose instances hold nothing else.
        restore: sets on an instance what `beside` gave. It is also passed the names of the fields that were stored.
        held: what the `__dict__` of an instance that holds nothing but its fields has, in this order; None where this
            alone does not tell.
        optional: fields that are left out where they have no value, or where they have a default and their value
            cannot be encoded. They come back as their default, or without a value.
        inexact: whether an instance may come back as another, so that each has to be tried.
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
        """Whether a field is left out where its value cannot be encoded."""
        return name in self.optional and name in self.defaults


def kind_of(cls: Any, *, transient: Collection[str] = (), members: Mapping[str, str] | None = None) -> Kind:
    """The kind of a class to be registered.

    Args:
        cls: the class.
        transient: the fields and attributes that are not stored.
        members: of an Enum, the present name of each renamed member by its old one.

    Raises:
        InvalidType: it is not a class, or of no kind that can be registered.
        InvalidArgument: `transient` or `members` does not fit it.
    """
    if not isinstance(cls, type):
        raise InvalidType(f"@event registers classes, not {short_repr(cls)}.")
    if members is not None and issubclass(cls, Flag):
        raise InvalidArgument(
            f"renamed_members is not needed for {cls.__qualname__}: a Flag is stored by its value, and its members may "
            "be renamed."
        )
    if members is not None and not issubclass(cls, Enum):
        raise InvalidArgument(f"renamed_members is for an Enum, and {cls.__qualname__} is none.")
    make = _maker(cls)
    if make is None:
        raise InvalidType(
            "@event registers dataclasses, attrs classes, msgspec Structs, pydantic models, NamedTuples and Enums; "
            f"{cls.__qualname__} is none of them. {_advice(cls)}"
        )
    if make is _enum:
        if transient:
            raise InvalidArgument(f"transient names fields, and {cls.__qualname__} is an Enum, which has none.")
        return _enum(cls, members or {})
    return _without(make(cls, frozenset(transient)), cls, transient)


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
        "Put @event above the decorator that makes it one, such as @dataclass, which a subclass needs too; or register "
        "the class with register_type(cls, name, encode, decode)."
    )


def _without(kind: Kind, cls: type, transient: Collection[str]) -> Kind:
    """The kind without the fields that are not stored: they come back as their defaults."""
    left_out = [name for name in kind.fields if name in transient or _attribute_name(cls, name) in transient]
    unknown = set(transient).difference(left_out, (_attribute_name(cls, name) for name in left_out))
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
        return kind.build([complete(kind, dict(zip(stored, row, strict=True))) for row in rows])

    return dataclasses.replace(kind, fields=stored, read=read, build=build, held=None)


def complete(kind: Kind, known: dict[str, Any]) -> list[Any]:
    """The values of all fields, in order, from those that are known; the others become their defaults.

    Raises:
        LookupError: a field is not known, has no default and needs a value.
    """
    for name in kind.fields:
        if name not in known and (name in kind.defaults or name not in kind.optional):
            known[name] = kind.defaults[name](known)
    return [known.get(name, UNSET) for name in kind.fields]


def _reader(attributes: tuple[str, ...]) -> Read:
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda instance: [getattr(instance, name) for name in attributes]


def _constant(value: Any) -> Default:
    return lambda _: value


def _made(factory: Callable[[], Any]) -> Default:
    return lambda _: factory()


def _each(make: Callable[..., Any]) -> Build:
    # Not by map or starmap: a StopIteration out of the class would end those early, and events would be missing.
    return lambda rows: [make(*row) for row in rows]


def _plain_name(cls: type, attribute: str) -> str:
    """An attribute's name in the data: a private one, ``__token``, without the name of its class."""
    for owner in cls.__mro__:
        plain = _own_plain_name(owner, attribute)
        if plain != attribute:
            return plain
    return attribute


def _own_plain_name(owner: type, attribute: str) -> str:
    """The same, only for an attribute that is private to this class and not to a base of it."""
    prefix = f"_{owner.__name__.lstrip('_')}__"
    if attribute.startswith(prefix) and not attribute.endswith("__") and len(attribute) > len(prefix):
        return attribute[len(prefix) - 2 :]
    return attribute


def _plain_names(cls: type, attributes: Sequence[str]) -> tuple[str, ...]:
    names = [_plain_name(cls, attribute) for attribute in attributes]
    # Where a class and its base have a private field of one name each, both keep the names of their classes.
    return tuple(
        attribute if names.count(name) > 1 else name for name, attribute in zip(names, attributes, strict=True)
    )


def _attribute_name(cls: type, name: str) -> str:
    """An attribute of a class by its name in the data."""
    if name.startswith("__") and not name.endswith("__"):
        return f"_{cls.__name__.lstrip('_')}{name}"
    return name


def _attributes_beside(cls: type, attributes: Sequence[str], hidden: Collection[str]) -> Beside | None:
    """What gives the attributes of an instance that are no fields; None where there can be none.

    Args:
        cls: the class.
        attributes: the fields' attributes.
        hidden: attributes that are not stored, under either of their names.
    """
    # What typing leaves on an instance of a generic class is no part of its state.
    known = {"__orig_class__", *attributes, *hidden, *(_attribute_name(cls, name) for name in hidden)}
    # A cached property is worked out again when it is asked for.
    known |= _cached_properties(cls)
    slots = [name for name in _slots(cls) if name not in known]
    has_dict = cls.__dictoffset__ != 0
    if not slots and not has_dict:
        return None

    def beside(instance: Any) -> dict[str, Any]:
        attributes = instance.__dict__ if has_dict else {}
        if not slots and known.issuperset(attributes):
            return {}
        found = {_own_plain_name(cls, name): value for name, value in attributes.items() if name not in known}
        found |= {_own_plain_name(cls, name): getattr(instance, name) for name in slots if hasattr(instance, name)}
        return {ATTRIBUTES: found} if found else {}

    return beside


def _slots(cls: type) -> list[str]:
    return [name for owner in cls.__mro__ for name, value in vars(owner).items() if type(value) is MemberDescriptorType]


def _cached_properties(cls: type) -> set[str]:
    found = set()
    for owner in cls.__mro__:
        found |= {name for name, value in vars(owner).items() if type(value) is cached_property}
        # In a class with slots, attrs makes a slot of each, and passes their names to a function that it generates.
        code = getattr(vars(owner).get("__getattr__"), "__code__", None)
        if code is not None and "cached_properties" in code.co_varnames[: code.co_argcount]:
            found |= vars(owner)["__getattr__"].__defaults__[0].keys()
    return found


def _is_descriptor(cls: type, name: str) -> bool:
    """Whether setting an attribute runs code of the class, such as a property's."""
    found = getattr_static(cls, name, None)
    return type(found) is not MemberDescriptorType and hasattr(type(found), "__set__")


def _set_attributes(cls: type, instance: Any, beside: Mapping[str, Any], _: Collection[str]) -> None:
    attributes = beside.get(ATTRIBUTES, {})
    if type(attributes) is not dict:
        raise ValueError(f"its attributes are a {type(attributes).__name__}, not a map")
    for plain_name, value in attributes.items():
        name = _attribute_name(cls, plain_name)
        if type(getattr_static(cls, name, None)) is MemberDescriptorType:
            _set(instance, name, value)
        elif cls.__dictoffset__:
            instance.__dict__[name] = value


_set = object.__setattr__


def _restorer(cls: type, attributes: Sequence[str], besides: Mapping[str, Any]) -> Build:
    """Build by setting the fields, and what else an instance must have, on a blank instance."""
    blank = object.__new__
    try:
        blank(cls)
    except TypeError:
        raise InvalidType(
            f"@event cannot register {cls.__qualname__}: it derives from a built-in type that keeps more than fields, "
            "such as an exception or a list, or it is abstract. Give the event a class of its own, or register it "
            "with register_type(cls, name, encode, decode)."
        ) from None
    descriptors = [name for name in attributes if _is_descriptor(cls, name)]
    twin = None if besides or descriptors else _twin(cls, attributes)
    if twin is not None:

        def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
            instances = list(starmap(twin, rows))
            for instance in instances:
                instance.__class__ = cls
            return instances

        return build
    # What a property without a setter shows is kept in other attributes.
    computed = {name for name in descriptors if _cannot_be_set(getattr_static(cls, name))}

    def restore(*values: Any) -> Any:
        instance: Any = blank(cls)
        for name, value in zip(attributes, values, strict=True):
            if name not in computed:
                _set(instance, name, value)
        for name, value in besides.items():
            _set(instance, name, value)
        return instance

    return _each(restore)


def _cannot_be_set(descriptor: Any) -> bool:
    return isinstance(descriptor, property) and descriptor.fset is None


def _twin(cls: type, fields: Sequence[str]) -> Any:
    """A class that keeps the same fields in the same places, and whose `__init__` sets them and does nothing else.

    An instance of it becomes one of `cls` by its `__class__`: half the time of setting field after field by
    `object.__setattr__`. None where there is no such class, as for one that inherits its slots.
    """
    slots = {"__slots__": cls.__dict__["__slots__"]} if "__slots__" in cls.__dict__ else {}
    try:
        twin: Any = dataclasses.make_dataclass(cls.__name__, fields, namespace=slots, repr=False, eq=False)
        twin(*fields).__class__ = cls
    except (TypeError, AttributeError):
        return None
    return twin


def _dataclass(cls: Any, hidden: Collection[str]) -> Kind:
    fields = dataclasses.fields(cls)
    kind = _of_attributes(cls, tuple(field.name for field in fields), {}, hidden)
    defaults: dict[str, Default] = {}
    for name, field in zip(kind.fields, fields, strict=True):
        if field.default is not dataclasses.MISSING:
            defaults[name] = _constant(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            defaults[name] = _made(field.default_factory)
    # A pydantic dataclass has its own idea of a default.
    defaults |= _pydantic_defaults(getattr(cls, "__pydantic_fields__", {}))
    return dataclasses.replace(kind, defaults=defaults)


def _of_attributes(cls: Any, attributes: tuple[str, ...], besides: Mapping[str, Any], hidden: Collection[str]) -> Kind:
    """The kind of a class whose instances are their attributes; without defaults."""
    inexact = cls.__getattribute__ is not object.__getattribute__ or any(
        _is_descriptor(cls, name) for name in attributes
    )
    beside = _attributes_beside(cls, attributes, {*hidden, *besides})
    is_dict_only = not inexact and beside is not None and not _slots(cls)
    return Kind(
        _plain_names(cls, attributes),
        _reader(attributes),
        _restorer(cls, attributes, besides),
        {},
        beside,
        partial(_set_attributes, cls),
        held=attributes if is_dict_only else None,
        inexact=inexact,
    )


def _attrs(cls: Any, hidden: Collection[str]) -> Kind:
    all_attributes = cls.__attrs_attrs__
    attributes = tuple(attribute.name for attribute in all_attributes)
    # With cache_hash=True, what attrs generates expects a place for the hash.
    code = getattr(cls.__hash__, "__code__", None)
    cached = "_attrs_cached_hash"
    besides = {cached: None} if code is not None and cached in code.co_names + code.co_consts else {}
    kind = _of_attributes(cls, attributes, besides, hidden)
    defaults: dict[str, Default] = {}
    for name, attribute in zip(kind.fields, all_attributes, strict=True):
        factory = getattr(attribute.default, "factory", None)
        if factory is None:
            # attrs marks "no default" by a value of its own, which has a name and no other use.
            if getattr(attribute.default, "name", None) != "NOTHING":
                defaults[name] = _constant(attribute.default)
        elif attribute.default.takes_self:
            defaults[name] = partial(_made_from_self, cls, dict(zip(kind.fields, attributes, strict=True)), factory)
        else:
            defaults[name] = _made(factory)
    return dataclasses.replace(kind, defaults=defaults)


def _made_from_self(
    cls: type, attributes: Mapping[str, str], factory: Callable[[Any], Any], known: Mapping[str, Any]
) -> Any:
    """A default that the class computes from an instance: one with the fields that are known so far."""
    instance: Any = object.__new__(cls)
    for name, value in known.items():
        if name in attributes:
            _set(instance, attributes[name], value)
    return factory(instance)


def _msgspec_struct(cls: Any, hidden: Collection[str]) -> Kind:
    import msgspec  # noqa: PLC0415 - the class is a Struct, so the library is there; nobody else pays for it

    fields = msgspec.structs.fields(cls)
    attributes = tuple(field.name for field in fields)
    names = _plain_names(cls, attributes)
    defaults: dict[str, Default] = {}
    for name, field in zip(names, fields, strict=True):
        if field.default is not msgspec.NODEFAULT:
            defaults[name] = _constant(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            defaults[name] = _made(field.default_factory)

    # Keyword-only fields cannot be passed by position, and are not among these.
    by_position = cls.__match_args__ == attributes
    hooked = hasattr(cls, "__post_init__")

    def make(*values: Any) -> Any:
        # The hook is given copies: it may change lists and dicts in place.
        given = deepcopy(values) if hooked else values
        instance = cls(*given) if by_position else cls(**dict(zip(attributes, given, strict=True)))
        if hooked:
            for name, value in zip(attributes, values, strict=True):
                msgspec.structs.force_setattr(instance, name, value)
        return instance

    # Where the library has only to set the fields, all of it runs in C.
    build = _each(make) if hooked or not by_position else lambda rows: list(starmap(cls, rows))
    beside = _attributes_beside(cls, attributes, hidden) if cls.__dictoffset__ else None
    return Kind(names, _reader(attributes), build, defaults, beside, partial(_set_attributes, cls), inexact=hooked)


def _pydantic_model(cls: Any, hidden: Collection[str]) -> Kind:
    fields = tuple(cls.model_fields)
    # Part of what makes two models equal, and so of what is kept.
    private = tuple(cls.__private_attributes__)
    attributes = (*fields, *private)
    names = _plain_names(cls, attributes)
    defaults = _pydantic_defaults(cls.model_fields)
    for name, attribute in zip(names[len(fields) :], private, strict=True):
        if _has_default(cls.__private_attributes__[attribute]):
            defaults[name] = _pydantic_default(cls.__private_attributes__[attribute])
    allows_extra = cls.model_config.get("extra") == "allow"
    all_fields = frozenset(fields)
    # What a model keeps itself in is no part of its state.
    attributes_beside = _attributes_beside(cls, fields, {*hidden, *_PYDANTIC_SLOTS})

    def beside(instance: Any) -> dict[str, Any]:
        extra = instance.__pydantic_extra__
        given = instance.__pydantic_fields_set__
        if not extra and len(instance.__dict__) == len(fields) and given >= all_fields:
            return {}
        found = attributes_beside(instance) if attributes_beside is not None else {}
        if extra:
            found[EXTRA_FIELDS] = {name: value for name, value in extra.items() if name not in hidden}
        if not given >= all_fields or ATTRIBUTES in found:
            found[FIELDS_SET] = [name for name in (*fields, *found.get(ATTRIBUTES, ())) if name in given]
        return found

    def restore(instance: Any, beside: Mapping[str, Any], stored: Collection[str]) -> None:
        _set_attributes(cls, instance, beside, stored)
        given = all_fields.intersection(stored) | beside.get(ATTRIBUTES, {}).keys()
        if FIELDS_SET in beside:
            given = given.intersection(beside[FIELDS_SET])
        if allows_extra:
            extra = {name: value for name, value in beside.get(EXTRA_FIELDS, {}).items() if name not in all_fields}
            instance.__pydantic_extra__.update(extra)
            given |= extra.keys()
        _set(instance, "__pydantic_fields_set__", set(given))

    return Kind(
        names,
        _pydantic_reader(fields, private),
        _pydantic_builder(cls, fields, private),
        defaults,
        beside,
        restore,
        optional=frozenset(names[len(fields) :]),
    )


def _pydantic_reader(fields: Sequence[str], private: Sequence[str]) -> Read:
    pick = itemgetter(*fields) if len(fields) > 1 else lambda values: [values[name] for name in fields]

    def read(instance: Any) -> Iterable[Any]:
        # Not by getattr, which warns of a field that is deprecated.
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
    # The library's own: what a class does when it is unpickled is its own affair.
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
        set_state(
            instance,
            {
                "__pydantic_private__": given if private else None,
                "__dict__": stored,
                "__pydantic_fields_set__": set(stored),
                "__pydantic_extra__": {} if allows_extra else None,
            },
        )
        return instance

    return _each(make)


def _has_default(attribute: Any) -> bool:
    return attribute.default_factory is not None or type(attribute.default).__name__ != "PydanticUndefinedType"


def _pydantic_defaults(fields: Mapping[str, Any]) -> dict[str, Default]:
    return {name: _pydantic_default(field) for name, field in fields.items() if not field.is_required()}


def _pydantic_default(field: Any) -> Default:
    factory = field.default_factory
    if factory is None:
        return _made(field.get_default)  # which copies a default that could be changed
    if getattr(field, "default_factory_takes_validated_data", False):
        return lambda known: factory(dict(known))
    return _made(factory)


def _named_tuple(cls: Any, hidden: Collection[str]) -> Kind:
    defaults = {name: _constant(value) for name, value in cls._field_defaults.items()}
    names = tuple(cls._fields)
    beside = _attributes_beside(cls, (), hidden) if cls.__dictoffset__ else None
    return Kind(
        names,
        list,
        lambda rows: [tuple.__new__(cls, row) for row in rows],
        defaults,
        beside,
        partial(_set_attributes, cls),
    )


def _enum(cls: Any, renamed: Mapping[str, str]) -> Kind:
    if not len(cls):
        raise InvalidArgument(f"@event cannot register {cls.__qualname__}: it is an Enum without members.")
    # A Flag's combinations have a value each but no name of their own; an Enum's names outlive its values. (By
    # _name_, for a class may give its members another name.)
    if issubclass(cls, Flag):
        return Kind(("value",), lambda member: [member.value], _each(cls), {})
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
                f"the class has no member {short_repr(name)}; if it was renamed, name it in renamed_members"
            ) from None

    def name_of(member: Any) -> list[str]:
        if cls.__members__.get(member._name_) is not member:
            raise ValueError(
                "the class made this member, by _missing_, of a value that it has no member for, and a member is "
                "stored by its name: store its value instead"
            )
        return [member._name_]

    return Kind(("name",), name_of, _each(member_named), {})
