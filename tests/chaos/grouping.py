"""Clients that append groups of commits by `append_all`, and the judge of the groups.

The faults are those of another kind.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from runic_redis import Append, CursorConflict, DurabilityError, GroupRejected, RedisStore, StoreError, StoreUnavailable
from tests.chaos.clients import Client, Crew
from tests.chaos.faces import open_stores
from tests.chaos.history import Verdict
from tests.chaos.rig import NAMESPACE, PARTITIONS, Kind, Rig

__all__ = ["Group", "Part", "groups", "judge_groups"]

_PARTS = 6
_OF_EACH = 10
_IDS = [[f"{{{part}}}-{number}" for number in range(_OF_EACH)] for part in range(_PARTS)]
_SIZES = (1, 1, 1, 2, 3)


@dataclass
class Group:
    """A group that a client asked for.

    Attributes:
        name: identifies the group in the test.
        sizes: how many events each of its workflows gets.
        outcome: "acknowledged"; "refused" if the error says that nothing was stored; or "unknown".
        cursors: the acknowledged cursors.
    """

    name: str
    sizes: Mapping[str, int]
    outcome: Literal["acknowledged", "refused", "unknown"] = "unknown"
    cursors: dict[str, int] = field(default_factory=dict)


class Part(NamedTuple):
    """A commit of a group, as it is stored: the group, how many events it has, and its last cursor."""

    name: str
    size: int
    cursor: int


def judge_groups(asked: Sequence[Group], stored: Mapping[str, Sequence[Part]]) -> Verdict:
    """Compare the stored commits of each workflow with the groups that clients asked for."""
    verdict = Verdict()
    there: dict[str, dict[str, Part]] = defaultdict(dict)
    for workflow_id, parts in stored.items():
        for part in parts:
            verdict.doubled += workflow_id in there[part.name]
            there[part.name][workflow_id] = part
    for group in asked:
        found = there.pop(group.name, {})
        verdict.appends += len(group.sizes)
        if group.outcome == "acknowledged":
            verdict.acknowledged += len(group.sizes)
            verdict.lost += len(group.sizes.keys() - found.keys())
            if group.cursors != {workflow_id: part.cursor for workflow_id, part in found.items()}:
                verdict.wrong.append(f"{group} is at other cursors: {found}")
        if group.outcome == "refused" and found:
            verdict.wrong.append(f"{group} was rejected, and stored: {found}")
        if found and {workflow_id: part.size for workflow_id, part in found.items()} != group.sizes:
            verdict.torn += 1
            verdict.seen.append(f"of {group} only these are stored: {found}")
    verdict.wrong += [f"{name} is stored, and nobody asked for it" for name in there]
    return verdict


class _Client(Client):
    """A client that appends groups."""

    def __init__(self, crew: "_Crew", store: Any, seed: str) -> None:
        super().__init__(crew, store, seed)
        self._one_part = crew.one_part
        self._groups = crew.groups

    def step(self) -> bool:
        """Append a group."""
        source = self._random
        ids = source.choice(_IDS) if self._one_part else list(itertools.chain(*_IDS))
        chosen = source.sample(ids, source.randint(2, _OF_EACH))
        group = Group(next(self._names), {workflow_id: source.choice(_SIZES) for workflow_id in chosen})
        self._groups.append(group)
        expects, has_ids = source.random() < 0.3, source.random() < 0.5
        items = [
            Append(
                workflow_id,
                [{"group": group.name}] * size,
                expected_cursor=self._cursors.get(workflow_id) if expects else None,
                commit_id=group.name if has_ids else None,
            )
            for workflow_id, size in group.sizes.items()
        ]
        while not self._append(group, items) and has_ids:
            pass  # with commit ids, the outcome becomes certain
        return True

    def _append(self, group: Group, items: list[Append]) -> bool:
        """Append a group. Return whether its outcome is certain."""
        try:
            cursors = self._store.append_all(items)
        except GroupRejected as error:
            if isinstance(error.__cause__, CursorConflict):
                group.outcome = "refused"
                self._cursors[error.workflow_id] = error.__cause__.actual
            else:
                self._note(error)
            return True
        except (DurabilityError, StoreUnavailable) as error:
            self._note(error)
            return False
        except BaseException as error:  # clients must only see errors of class StoreError
            self._note(error)
            raise
        group.outcome = "acknowledged"
        group.cursors = dict(zip(group.sizes, cursors, strict=True))
        self._cursors |= group.cursors
        self.acknowledged += 1
        self._crew.note(time.monotonic())
        return True

    def _note(self, error: BaseException) -> None:
        if not (isinstance(error, StoreError) and self._crew.expects(error)):
            self.errors.append(f"append_all: {type(error).__name__}: {error}")


class _Crew(Crew):
    """Clients that append groups."""

    def __init__(self, rig: Rig, seed: str, *, one_part: bool) -> None:
        self.one_part = one_part
        self.groups: list[Group] = []
        self._rig = rig
        self._stack = ExitStack()
        stores = open_stores(rig, self._stack, Random(seed))
        super().__init__(stores, seed, rest_s=rig.rest_s, expects=rig.expects)

    def hire(self, store: Any, seed: str) -> Client:
        """Return a new client."""
        return _Client(self, store, seed)

    def stop(self) -> None:
        """Stop all clients, and close their stores."""
        super().stop()
        self._stack.close()

    def judge(self) -> Verdict:
        """Compare the stored commits with the groups."""
        stored: dict[str, list[Part]] = {}
        verdict = Verdict()
        with RedisStore.from_url(self._rig.url, namespace=NAMESPACE, partitions=PARTITIONS) as store:
            for workflow_id in store.list():
                records = list(store.stream_records(workflow_id))
                if [record.cursor for record in records] != list(range(1, len(records) + 1)):
                    verdict.wrong.append(f"the cursors of {workflow_id} have gaps")
                stored[workflow_id] = [
                    Part(name, len(some), some[-1].cursor)
                    for name, some in (
                        (name, list(some)) for name, some in itertools.groupby(records, lambda one: one.event["group"])
                    )
                ]
        verdict.add(judge_groups(self.groups, stored))
        return verdict


def groups(faults: Kind, *, one_part: bool = False, rest_s: float = 0.005) -> Kind:
    """Append groups while the faults of another kind happen.

    Args:
        faults: the other kind.
        one_part: the workflows of a group have the same part in braces, as a cluster requires.
        rest_s: how long each client rests between two calls.
    """

    @contextmanager
    def kind(directory: Path, source: Random) -> Iterator[Rig]:
        def start(seed: str) -> Crew:
            crew = _Crew(replace(rig, rest_s=rest_s), seed, one_part=one_part)
            crew.start()
            return crew

        with faults(directory, source) as rig:
            yield replace(rig, team=start)

    return kind
