"""Positions in the feed of a namespace: how far a reader has read in each partition."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from runic_redis.arguments import MAX_CURSOR
from runic_redis.errors import InvalidArgument, InvalidType, short_repr

_PLACE = re.compile(r"(\d{1,16})(?:-(\d{1,16}))?(?:~(\d{1,16})~([^,\s]*))?", re.ASCII)


class Place(NamedTuple):
    """How far a reader has read in one partition.

    Attributes:
        position: the position of the last commit that was read.
        ms: the time of its entry, in Unix milliseconds: with it, a reader notices that a server has lost commits and
            stored others at their positions. 0 if it is not known.
        rebuilding: None; or, before a rebuild of the partition is complete, how far that is: the cursor up to which
            the last workflow was read, and that workflow. Workflows are read in the order of their ids. `position` is
            where the feed goes on after it.
    """

    position: int = 0
    ms: int = 0
    rebuilding: tuple[int, str] | None = None

    @property
    def entry_id(self) -> str:
        """The ID of the last entry that was read."""
        return f"{self.position}-{self.ms}"

    def __str__(self) -> str:
        text = self.entry_id if self.ms else str(self.position)
        if self.rebuilding is not None:
            cursor, workflow_id = self.rebuilding
            text += f"~{cursor}~{quote(workflow_id, safe='')}"
        return text

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Return the place that a text stands for.

        Raises:
            InvalidArgument: it is no place.
        """
        match = _PLACE.fullmatch(text)
        if match is None or int(match[1]) > MAX_CURSOR:
            raise InvalidArgument(f"{short_repr(text)} is not a position in a feed, such as '42-1764279000123'.")
        rebuilding = None if match[3] is None else (int(match[3]), unquote(match[4]))
        return cls(int(match[1]), int(match[2] or 0), rebuilding)


@dataclass(frozen=True, slots=True, repr=False)
class Positions:
    """How far a reader has read in the feed: a place for each partition. Immutable.

    Store it as text with `str`, or as JSON with `to_json`, together with what you made of the commits, and pass it as
    ``after=`` to go on. With one partition, the plain number ``int(positions)`` works, too; the text also lets a reader
    notice that a server has lost commits.

    Attributes:
        places: the place in each partition, by the partition's number.
    """

    places: tuple[Place, ...]

    @classmethod
    def start(cls, partitions: int) -> Self:
        """Return the positions before the first commit."""
        return cls((Place(),) * partitions)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the positions that a text from `str` stands for.

        Raises:
            InvalidArgument: the text is not one of positions.
        """
        if not isinstance(text, str):
            raise InvalidType(f"The text of positions is a str, not a {type(text).__qualname__}.")
        return cls(tuple(map(Place.parse, text.split(","))))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the positions that a value from `to_json` stands for.

        Raises:
            InvalidArgument: the value is not one of positions.
        """
        if not isinstance(value, list | tuple) or not value or not all(isinstance(place, str) for place in value):
            raise InvalidArgument(f"The JSON form of positions is a list of texts, not {short_repr(value)}.")
        return cls(tuple(map(Place.parse, value)))

    def to_json(self) -> list[str]:
        """Return the positions as a list of texts, for `json.dumps`."""
        return list(map(str, self.places))

    def __str__(self) -> str:
        return ",".join(map(str, self.places))

    def __repr__(self) -> str:
        return f"Positions.parse({str(self)!r})"

    def __int__(self) -> int:
        if len(self.places) != 1:
            raise InvalidArgument(
                f"These positions are of {len(self.places)} partitions, and no single number. Use str(positions)."
            )
        return self.places[0].position

    def __len__(self) -> int:
        return len(self.places)


def check_positions(value: Any, partitions: int, name: str) -> Positions:
    """Return positions in a namespace: from `Positions`, or from a number if it has one partition; 0 always works.

    Raises:
        InvalidArgument: they are not of this namespace.
    """
    if isinstance(value, Positions):
        if len(value) != partitions:
            raise InvalidArgument(
                f"{name} is of {len(value)} partitions, and the namespace has {partitions}: it is from another one. "
                "Nothing was sent."
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(
            f"{name} is Positions, or a number if the namespace has one partition, not {short_repr(value)}; nothing "
            "was sent. Positions.parse reads a text."
        )
    if not 0 <= value <= MAX_CURSOR or (value and partitions > 1):
        raise InvalidArgument(
            f"{name} is {value}, and the namespace has {partitions} partitions; nothing was sent. Pass 0 for the "
            "beginning, or the positions of a commit."
        )
    return Positions((Place(value),) * partitions)
