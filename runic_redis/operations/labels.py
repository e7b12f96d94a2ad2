"""The labels of workflows: their attributes and their parents, as they are in the meta hash.

Each label is a field there, `a:` and the name of an attribute, or `parent`. For each label, the workflow stands in a
sorted set of those that have the same, by the time of its creation.
"""

from collections.abc import Mapping
from typing import NamedTuple

from runic_redis.arguments import check_attributes, check_workflow_id
from runic_redis.keys import WorkflowKeys

ATTRIBUTE = "a:"
PARENT = "parent"


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
    fields = dict(sorted(label_fields(meta).items()))
    parent = fields.pop(PARENT, None)
    return Labels({field.removeprefix(ATTRIBUTE): value for field, value in fields.items()}, parent)


def label_fields(meta: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the fields of a meta hash that are labels."""
    texts = {field.decode(errors="replace"): value for field, value in meta.items()}
    return {field: value.decode(errors="replace") for field, value in texts.items() if is_label(field)}


def is_label(field: str) -> bool:
    """Return whether a field of a meta hash is a label."""
    return field == PARENT or field.startswith(ATTRIBUTE)


def check_label(field: str, value: str) -> None:
    """Check a label, by its field and its value.

    Raises:
        InvalidArgument: no workflow has such a label.
    """
    if field == PARENT:
        check_workflow_id(value)
    else:
        check_attributes({field.removeprefix(ATTRIBUTE): value})


def label_set(keys: WorkflowKeys, field: str, value: str) -> str:
    """Return the key of the set of the workflows with a label, by its field and its value."""
    return keys.children(value) if field == PARENT else keys.attribute(field.removeprefix(ATTRIBUTE), value)


def label_sets(keys: WorkflowKeys, meta: Mapping[bytes, bytes]) -> list[str]:
    """Return the keys of the sets in which a workflow stands by its labels."""
    return [label_set(keys, field, value) for field, value in label_fields(meta).items()]
