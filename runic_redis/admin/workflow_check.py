"""Verify one workflow: choose the next commands, and judge the replies.

A check reads a page at a time. The verifier sends the commands of many checks in one round trip.

Writers may be active, and a change in progress is not damage. Therefore the check reads the meta hash before all other
keys and again after them. Data is missing only if the first reading announced it. Data is in excess only if the second
reading does not account for it. So a workflow may grow, and be trimmed, all the time.

This is one module because reading and judging stay together: each judgement depends on the order of the readings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from runic_redis.admin.inbox_check import InboxCheck
from runic_redis.admin.tag_check import TagCheck
from runic_redis.arguments import MAX_CURSOR, check_queue, is_cursor
from runic_redis.codec import fact_matches, unpack_refs
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument
from runic_redis.events import FACT_REF, refs_in
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.labels import label_fields, label_sets
from runic_redis.operations.records import cursor_or_zero, decode_commit
from runic_redis.operations.references import repair, repaired_keys
from runic_redis.protocol.effects import Argument, Command, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import time_us
from runic_redis.protocol.resp import pairs

# The scripts note the size of the largest entry only from this size on.
_LARGE = 8192
_MOST_ENTRIES = 1000
_MEMBERS = 500
# How many tags one call repairs.
_TAGS = 1000
_Step = Literal["head", "pages", "facts", "inbox", "tags", "end", "done"]
# How often a workflow is read again because it was deleted or made meanwhile, or its lease or its expiry changed while
# they were compared. After that, it is not judged.
_TRIES = 5
# The partition's sorted sets, and the fields of the meta hash that determine a workflow's scores there.
_SETS = ("index", "leases", "expiring", "completed", "parked")
_SCORED = (b"created", b"fence", b"lease_until", b"completed", b"expires", b"parked", b"queue")
_NUMBERS = (
    *(
        "attempts",
        "cancel",
        "completed",
        "created",
        "cursor",
        "expires",
        "fence",
        "ids",
        "largest",
        "lease_ms",
        "lease_until",
    ),
    *("inbox", "messages", "parked", "refs", "sent", "sliding", "snapshot", "tags", "touched", "trimmed", "trimmed_ms"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Damage that was found.

    Attributes:
        kind: the kind of the damaged thing: a workflow, a fact or a key.
        name: the workflow's id, the fact's hash or the key.
        problem: a description of the damage.
        repairs: the repairs, as lua/repair.lua takes them; empty if the right value cannot be derived.
        repaired: whether it has been repaired.
    """

    kind: Literal["workflow", "fact", "key"]
    name: str
    problem: str
    repairs: tuple[tuple[str, Argument], ...] = ()
    repaired: bool = False


