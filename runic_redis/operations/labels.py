"""The labels of workflows: their attributes and their parents, as they are in the meta hash.

Each label is a field there, `a:` and the name of an attribute, or `parent`. For each label, the workflow stands in a
sorted set of those that have the same, by the time of its creation.
"""

from collections.abc import Mapping
from typing import NamedTuple

from runic_redis.keys import WorkflowKeys

_ATTRIBUTE = b"a:"
_PARENT = b"parent"


class Labels(NamedTuple):
    """The labels of a workflow.

    Attributes:
        attributes: its attributes.
        parent: the id of its parent, or None.
    """

    attributes: dict[str, str]
    parent: str | None


def labels_of(meta: Mapping[bytes, bytes]) -> Labels:
    """Return the labels in a meta hash."""
    named = {field[len(_ATTRIBUTE) :]: value for field, value in meta.items() if field.startswith(_ATTRIBUTE)}
    attributes = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in named.items()}
    parent = meta.get(_PARENT)
    return Labels(dict(sorted(attributes.items())), None if parent is None else parent.decode(errors="replace"))


def label_sets(keys: WorkflowKeys, meta: Mapping[bytes, bytes]) -> list[str]:
    """Return the keys of the sets in which a workflow stands by its labels."""
    labels = labels_of(meta)
    sets = [keys.attribute(name, value) for name, value in labels.attributes.items()]
    return sets if labels.parent is None else [*sets, keys.children(labels.parent)]
