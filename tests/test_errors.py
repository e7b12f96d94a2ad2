"""The docstring of the errors draws their hierarchy correctly, and each error states a cause and a remedy."""

import inspect
from collections.abc import Iterator

from runic_redis import errors
from runic_redis.errors import StoreError


def drawn(kind: type[StoreError], indent: str = "    ") -> Iterator[str]:
    """Yield the lines below a class in the drawing."""
    below = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    for number, one in enumerate(below, 1):
        builtin = next((f" ({base.__name__})" for base in one.__bases__ if base.__module__ == "builtins"), "")
        yield f"{indent}{'└' if number == len(below) else '├'}── {one.__name__}{builtin}"
        yield from drawn(one, indent + ("    " if number == len(below) else "│   "))


def test_the_drawing_shows_every_error_with_its_bases() -> None:
    lines = (errors.__doc__ or "").splitlines()
    drawing = list(drawn(StoreError))
    assert lines[lines.index("    StoreError") + 1 :][: len(drawing) + 1] == [*drawing, ""]


def test_every_error_states_a_cause_and_a_remedy() -> None:
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, StoreError) and kind is not StoreError:
            paragraphs = (kind.__doc__ or "").split("\n\n")
            assert len(paragraphs) > 1, name
            assert not paragraphs[1].strip().startswith("Attributes:"), name
