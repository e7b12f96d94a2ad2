"""The feed against a linear model: readers of any partitions, that resume anywhere, with pages of any size."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runic_redis import Positions, RedisStore
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.operations import feed, feed_pages
from runic_redis.operations.feed import FeedReader
from runic_redis.positions import Place
from runic_redis.testing.examples import OrderPaid, OrderPlaced

_namespaces = itertools.count()
IDS = ["a-1", "a-2", "b-1", "b-2", "c"]

writes = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(IDS), st.integers(1, 3)),
    st.tuples(st.just("append"), st.sampled_from(IDS), st.integers(1, 3)),
    st.tuples(st.just("pay"), st.sampled_from(IDS), st.just(1)),
    st.tuples(st.just("split"), st.sampled_from(IDS), st.just(3)),
    st.tuples(st.just("save"), st.sampled_from(IDS), st.just(0)),
    st.tuples(st.just("delete"), st.sampled_from(IDS), st.just(0)),
    st.tuples(st.just("import"), st.sampled_from(IDS), st.integers(1, 4)),
)
reads = st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 9))
resumes = st.tuples(st.just("resume"), st.integers(0, 2), st.booleans())


class Model:
    """What each partition's feed holds: for each entry, its position, workflow, cursor and events."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.numbers = itertools.count()
        self.cursors: dict[str, int] = {}
        # By partition: (position, workflow id, cursor, events, whether it is a deletion).
        self.entries: dict[int, list[tuple[int, str, int, list[Any], bool]]] = {}
        # By workflow, the position of its last deletion.
        self.deleted: dict[str, int] = {}

    def add(self, workflow_id: str, cursor: int, events: list[Any], *, deleted: bool = False) -> None:
        entries = self.entries.setdefault(self.store.context.keys.partition_of(workflow_id), [])
        position = (entries[-1][0] if entries else 0) + (len(events) or 1)
        entries.append((position, workflow_id, cursor, events, deleted))
        if deleted:
            self.deleted[workflow_id] = position

    def events(self, count: int) -> list[Any]:
        return [OrderPlaced("Ada", next(self.numbers)) for _ in range(count)]

    def write(self, kind: str, workflow_id: str, count: int) -> None:
        exists = workflow_id in self.cursors
        if kind == "delete":
            self.store.delete(workflow_id)
            if exists:
                del self.cursors[workflow_id]
                self.add(workflow_id, 0, [], deleted=True)
        elif kind == "save":
            self.store.save(workflow_id, [])
            if not exists:
                self.cursors[workflow_id] = 0
                self.add(workflow_id, 0, [])
        elif kind == "import":
            if not exists:
                self.bring(workflow_id, count)
        else:
            events = self.events(count)
            if kind == "pay":
                events = [OrderPaid(float(next(self.numbers)))]
            elif kind == "split":
                events = [{"n": next(self.numbers), "text": "x" * 600_000} for _ in range(count)]
            cursor = self.store.append(workflow_id, events)
            self.cursors[workflow_id] = self.cursors.get(workflow_id, 0) + len(events)
            assert cursor == self.cursors[workflow_id]
            self.add(workflow_id, cursor, events)

    def bring(self, workflow_id: str, commits: int) -> None:
        """Import a workflow of some commits from another namespace."""
        records: list[Any] = []
        cursor = 0
        name = f"{self.store.context.keys.namespace}-from"
        with RedisStore.from_url(self.store.url, namespace=name, partitions=1) as other:
            for number in range(commits):
                events = self.events(number % 2 + 1)
                cursor = other.append(workflow_id, events)
                self.add(workflow_id, cursor, events)
            other.run(Exporter(other.context, [workflow_id]).run(records.append), "export")
            other.delete(workflow_id)
        importer = Importer(self.store.context)
        for record in records:
            self.store.run(importer.take(record), "import")
        assert importer.problems == []
        self.cursors[workflow_id] = cursor

    def after(self, partition: int, position: int) -> list[tuple[int, str, int, list[Any], bool]]:
        """Return the entries of a partition after a position, without those whose events are gone."""
        return [
            one
            for one in self.entries.get(partition, [])
            if one[0] > position and (one[4] or not one[3] or self.deleted.get(one[1], 0) < one[0])
        ]


