"""Read the attributes of instances, and restore instances from attributes.

A restored instance is made as `copy` or `pickle` make it: no code of its class runs.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from inspect import getattr_static
from itertools import starmap
from keyword import iskeyword
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any

from runic_redis.errors import InvalidType

Read = Callable[[Any], Iterable[Any]]
# Returns the values of each field of many instances.
ReadColumns = Callable[[Sequence[Any]], Sequence[Sequence[Any]]]
Build = Callable[[Iterable[Sequence[Any]]], list[Any]]
# Returns the data of an instance that is not in its fields, by names that no field has.
Beside = Callable[[Any], dict[str, Any]]
# The name in the data of the attributes that are not fields.
ATTRIBUTES = "__dict__"
_set_field = object.__setattr__


def attribute_reader(attributes: tuple[str, ...]) -> Read:
    """Return a function that reads the attributes of an instance, in order."""
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda instance: [getattr(instance, name) for name in attributes]


def column_reader(attributes: tuple[str, ...]) -> ReadColumns:
    """Return a function that reads each attribute of many instances."""
    if not all(name.isidentifier() and name.isascii() and not iskeyword(name) for name in attributes):
        return lambda instances: [list(map(attrgetter(name), instances)) for name in attributes]
    # As code, because Python reads a named attribute in half the time that attrgetter takes.
    columns = ", ".join(f"[instance.{name} for instance in instances]" for name in attributes)
    reader: ReadColumns = eval(f"lambda instances: [{columns}]")  # noqa: S307 - of the names of a class's attributes
    return reader


def build_each(make: Callable[..., Any]) -> Build:
    """Return a function that makes an instance from each row of values."""
    # Not with map or starmap: if the class raises StopIteration, these would end early and lose events.
    return lambda rows: [make(*row) for row in rows]


def _plain_name(cls: type, attribute: str) -> str:
    """Return an attribute's name in the data: a private attribute, ``__token``, loses the name of its class."""
    for owner in cls.__mro__:
        plain = _own_plain_name(owner, attribute)
        if plain != attribute:
            return plain
    return attribute


def _own_plain_name(owner: type, attribute: str) -> str:
    """Return the same for an attribute that is private to this class, not to its bases."""
    prefix = f"_{owner.__name__.lstrip('_')}__"
    if attribute.startswith(prefix) and not attribute.endswith("__") and len(attribute) > len(prefix):
        return attribute[len(prefix) - 2 :]
    return attribute


def plain_names(cls: type, attributes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of attributes in the data."""
    names = [_plain_name(cls, attribute) for attribute in attributes]
    # If a class and its base have private fields of the same name, both keep the names of their classes.
    return tuple(
        attribute if names.count(name) > 1 else name for name, attribute in zip(names, attributes, strict=True)
    )


def attribute_name(cls: type, name: str) -> str:
    """Return the attribute of a class that has this name in the data."""
    if name.startswith("__") and not name.endswith("__"):
        return f"_{cls.__name__.lstrip('_')}{name}"
    return name


def attributes_beside(cls: type, attributes: Sequence[str], hidden: Collection[str]) -> Beside | None:
    """Return a function that reads the attributes of an instance that are not fields; None if there can be none.

    Args:
        cls: the class.
        attributes: the attributes of the fields.
        hidden: the attributes that are not stored, under either of their names.
    """
    # typing sets this attribute on instances of generic classes. It is not part of their state.
    known = {"__orig_class__", *attributes, *hidden, *(attribute_name(cls, name) for name in hidden)}
    # A cached property computes its value again.
    known |= _cached_properties(cls)
    slots = [name for name in slot_names(cls) if name not in known]
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


def slot_names(cls: type) -> list[str]:
    """Return the names of the slots of a class and its bases."""
    return [name for owner in cls.__mro__ for name, value in vars(owner).items() if type(value) is MemberDescriptorType]


def _cached_properties(cls: type) -> set[str]:
    found = set()
    for owner in cls.__mro__:
        found |= {name for name, value in vars(owner).items() if type(value) is cached_property}
        # In a class with slots, attrs makes each of them a slot and passes their names to a function that it generates.
        code = getattr(vars(owner).get("__getattr__"), "__code__", None)
        if code is not None and "cached_properties" in code.co_varnames[: code.co_argcount]:
            found |= vars(owner)["__getattr__"].__defaults__[0].keys()
    return found


def is_descriptor(cls: type, name: str) -> bool:
    """Return whether setting an attribute runs code of the class, such as a property's."""
    found = getattr_static(cls, name, None)
    return type(found) is not MemberDescriptorType and hasattr(type(found), "__set__")


def set_attributes(cls: type, instance: Any, beside: Mapping[str, Any], _: Collection[str]) -> None:
    """Set the attributes of an instance that are not fields."""
    attributes = beside.get(ATTRIBUTES, {})
    if type(attributes) is not dict:
        raise ValueError(f"its attributes are a {type(attributes).__name__}, not a map")
    for plain_name, value in attributes.items():
        name = attribute_name(cls, plain_name)
        if type(getattr_static(cls, name, None)) is MemberDescriptorType:
            _set_field(instance, name, value)
        elif cls.__dictoffset__:
            instance.__dict__[name] = value


def restoring_build(cls: type, attributes: Sequence[str], besides: Mapping[str, Any]) -> Build:
    """Return a function that sets the fields, and the other values that an instance needs, on a blank instance."""
    blank = object.__new__
    try:
        blank(cls)
    except TypeError:
        raise InvalidType(
            f"@event cannot register {cls.__qualname__}: it derives from a built-in type that keeps more than fields, "
            "such as an exception or a list, or it is abstract. Use another class for the event, or register it "
            "with register_type(cls, name, encode, decode)."
        ) from None
    descriptors = [name for name in attributes if is_descriptor(cls, name)]
    twin = None if besides or descriptors else _twin(cls, attributes)
    if twin is not None:

        def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
            instances = list(starmap(twin, rows))
            for instance in instances:
                instance.__class__ = cls
            return instances

        return build
    # A property without a setter takes its value from other attributes.
    found = {name: getattr_static(cls, name) for name in descriptors}
    computed = {name for name, value in found.items() if isinstance(value, property) and value.fset is None}

    def restore(*values: Any) -> Any:
        instance: Any = blank(cls)
        for name, value in zip(attributes, values, strict=True):
            if name not in computed:
                _set_field(instance, name, value)
        for name, value in besides.items():
            _set_field(instance, name, value)
        return instance

    return build_each(restore)


def _twin(cls: type, fields: Sequence[str]) -> Any:
    """Return a class with the same fields in the same places, whose `__init__` only sets them; None if there is none.

    Setting the `__class__` of an instance makes it an instance of `cls`. This takes half the time of setting each field
    with `object.__setattr__`. A class that inherits its slots, for example, has no such twin.
    """
    slots = {"__slots__": cls.__dict__["__slots__"]} if "__slots__" in cls.__dict__ else {}
    try:
        twin: Any = dataclasses.make_dataclass(cls.__name__, fields, namespace=slots, repr=False, eq=False)
        twin(*fields).__class__ = cls
    except (TypeError, AttributeError):
        return None
    return twin