class WorkflowCheck:
    """The check of one workflow.

    Args:
        context: the store's, without the application's classes.
        workflow_id: the workflow.
        facts_too: whether to read the facts that it refers to, or only check that they exist.
        queues: the names of further queues that it may be in, although its meta hash names another one.

    Attributes:
        workflow_id: the workflow.
        events: how many events were read.
        findings: the damage, once all is read.
        there: whether the workflow exists.
    """

    def __init__(self, context: Context, workflow_id: str, *, facts_too: bool, queues: Iterable[str] = ()) -> None:
        self.workflow_id = workflow_id
        self._context = context
        self._keys = context.keys.workflow(workflow_id)
        self._facts_too = facts_too
        self._further_queues = tuple(queues)
        self._tries = 0
        self._begin()

    def _begin(self) -> None:
        self.events = 0
        self.there = True
        self.findings: list[Finding] = []
        self._step: _Step = "head"
        # The meta hash as last read, and as it was before all other keys were read.
        self._meta: dict[bytes, bytes] = {}
        self._before: dict[bytes, bytes] = {}
        self._position = 0
        self._gaps: list[tuple[int, int]] = []
        # The end of the last entry that cannot be read after those before it.
        self._broken = 0
        self._last_id = b""
        self._times: tuple[bytes, bytes] | None = None
        self._largest = 0
        # The facts by the last cursor that refers to them, infinite for a log: as found, and as stored.
        self._referred: dict[bytes, float] = {}
        self._refs: dict[bytes, float] = {}
        self._commits: list[tuple[bytes, bytes]] = []
        # For each kind of key that is still to be read, the place where to continue.
        self._left: dict[str, Any] = {}
        self._facts: list[bytes] = []
        # The keys of the workflow that hold a foreign value.
        self._foreign: set[str] = set()
        # The keys of the workflow that exist.
        self._own: list[str] = []
        # Whether it has only references, commit ids or message ids.
        self._leftovers = False
        # The numbers of references and commit ids, and the size of the log, after the first reading of the meta hash.
        self._sizes: dict[bytes, int] = {}
        # The facts that the snapshot refers to, by the readings before and after that of the references.
        self._named: set[bytes] = set()
        # The facts that are missing, unless they were released and collected meanwhile.
        self._missing: list[str] = []
        # The snapshot's cursor, if it was above the workflow's.
        self._snapshot_ahead = 0
        # The cursors after the commits, by their ids.
        self._places: dict[bytes, int] = {}
        self._inbox = InboxCheck(self._context, self.workflow_id)
        self._tags = TagCheck(self._context, self.workflow_id)

    def commands(self, most_bytes: int) -> list[Command]:
        """Return the next commands, for about so many bytes of replies; none once all is read."""
        keys = self._keys
        if self._step == "head":
            # The snapshot may not be ahead of the meta hash, which is read after it, nor behind it, read before it.
            return [
                key_command("HGET", keys.snapshot, "cursor"),
                key_command("HGETALL", keys.meta),
                key_command("HEXISTS", keys.snapshot, "data"),
                key_command("HGET", keys.snapshot, "cursor"),
                key_command("XLEN", keys.events),
                key_command("STRLEN", keys.log),
                key_command("ZCARD", keys.refs),
                key_command("HGET", keys.meta, "refs"),
                key_command("HLEN", keys.commits),
                key_command("HGET", keys.snapshot, "refs"),
                key_command("XLEN", keys.inbox),
                key_command("HLEN", keys.messages),
                key_command("ZCARD", keys.tags),
            ]
        if self._step == "pages":
            pages = [self._page(what, where, most_bytes) for what, where in self._pages().items()]
            return [*pages, key_command("HMGET", keys.meta, "created", "cursor")]
        if self._step == "facts":
            some = self._facts[: _MEMBERS if not self._facts_too else 1 + most_bytes // (1024 * 1024)]
            name = "HGET" if self._facts_too else "HSTRLEN"
            return [key_command(name, bucket, fact) for fact in some for bucket, _ in [self._context.keys.fact(fact)]]
        if self._step in {"inbox", "tags"}:
            return (self._inbox if self._step == "inbox" else self._tags).commands(most_bytes)
        if self._step == "end":
            sets = [set_key(keys, name) for name in self._sets()]
            return [
                key_command("HGETALL", keys.meta),
                *(key_command("ZSCORE", key, self.workflow_id) for key in sets),
                *(key_command("PTTL", key) for key in self._own),
                Command(("TIME",), keys.meta),
                key_command("HGETALL", keys.meta),
                key_command("HGET", keys.snapshot, "refs"),
            ]
        return []

    def receive(self, replies: Sequence[Any], commands: Sequence[Command]) -> None:
        """Take the replies to the last commands."""
        if self._step != "facts":
            replies = [self._readable(*pair) for pair in zip(replies, commands, strict=True)]
        if self._step == "head":
            self._take_head(replies)
        elif self._step == "pages":
            self._take_pages(replies)
        elif self._step == "facts":
            self._take_facts(replies)
        elif self._step == "inbox":
            self._take_inbox(replies)
        elif self._step == "tags":
            self._take_tags(replies)
        else:
            self._take_end(replies)

    def repair(self) -> Operation[None]:
        """Repair what can be derived, and mark the findings. A workflow that has changed meanwhile is not repaired."""
        repairs = [repair for finding in self.findings for repair in finding.repairs]
        state = (self._meta.get(b"cursor"), self._last_id, self._meta.get(b"fence"))
        # Of the tags, few at a time. Each of these steps leaves the others as they are.
        tags = [one for one in repairs if one[0].startswith("tag.")]
        for at in range(0, len(tags), _TAGS):
            yield from repair(self._context, self.workflow_id, state, tags[at : at + _TAGS])
        others = [one for one in repairs if not one[0].startswith("tag.")]
        if (yield from repair(self._context, self.workflow_id, state, others, self._further_sets())):
            self.findings = [replace(one, repaired=bool(one.repairs)) for one in self.findings]

    def _found(self, problem: str, *repairs: tuple[str, Argument]) -> None:
        self.findings.append(Finding("workflow", self.workflow_id, problem, repairs))

    def _readable(self, reply: Any, command: Command) -> Any:
        """Return a reply; None, with a finding, if it is an error."""
        if not isinstance(reply, ErrorReply):
            return reply
        if command.key not in self._foreign:
            self._foreign.add(command.key)
            self._found(f"{command.key} cannot be read: {reply.text}")
        return None

    def _take_head(self, replies: Sequence[Any]) -> None:
        keys = self._keys
        earlier, meta, data, later, entries, log, refs, counted, commits, packed, inbox, messages, tags = replies
        self._meta = self._before = dict(pairs(meta or []))
        bounds = sorted((self._number("refs"), cursor_or_zero(counted)))
        if bounds[0] != bounds[1] and not bounds[0] <= (refs or 0) <= bounds[1]:
            self._look_again()  # some were added and others released between the readings
            return
        counts = {keys.events: entries, keys.snapshot: data, keys.log: log, keys.refs: refs, keys.commits: commits}
        counts |= {keys.inbox: inbox, keys.messages: messages, keys.tags: tags}
        self._own = [keys.meta, *(key for key, count in counts.items() if count)]
        # If they changed between the readings, they cannot be compared.
        size = (refs or 0) if bounds[0] == bounds[1] else self._number("refs")
        self._sizes = {b"refs": size, b"ids": commits or 0, b"log": log or 0}
        whole = bool(self._meta or entries or log or data or inbox or self.findings)
        self._leftovers = not whole and bool(refs or commits or messages or tags)
        self.there = whole or self._leftovers
        self._step = "end"
        if self.there:
            self._judge_snapshot(earlier, later, has_data=bool(data))
            self._named = self._unpacked(packed)
            self._position = self._number("trimmed")
            if entries:
                self._left["events"] = b"-"
            if log:
                self._left["log"] = None
            self._left |= {"refs": b"0", "commits": b"0"}
            self._step = "pages"

    def _pages(self) -> dict[str, Any]:
        """Return the kinds of keys to read next: the events first, then the keys written together with them."""
        return {what: where for what, where in self._left.items() if what in {"events", "log"}} or self._left

    def _page(self, what: str, where: Any, most_bytes: int) -> Command:
        keys = self._keys
        if what == "events":
            count = max(1, min(_MOST_ENTRIES, most_bytes // max(self._number("largest"), _LARGE)))
            return key_command("XRANGE", keys.events, where, "+", "COUNT", str(count))
        if what == "log":
            return key_command("GET", keys.log)
        if what == "refs":
            return key_command("ZSCAN", keys.refs, where, "COUNT", str(_MEMBERS))
        return key_command("HSCAN", keys.commits, where, "COUNT", str(_MEMBERS))

    def _take_pages(self, replies: Sequence[Any]) -> None:
        *pages, now = replies
        created, cursor = now or (None, None)
        if created != self._before.get(b"created"):
            # It was deleted and made again. Later entries have later IDs, so that reading on might never end.
            self._look_again()
            return
        for what, found in zip(list(self._pages()), pages, strict=True):
            where = getattr(self, f"_take_{what}")(found) if found else None
            if what == "events" and self._number("cursor") < self._position <= cursor_or_zero(cursor):
                where = None  # all entries of the first reading are read; more may be added for ever
            if where is None:
                del self._left[what]
            else:
                self._left[what] = where
        if not self._left:
            self._facts = sorted(self._refs.keys() | self._referred | self._named)
            self._step = "facts" if self._facts else "inbox"

    def _take_events(self, entries: Sequence[Any]) -> bytes:
        for entry in entries:
            self._take_entry(entry)
        last: bytes = entries[-1][0]
        return b"(" + last

    def _take_entry(self, entry: Any) -> None:
        entry_id, fields = entry
        end, _, ms = entry_id.partition(b"-")
        self._last_id = entry_id
        self._times = (self._times or (ms, ms))[0], ms
        try:
            commit = decode_commit(self._context, self.workflow_id, entry, with_records=True)
        except DecodeError as error:
            self._found(str(error).partition(" Nothing was changed")[0])
            self._broken = int(end)
            self._tags.take(entry, is_sound=False)
            if is_cursor(end):
                self._position = max(self._position, int(end))
            return
        if commit.start != self._position:
            self._broken = commit.end
        if commit.start > self._position:
            self._gaps.append((self._position + 1, commit.start))
        elif commit.start < self._position:
            self._found(
                f"the entry {entry_id.decode()} begins with event {commit.start + 1}, but those up to "
                f"{self._position} are {'trimmed' if not self.events else 'in others'}"
            )
        # The cursors of an entry that overlaps others are wrong.
        in_place = commit.start >= self._position
        self._tags.take(entry, is_sound=in_place)
        self._position = commit.end
        self.events += len(commit.events)
        self._largest = max(self._largest, len(fields[0]) + len(fields[1]))
        if self._sizes[b"ids"] < self._number("ids"):
            self._places[fields[3]] = commit.end
        if FACT_REF.encode() in fields[0]:
            places = enumerate(commit.events, commit.start + 1)
            self._refer((place if in_place else 0, event) for place, event in places)

    def _take_log(self, data: bytes) -> None:
        try:
            self._refer((inf, event) for event in self._context.codec.decode_log(data))
        except DecodeError as error:
            self._found(f"the log is damaged: {error}")

    def _refer(self, events: Iterable[tuple[float, Any]]) -> None:
        """Note the facts to which events refer, by the cursors of the events."""
        try:
            for cursor, event in events:
                for ref in refs_in(event, self._context.codec.registry):
                    fact = ref.hash.encode()
                    self._referred[fact] = max(cursor, self._referred.get(fact, 0))
        except (DecodeError, UnicodeEncodeError) as error:
            self._found(str(error))

    def _take_refs(self, page: Any) -> bytes | None:
        self._refs.update((fact, float(score)) for fact, score in pairs(page[1]))
        return page[0] if int(page[0]) else None

    def _take_commits(self, page: Any) -> bytes | None:
        known = max(self._number("cursor"), self._position)
        self._commits += [one for one in pairs(page[1]) if not is_cursor(one[1]) or int(one[1]) > known]
        return page[0] if int(page[0]) else None

    def _queues(self) -> list[str]:
        """Return the names of the queues that it may be in, its own first."""
        own = queue_name(self._before.get(b"queue"))
        return list(dict.fromkeys([*filter(None, [own]), *self._further_queues]))

    def _labels(self) -> list[str]:
        """Return the names of the sets in which it should be by its attributes and its parent."""
        prefix = set_key(self._keys, "")
        return [key.removeprefix(prefix) for key in label_sets(self._keys, self._before)]

    def _sets(self) -> list[str]:
        """Return the names of the sorted sets in which it may be."""
        return [*_SETS, *(f"queue:{name}" for name in self._queues()), *self._labels()]

    def _further_sets(self) -> list[str]:
        return [set_key(self._keys, name) for name in self._sets()[len(_SETS) :]]

    def _judge_absence(self, scores: Mapping[str, Any]) -> None:
        """Find a workflow without data in the sorted sets."""
        repairs = [(name, "") for name, score in scores.items() if score is not None]
        if repairs:
            self._found(f"it has no data, and is listed in the {', '.join(name for name, _ in repairs)}", *repairs)

    def _judge_snapshot(self, earlier: Any, later: Any, *, has_data: bool) -> None:
        """Judge the snapshot's cursor, as it was before and after the meta hash was read."""
        trimmed, cursor = self._number("trimmed"), self._number("cursor")
        noted = self._meta.get(b"snapshot")
        if later is None and not has_data and noted is not None:
            self._found(f"its snapshot, of the cursor {cursor_or_zero(noted)}, is lost", ("meta.snapshot", ""))
        else:
            is_ahead = cursor >= cursor_or_zero(earlier) > cursor_or_zero(noted)
            seen = earlier if is_ahead else later
            if is_ahead or (seen is not None and is_cursor(seen) and int(seen) < cursor_or_zero(noted)):
                problem = f"the snapshot's cursor is {int(seen)}, and {cursor_or_zero(noted)} is noted"
                self._found(problem, ("meta.snapshot", seen.decode()))
        if later is None and not has_data:
            if trimmed:
                self._found(f"the events up to {trimmed} are trimmed, and there is no snapshot")
        elif (earlier is None) is not (later is None):
            pass  # it was saved meanwhile, or the workflow was deleted
        elif later is None or not is_cursor(later) or not has_data:
            self._found("the snapshot is damaged: its cursor or its data is missing, or no number")
        elif int(later) < trimmed:
            self._found(f"the snapshot's cursor is {int(later)}, and the events up to {trimmed} are trimmed")
        elif cursor_or_zero(earlier) > cursor:
            self._snapshot_ahead = int(earlier)

    def _judge(self) -> None:
        """Judge all that was read."""
        cursor, trimmed = self._number("cursor"), self._number("trimmed")
        # (Events that were trimmed since they were read are not missing.)
        for first, last in self._gaps:
            if last > trimmed:
                self._found(f"the events {first} to {last} are missing")
        end = cursor_or_zero(self._before.get(b"cursor"))
        repairs: list[tuple[str, Argument]] = []
        # A cursor above an unreadable entry would make reading fail that now succeeds below it.
        if self._position > cursor >= self._broken:
            repairs.append(("meta.cursor", str(self._position)))
        if self._snapshot_ahead:
            if repairs and self._snapshot_ahead <= self._position:
                repairs.append(("meta.snapshot", str(self._snapshot_ahead)))
            problem = f"the snapshot's cursor is {self._snapshot_ahead}, above the workflow's, {cursor}"
            self._found(problem, *repairs[1:])
        if self._position > cursor:
            self._found(f"the events end at {self._position}, and its cursor is {cursor}", *repairs[:1])
        elif self._position < end and trimmed < end:
            self._found(f"the events {self._position + 1} to {end} are missing at the end")
        for commit_id, place in self._commits:
            if not is_cursor(place) or int(place) > max(cursor, self._position):
                self._found(f"the commit id {commit_id!r:.80} stands for the cursor {place!r:.40}, which never was")
        self._judge_meta()
        self._judge_counts()

    def _judge_counts(self) -> None:
        """Compare the references, the commit ids and the log with the counts in the meta hash.

        Those missing are missing from the first reading, and those in excess exceed the second one. A trim lowers the
        number of references, so the count was read on both sides of it: see `_take_head`.
        """
        refs, ids, log = (cursor_or_zero(self._before.get(name)) - size for name, size in self._sizes.items())
        if refs > 0:
            self._found(f"{refs} of its references to facts are lost", ("count.refs", ""))
        if ids > 0:
            known = [("commits", b"%d %b" % (place, commit_id)) for commit_id, place in self._places.items()]
            problem = f"{ids} of the commit ids that callers gave are lost; those of trimmed commits cannot be restored"
            self._found(problem, *known, ("count.ids", ""))
        if log > 0 and not self._sizes[b"log"]:
            self._found("its log is lost", ("meta.log", ""))
        for name, what in ((b"refs", "references"), (b"ids", "commit ids")):
            if self._sizes[name] > max(self._number(name.decode()), cursor_or_zero(self._before.get(name))):
                self._found(f"it has more {what} than are counted", (f"count.{name.decode()}", ""))
        if self._sizes[b"log"] and not self._number("log"):
            self._found("it has a log that its meta hash does not know of", ("meta.log", "1"))

    def _judge_meta(self) -> None:
        """Compare the meta hash and the references with the events."""
        first, _ = self._times or (b"", b"")
        if b"created" not in self._meta:
            repairs = [("meta.created", f"{int(first)}000")] if first.isdigit() else []
            self._found("the time of its creation is missing", *repairs)
        if self._largest >= _LARGE and self._largest > self._number("largest"):
            problem = f"its largest entry has {self._largest} bytes, and {self._number('largest')} are noted"
            self._found(problem, ("meta.largest", str(self._largest)))
        self._judge_references()

    def _judge_references(self) -> None:
        """Find facts that something refers to and that are not among the references, and references with wrong scores.

        A reference that nothing needs any more is no damage: a later trim removes it.
        """
        trimmed, most = self._number("trimmed"), max(self._number("cursor"), self._position)
        for what, facts in (
            # (A trim releases facts of events that were read before it. The cursor 0 stands for one that is wrong.)
            ("events refer", {fact: one or most for fact, one in self._referred.items() if not 0 < one <= trimmed}),
            ("snapshot refers", dict.fromkeys(self._named - self._referred.keys(), 0)),
        ):
            unknown = sorted(facts.keys() - self._refs.keys())
            if unknown:
                name = unknown[0].decode(errors="replace")
                problem = f"{len(unknown)} facts that its {what} to are not among its references, such as {name!r}"
                self._found(problem, *(_scored(fact, facts[fact]) for fact in unknown), ("count.refs", ""))
        wrong = {
            fact: self._referred.get(fact, most)
            for fact, score in sorted(self._refs.items())
            if not (self._referred.get(fact, 0) <= score <= most or score == inf)
        }
        if wrong:
            fact = next(iter(wrong))
            self._found(
                f"the scores of {len(wrong)} of its references are wrong, such as {self._refs[fact]:.0f} for "
                f"{fact.decode(errors='replace')!r} instead of {wrong[fact]:.0f}",
                *(_scored(fact, score) for fact, score in wrong.items()),
            )

    def _judge_scores(self, scores: Mapping[str, float | None], now_ms: int) -> None:
        """Judge its scores in those of the partition's sorted sets that can be read."""
        _, last = self._times or (b"", b"")
        index = scores.get("index", 0.0)
        if index is None or not 0 <= index <= MAX_CURSOR:
            written = f"{int(last)}000" if last.isdigit() else str(self._number("created"))
            problem = "not in the index: listings skip it" if index is None else f"in the index with {index}"
            self._found(f"it is {problem}", ("index", written))
        is_away = b"completed" in self._meta or b"parked" in self._meta
        for key, what, field, is_member in (
            ("leases", "leased", "lease_until", b"lease_until" in self._meta and not is_away),
            ("expiring", "expiring", "expires", b"expires" in self._meta),
            ("completed", "completed", "completed", b"completed" in self._meta),
            ("parked", "parked", "parked", b"parked" in self._meta and b"completed" not in self._meta),
        ):
            wanted = float(self._number(field)) if is_member else None
            if scores.get(key, wanted) != wanted:
                problem = f"its time among the {what} is {scores[key]}, and should be {wanted}"
                self._found(problem, (key, "" if wanted is None else f"{wanted:.0f}"))
        self._judge_queues(scores, now_ms, is_away=is_away)
        self._judge_labels(scores)
        if b"sliding" in self._meta and b"expires" not in self._meta:
            self._found("it has a lifetime that writes extend, and no end", ("meta.sliding", ""))

    def _judge_queues(self, scores: Mapping[str, float | None], now_ms: int, *, is_away: bool) -> None:
        """Judge its scores in queues. A workflow that is neither completed nor parked is in its queue alone."""
        if b"queue" in self._meta and queue_name(self._meta[b"queue"]) is None:
            self._found(f"{self._keys.meta}: queue is {self._meta[b'queue']!r:.200}, and no name of a queue")
            return
        own = queue_name(self._meta.get(b"queue"))
        found = [name for name in self._queues() if scores.get(f"queue:{name}") is not None]
        if own is None and found and not is_away:
            own = found[0]
            self._found(f"it is in the queue {own!r}, and its meta hash names none", ("meta.queue", own))
        for name in found:
            if name != own or is_away:
                away = "completed" if b"completed" in self._meta else "parked" if is_away else f"in the queue {own!r}"
                self._found(f"it is in the queue {name!r}, although it is {away}", (f"queue:{name}", ""))
        place = f"queue:{own}"
        if own is None or is_away or place not in scores:
            return
        until, lasts = self._number("lease_until"), self._number("lease_ms")
        is_leased = now_ms < until <= now_ms + lasts
        score = scores[place]
        if score is None or not score >= 0:
            _, written = self._times or (b"", b"")
            due = int(written) if written.isdigit() else self._number("created") // 1000
            due = until if is_leased else due
            lost = "not in its queue" if score is None else f"in its queue with {score}"
            self._found(f"it is {lost}, {own!r}: no claim finds it", (place, str(due)))
        elif is_leased and score != until:
            self._found(
                f"its time in the queue {own!r} is {score}, and should be {until}, the end of its lease",
                (place, str(until)),
            )

    def _judge_labels(self, scores: Mapping[str, float | None]) -> None:
        """Judge its scores in the sets of workflows with its attributes, and with its parent."""
        created = float(self._number("created") // 1000)
        for name in self._labels():
            if b"created" in self._meta and scores.get(name, created) != created:
                lost = "not" if scores[name] is None else f"with {scores[name]}"
                self._found(f"it is {lost} in the set {name!r}, by which it is found", (name, f"{created:.0f}"))

    def _judge_lives(self, left_ms: Sequence[int]) -> None:
        """Find keys that Redis would delete: the store gives no key of a workflow a time to live."""
        mortal = [key for key, left in zip(self._own, left_ms, strict=True) if left >= 0]
        if mortal:
            self._found(f"these keys have a time to live, which no store has set: {', '.join(mortal)}")

    def _judge_numbers(self) -> None:
        """Find numbers of the meta hash that are none; last, since other repairs may replace them."""
        repairs = {repair[0]: repair for finding in self.findings for repair in finding.repairs}
        for name in _NUMBERS:
            value = self._meta.get(name.encode())
            if value is not None and not is_cursor(value):
                counted = "count.inbox" if name == "cancel" else f"count.{name}"
                repair = repairs.get(f"meta.{name}") or repairs.get(counted)
                self._found(f"{self._keys.meta}: {name} is {value!r:.40}, and no number", *([repair] if repair else []))

    def _take_facts(self, replies: Sequence[Any]) -> None:
        some, self._facts = self._facts[: len(replies)], self._facts[len(replies) :]
        for fact, reply in zip(some, replies, strict=True):
            name = fact.decode(errors="replace")
            if isinstance(reply, ErrorReply):
                self._found(f"the fact {name!r}, which it refers to, cannot be read: {reply.message}")
            elif not reply:
                self._missing.append(f"the fact {name!r}, which it refers to, is missing")
            elif self._facts_too and not fact_matches(fact, reply):
                self._found(f"the fact {name!r}, which it refers to, is damaged")
        if not self._facts:
            self._step = "inbox"

    def _take_inbox(self, replies: Sequence[Any]) -> None:
        self._inbox.receive(replies)
        if self._inbox.done:
            has_tags = self._keys.tags in self._own or b"tags" in self._meta or self._tags.has_wanted
            self._step = "tags" if has_tags else "end"

    def _take_tags(self, replies: Sequence[Any]) -> None:
        self._tags.receive(replies)
        if self._tags.done:
            self._step = "end"

    def _take_end(self, replies: Sequence[Any]) -> None:
        keys = self._keys
        places = self._sets()
        earlier, *values = replies[: 1 + len(places)]
        *left, clock, later, packed = replies[1 + len(places) :]
        scores = dict(zip(places, values, strict=True))
        before, self._meta = dict(pairs(earlier or [])), dict(pairs(later or []))
        another = any(self._before.get(name) != self._meta.get(name) for name in (b"created", b"queue"))
        another = another or label_fields(self._before) != label_fields(self._meta)
        scored = any(before.get(name) != self._meta.get(name) for name in _SCORED)
        trimmed = self._before.get(b"trimmed") != self._meta.get(b"trimmed")
        released = trimmed or self._number("refs") < cursor_or_zero(self._before.get(b"refs"))
        if another or scored or (self._missing and released):
            self._look_again()
            return
        self._step = "done"
        self._named &= self._unpacked(packed)
        for problem in self._missing:
            self._found(problem)
        if self._leftovers:
            # It was deleted in part, or its events are lost: nothing tells which.
            self._found("only references to facts, commit ids, message ids or tags are left of it")
        elif self.there:
            last_ms = self._inbox.last_ms.encode()
            self._times = self._times or (last_ms and (last_ms, last_ms)) or None
            self._tags.judge(self._position, self._number("cursor"), self._number("trimmed"))
            for problem, repairs in (*self._inbox.findings, *self._tags.findings):
                self._found(problem, *repairs)
            self._judge()
            readable = {
                name: None if score is None else float(score)
                for name, score in scores.items()
                if set_key(keys, name) not in self._foreign
            }
            self._judge_scores(readable, time_us(clock) // 1000)
            self._judge_lives(left)
            self._judge_numbers()
        else:
            self._judge_absence(scores)
        if self._foreign.intersection(repaired_keys(keys, self._further_sets())):
            # The script changes nothing beside a foreign value.
            self.findings = [replace(one, repairs=()) for one in self.findings]

    def _unpacked(self, packed: bytes | None) -> set[bytes]:
        """Return the facts that the snapshot refers to."""
        try:
            return set(unpack_refs(packed or b""))
        except DecodeError as error:
            self._found(str(error))
            return set()

    def _look_again(self) -> None:
        self._tries += 1
        self._begin()
        if self._tries == _TRIES:
            self._step = "done"

    def _number(self, name: str) -> int:
        return cursor_or_zero(self._meta.get(name.encode()))


def set_key(keys: WorkflowKeys, name: str) -> str:
    """Return the key of one of the partition's sorted sets by its name in repairs, such as ``queue:<name>``."""
    return keys.index.removesuffix("index") + name


def queue_name(value: bytes | None) -> str | None:
    """Return the name of a queue as it is stored; None without one, and for one that is damaged."""
    try:
        return None if value is None else check_queue(value.decode())
    except (InvalidArgument, UnicodeDecodeError):
        return None


def _scored(fact: bytes, score: float) -> tuple[str, Argument]:
    """Return the repair that gives a reference its score."""
    return "refs", b"%.0f %b" % (score, fact)
