"""The cases of the feed: reading it from its beginning, following a writer, and sharing the work among consumers."""

import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from .contenders.base import Contender, Mismatch, Missing
from .contenders.ours_with_feed import OursWithFeed
from .events import Kind, some_events
from .figures import Turn, percentile, percentiles
from .lab import Lab
from .measure import Side, one_by_one
from .turns import sized, taking_part
from .workers import Worker

_WRITER = Path(__file__).with_name("feed_writer.py")
_CONSUMER = Path(__file__).with_name("feed_consumer.py")
# The longest time between two commits of the writer. It starts meanwhile.
_PATIENCE_S = 30.0


def catching_up(lab: Lab, commits: int, workflows: int, *, kind: Kind, only: Sequence[str]) -> list[Side]:
    """Read every commit of many workflows, in the order in which they were written. A commit has one event."""
    source = random.Random(0)
    written = [(f"workflow-{source.randrange(workflows)}", event) for event in some_events(commits, kind)]
    sides = []
    for one in taking_part(lab, "write_commits", "follow", only=only):
        key = one.new_key("log")
        one.write_commits(key, written, kind)
        _check_followed(one, key, written)
        sides.append(Side(one.name, lambda _, one=one, key=key: one_by_one([lambda: _follow(one, key)], commits)))
    return sides


def _check_followed(one: Contender, key: str, written: Sequence[tuple[str, object]]) -> None:
    """Raise `Mismatch` unless the log has each event that was written, in any order of workflows."""
    read = one.plain(list(one.follow(key)))
    if sorted(map(repr, read)) != sorted(repr(event) for _, event in written):
        raise Mismatch(f"{one.name}: what was followed is not what was written")


def _follow(one: Contender, key: str) -> None:
    """Read each event and keep none."""
    for _ in one.follow(key):
        pass


def following(lab: Lab, commits: int, *, rate: int, percent: int) -> list[Side]:
    """Follow a process that makes so many commits a second. The cost is a percentile of the latencies.

    A latency is the time from the moment before the writer's call of append until the follower has the commit. So the
    time of the append itself is part of it. Both processes read the system's monotonic clock.
    """
    store = lab.stack.enter_context(lab.ours.namespace(f"followed-{percent}", feed=True, partitions=16))
    store.append("first", [{}])  # the writer takes the settings that the namespace has
    writer = lab.stack.enter_context(Worker(_WRITER, lab.place.server.url, store.context.keys.namespace))

    def turn(_: int) -> Turn:
        with store.feed(start="now", wait_s=_PATIENCE_S) as feed:
            writer.send(f"{commits} {rate}")
            sent_ns = (commit.events[0]["sent_ns"] for commit in islice(feed, commits))
            latencies = [(time.monotonic_ns() - sent) / 1000 for sent in sent_ns]
        reached = commits / writer.receive()
        if len(latencies) < commits:
            raise Mismatch(f"{len(latencies)} commits were followed of {commits}")
        if reached < 0.9 * rate:
            raise Missing(f"the writer made {reached:,.0f} commits a second, and not {rate:,}")
        return Turn(percentile(latencies, percent), percentiles(latencies))

    return [Side(OursWithFeed.name, turn)]


def consuming(lab: Lab, commits: int, *, consumers: Sequence[int]) -> list[Side]:
    """Handle the commits of a feed in consumers of one subscription, each a process that has its share of partitions.

    The cost is that of a commit, from the word to begin until the last commit is handled.
    """
    store = lab.stack.enter_context(lab.ours.namespace("consumed", feed=True))
    store.append_many([(f"workflow-{number}", [{}]) for number in range(commits)])
    arguments = lab.place.server.url, store.context.keys.namespace
    workers = [lab.stack.enter_context(Worker(_CONSUMER, *arguments)) for _ in range(max(consumers))]

    def turn(count: int, number: int) -> Turn:
        working = workers[:count]
        for worker in working:
            worker.send(f"by-{count}/{number} {store.context.keys.partitions // count}")
        for worker in working:
            worker.receive()
        began = time.monotonic()
        for worker in working:
            worker.send("begin")
        answers = [worker.receive() for worker in working]
        if (handled := sum(each for each, _ in answers)) != commits:
            raise Mismatch(f"{handled} commits were handled of {commits}")
        return Turn((max(last for _, last in answers) - began) / commits * 1e6)

    return [Side(sized(count, "consumer"), partial(turn, count)) for count in consumers]