class Follower:
    """A reader of some partitions, and what it must return."""

    def __init__(self, model: Model, places: dict[int, Place], prefix: str, types: list[Any] | None) -> None:
        self.model, self.prefix, self.types = model, prefix, types
        self.open(places)

    def open(self, places: dict[int, Place]) -> None:
        self.places = places
        self.reader = FeedReader(self.model.store.context, places, prefix=self.prefix, types=self.types)
        self.run(self.reader.open())

    def run(self, operation: Any) -> Any:
        return self.model.store.run(operation, "feed")

    def read(self, pages: int) -> None:
        """Read some pages, and check each commit in them."""
        for _ in range(pages):
            commits = self.run(self.reader.next_page())
            if not commits:
                self.check_rest()
                break
            for commit in commits:
                self.check(commit)
        assert all(self.reader.places[number].position >= place.position for number, place in self.places.items()), (
            "the reader passed each commit that it returned"
        )
        # It may also have passed over entries that do not fit.
        self.places = self.reader.places

    def fits(self, entry: tuple[int, str, int, list[Any], bool]) -> bool:
        if not entry[1].startswith(self.prefix):
            return False
        return self.types is None or any(type(one) in self.types for one in entry[3])

    def check(self, commit: Any) -> None:
        """Check that a commit is the next one of its partition, unless its workflow was deleted since it was read."""
        place = self.places[commit.partition]
        found = (commit.position, commit.workflow_id, commit.cursor, commit.events, commit.deleted)
        entries = self.model.entries[commit.partition]
        assert found in entries, "it was stored so"
        assert self.fits(found)
        missed = [
            one
            for one in self.model.after(commit.partition, place.position)
            if one[0] < commit.position and self.fits(one)
        ]
        assert not missed
        assert commit.position > place.position, "each comes once, in order"
        assert commit.positions.places[commit.partition].position == commit.position
        self.places = self.places | {commit.partition: commit.positions.places[commit.partition]}

    def check_rest(self) -> None:
        for number, place in self.places.items():
            assert not [one for one in self.model.after(number, place.position) if self.fits(one)]

    def resume(self, *, as_text: bool) -> None:
        """Go on with another reader, from the places after the last commit that was checked."""
        self.reader.close()
        places = self.places
        if as_text:
            positions = Positions.parse(str(Positions(tuple(places.values()))))
            places = dict(zip(places, positions.places, strict=True))
        self.open(places)


@pytest.fixture
def page_limits() -> Iterator[None]:
    """Keep the limits of pages as they were."""
    before = feed._FIRST_COMMITS, feed._MOST_COMMITS, feed._IMPORT_ENTRIES, feed._AT_ONCE, feed_pages.PAGE_BYTES
    yield
    feed._FIRST_COMMITS, feed._MOST_COMMITS, feed._IMPORT_ENTRIES, feed._AT_ONCE = before[:4]
    feed_pages.PAGE_BYTES = before[4]


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_readers_agree_with_the_model(data: st.DataObject, page_limits: None) -> None:
    feed._FIRST_COMMITS = data.draw(st.sampled_from([1, 2, 3, 64]), "first page")
    feed._MOST_COMMITS = feed._FIRST_COMMITS * data.draw(st.integers(1, 4), "growth")
    feed._IMPORT_ENTRIES = data.draw(st.sampled_from([1, 2, 256]), "entries of an import")
    feed_pages.PAGE_BYTES = data.draw(st.sampled_from([1, 2**22]), "bytes of a page")
    feed._AT_ONCE = data.draw(st.sampled_from([1, 2, 256]), "decoded at once")
    partitions = data.draw(st.integers(1, 4), "partitions")
    name = f"feed-model-{next(_namespaces)}"
    with ExitStack() as stack:
        store = stack.enter_context(
            RedisStore.from_url(f"memory://{name}", namespace=name, partitions=partitions, feed=True)
        )
        model = Model(store)
        for step in data.draw(st.lists(writes, max_size=8), "before"):
            model.write(*step)
        numbers = list(range(partitions))
        followers = [
            Follower(model, dict.fromkeys(numbers, Place()), "", None),
            Follower(model, dict.fromkeys(numbers, Place()), "a-", None),
            Follower(model, {numbers[-1]: Place()}, "", [OrderPaid]),
        ]
        for step in data.draw(st.lists(writes | reads | reads | resumes, max_size=25), "steps"):
            if step[0] == "read":
                followers[step[1]].read(step[2])
            elif step[0] == "resume":
                followers[step[1]].resume(as_text=step[2])
            else:
                model.write(*step)
        for follower in followers:
            follower.read(1000)
            follower.reader.close()
        assert list(store.feed(after=Positions(tuple(followers[0].places.values())))) == []
