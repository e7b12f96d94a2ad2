"""Clients at work: they record in a history what they asked for and what they were told."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runic_redis import (
    CommitsLost,
    CursorConflict,
    DurabilityError,
    EventsTrimmed,
    Record,
    SnapshotConflict,
    SnapshotNotFound,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
    WriteRefused,
)
from tests.chaos.history import Append, Delete, Read, Stored, View

__all__ = ["Client", "Crew", "Interrupted", "find_wrong_tags", "is_by_design", "read_back"]

# A tag of every commit, beside its name.
_ALL = "all"

# Events per commit: mostly few, now and then a commit that takes several pages to read.
SIZES = (*[1, 1, 1, 2, 3, 5, 8] * 7, 1000)
# An error about a workflow that clients trim contains this.
_TRIMMED = "'trimmed-"
# After so many commits clients leave a workflow, because reading all of it must stay cheap.
MOST_COMMITS = 120


class Interrupted(BaseException):
    """A signal or a cancellation interrupted a call. It is not known whether the call was carried out."""


def is_by_design(error: StoreError) -> bool:
    """Is this error allowed in every run? It is for a retry without a commit id among trimmed commits."""
    return (
        isinstance(error, StoreUnavailable) and "trimmed or too many to search" in str(error) and _TRIMMED in str(error)
    )


def read_back(store: Any, workflow_id: str) -> list[Stored]:
    """Return all commits of a workflow, including those that its snapshot covers."""
    while True:
        try:
            return _read_back(store, workflow_id)
        except EventsTrimmed:
            continue  # another client saved a newer snapshot after this one was read, and trimmed


def _read_back(store: Any, workflow_id: str) -> list[Stored]:
    covered, commits = 0, []
    try:
        covered, data = store.load_snapshot(workflow_id)
        commits = [Stored(name, cursor) for name, cursor in json.loads(data)]
    except SnapshotNotFound:
        pass
    try:
        return commits + _assemble(store.stream_records(workflow_id, after=covered))
    except WorkflowNotFound:
        return commits  # it does not exist yet, or was deleted meanwhile


def find_wrong_tags(store: Any, workflow_id: str) -> list[str]:
    """Compare the tags of a workflow that nobody writes to with its commits that are not trimmed."""
    try:
        commits = _assemble(store.stream_records(workflow_id))
    except EventsTrimmed as trimmed:
        commits = _assemble(store.stream_records(workflow_id, after=trimmed.first - 1))
    except WorkflowNotFound:
        commits = []
    # Those that a rig has appended beforehand, many at a time, have none.
    tagging = [commit for commit in commits if not commit.name.startswith("recent-")]
    expected = {(tag, commit.name, commit.cursor) for commit in tagging for tag in (commit.name, _ALL)}
    tagged = store.find(workflow_id, prefix="")
    found = {(one.tag, one.events[0]["op"], one.cursor) for one in tagged}
    if len(tagged) != len(found) or found != expected:
        return [f"{workflow_id}: these tags are lost or of no commit: {sorted(found ^ expected)[:5]}"]
    return []


def _assemble(records: Iterable[Record]) -> list[Stored]:
    """Return commits, assembled from their events. An event that belongs to no commit gets the cursor -1."""
    commits: list[Stored] = []
    part = 0
    for record in records:
        name, number = record.event["op"], record.event["part"]
        if number == 0:
            commits.append(Stored(name, record.cursor))
        elif commits and (name, number) == (commits[-1].name, part + 1):
            commits[-1] = Stored(name, record.cursor)
        else:
            commits.append(Stored(name, -1))
        part = number
    return commits


class Client(threading.Thread):
    """One client, which works until its crew stops.

    Args:
        crew: the crew that it belongs to.
        store: the store that it works with, alone or with other clients.
        seed: the seed of its random choices.

    Attributes:
        acknowledged: how many of its writes were acknowledged.
        refused: how many of its writes a full server rejected.
        errors: the errors that it should not have got.
    """

    def __init__(self, crew: "Crew", store: Any, seed: str) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self._crew = crew
        self._store = store
        self._random = random.Random(seed)
        self._names = (f"{seed}-{number}" for number in itertools.count())
        self._cursors: dict[str, int] = {}
        self.acknowledged = 0
        self.refused = 0
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._crew.stopping.wait(self._crew.rest_s):
            self.step()

    def step(self) -> bool:
        """Do one thing. Return whether it ran without an interruption."""
        view = self._crew.pick(self._random)
        act = self._random.choices(*zip(*self._crew.mixture(self, view), strict=True))[0]
        try:
            act(view)
        except Interrupted:
            return False
        except StoreError as error:
            self.refused += isinstance(error, WriteRefused)
            if not self._crew.expects(error):
                self.errors.append(f"{act.__name__}: {type(error).__name__}: {error}")
        except BaseException as error:  # clients must only see errors of class StoreError
            self.errors.append(f"{act.__name__}: {type(error).__name__}: {error}")
            raise
        return True

    def append(self, view: View) -> None:
        """Append at any cursor."""
        self._append(view)

    def append_by_id(self, view: View) -> None:
        """Append with a commit id, and retry until the outcome is certain."""
        self._append(view, commit_id=self._random.randbytes(6).hex())

    def append_at(self, view: View) -> None:
        """Append at the cursor that this client knows."""
        self._append(view, expected=self._cursors.get(view.workflow_id, 0))

    def _append(self, view: View, *, expected: int | None = None, commit_id: str | None = None) -> None:
        size = self._random.choice(self._crew.sizes)
        append = Append(next(self._names), size, time.monotonic(), expected)
        view.appends.append(append)
        events = [{"op": append.name, "part": part, "of": size} for part in range(size)]
        while True:
            try:
                append.cursor = self._store.append(
                    view.workflow_id, events, expected_cursor=expected, commit_id=commit_id, tags=[append.name, _ALL]
                )
            except CursorConflict as conflict:
                append.outcome = "refused"
                self._cursors[view.workflow_id] = conflict.actual
                if isinstance(conflict, CommitsLost):
                    view.losses_named.append(conflict.expected)
                return
            except WriteRefused as error:
                append.outcome = "unknown" if "not known" in str(error) else "refused"
                raise
            except (DurabilityError, StoreUnavailable, Interrupted) as error:
                if commit_id is None:
                    self._cursors.pop(view.workflow_id, None)
                    raise
                if not isinstance(error, Interrupted) and not self._crew.expects(error):
                    self.errors.append(f"{type(error).__name__}: {error}")
                if self._crew.stopping.is_set():
                    return
                continue
            append.ended_s = time.monotonic()
            append.outcome = "acknowledged"
            self._cursors[view.workflow_id] = append.cursor
            self.acknowledged += 1
            self._crew.note(append.ended_s)
            return

    def write_once_more(self, store: Any, view: View) -> None:
        """Append at the cursor that this client knows, if it knows one. This detects lost commits."""
        self._store = store
        if view.workflow_id in self._cursors:
            self.append_at(view)

    def read(self, view: View) -> None:
        """Read the whole workflow."""
        began_s = time.monotonic()
        commits = read_back(self._store, view.workflow_id)
        view.reads.append(Read(began_s, time.monotonic(), commits))

    def snapshot(self, view: View) -> None:
        """Save a snapshot of all commits, and trim."""
        commits = read_back(self._store, view.workflow_id)
        if commits:
            data = json.dumps(commits).encode()
            try:
                if self._crew.may_go_back:
                    # A failover may drop unconfirmed commits: this append confirms them before the snapshot.
                    self._store.append(view.workflow_id, [], expected_cursor=commits[-1].cursor)
                self._store.save_snapshot(view.workflow_id, commits[-1].cursor, data)
                self._store.trim(view.workflow_id, keep=self._random.choice([0, 3]))
            except (CursorConflict, SnapshotConflict, WorkflowNotFound):
                pass  # another client appended, saved a later snapshot, or deleted the workflow

    def delete(self, view: View) -> None:
        """Delete the workflow."""
        delete = Delete(time.monotonic())
        view.deletes.append(delete)
        self._store.delete(view.workflow_id)
        delete.ended_s = time.monotonic()


class Crew:
    """Clients, and the workflows that they share.

    Args:
        stores: a store for each client. Clients with the same store share its batches.
        seed: the seed of their random choices.
        one_writer: each workflow has one writer, which always passes its cursor and so notices lost commits.
        may_go_back: commits that were read but not confirmed may be dropped.
        rest_s: how long each client rests between two calls.
        busy: the one workflow to which all clients append, doing nothing else.
        expects: the errors that a client may get.

    Attributes:
        stores: a store for each client.
        sizes: the numbers of events that commits can have.
        views: what clients did, by workflow.
        stopping: set when the clients must stop.
        longest_outage_s: the longest time without an acknowledged write.
    """

    def __init__(
        self,
        stores: Sequence[Any],
        seed: str,
        *,
        one_writer: bool = False,
        may_go_back: bool = False,
        rest_s: float = 0.0,
        busy: View | None = None,
        expects: Callable[[StoreError], bool] = is_by_design,
    ) -> None:
        self.stores = stores
        self._one_writer = one_writer
        self.rest_s = rest_s
        self._busy = busy
        # (Reading all of a busy workflow must stay cheap.)
        self.sizes = SIZES if busy is None else (1,)
        self.may_go_back = may_go_back
        self.expects = expects
        self.views: list[View] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._at_work: list[View] = []
        self.stopping = threading.Event()
        self.longest_outage_s = 0.0
        self._last_s = time.monotonic()
        self.clients = [self.hire(store, f"{seed}.{number}") for number, store in enumerate(stores)]
        count = len(self.clients) if one_writer else 6
        if busy is not None:
            self.views.append(busy)
            count = 0
        for _ in range(count):
            self._renew(None)

    def hire(self, store: Any, seed: str) -> Client:
        """Return a new client."""
        return Client(self, store, seed)

    def _renew(self, place: int | None) -> None:
        number = next(self._numbers)
        kind = "plain" if self._one_writer else ("plain", "trimmed", "deleted")[number % 3]
        view = View(f"{kind}-{number}")
        self.views.append(view)
        if place is None:
            self._at_work.append(view)
        else:
            self._at_work[place] = view

    def pick(self, source: random.Random) -> View:
        """Return a workflow to work on."""
        if self._busy is not None:
            return self._busy
        with self._lock:
            if self._one_writer:
                me = threading.current_thread()
                place = next(number for number, client in enumerate(self.clients) if client is me)
            else:
                place = source.randrange(len(self._at_work))
            if len(self._at_work[place].appends) >= MOST_COMMITS:
                self._renew(place)
            return self._at_work[place]

    def mixture(self, client: Client, view: View) -> list[tuple[Callable[[View], None], float]]:
        """Return what a client can do to a workflow, with weights."""
        if self._busy is not None:
            return [(client.append, 1)]
        if self._one_writer:
            return [(client.append_at, 4), (client.read, 0.2)]
        mixture = [(client.append, 4), (client.append_at, 4), (client.append_by_id, 2), (client.read, 1.5)]
        if view.workflow_id.startswith("trimmed"):
            mixture.append((client.snapshot, 0.4))
        if view.workflow_id.startswith("deleted"):
            mixture.append((client.delete, 0.2))
        return mixture

    def note(self, now_s: float) -> None:
        """Record the time of an acknowledgement."""
        with self._lock:
            self.longest_outage_s = max(self.longest_outage_s, now_s - self._last_s)
            self._last_s = max(self._last_s, now_s)

    @property
    def acknowledged(self) -> int:
        """Return how many writes were acknowledged."""
        return sum(client.acknowledged for client in self.clients)

    @property
    def refused(self) -> int:
        """Return how many writes a full server rejected."""
        return sum(client.refused for client in self.clients)

    def start(self) -> None:
        """Start all clients."""
        for client in self.clients:
            client.start()

    def await_progress(self, limit_s: float = 60.0) -> None:
        """Wait until every client has one more write acknowledged."""
        waiting = {client: client.acknowledged for client in self.clients}
        over_s = time.monotonic() + limit_s
        while any(client.acknowledged == before for client, before in waiting.items()):
            assert time.monotonic() < over_s, f"no progress for {limit_s} s: {self.errors()}"
            assert all(client.is_alive() for client in self.clients), self.errors()
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop all clients, and wait until they have stopped."""
        self.stopping.set()
        over_s = time.monotonic() + 60.0
        for client in self.clients:
            client.join(max(0.0, over_s - time.monotonic()))
            if client.is_alive():
                client.errors.append("it still waits for a reply")

    def errors(self) -> list[str]:
        """Return the errors that clients should not have got."""
        return [error for client in self.clients for error in client.errors]
