"""The verbs that check: `verify` what is kept, and `doctor` for the server that keeps it."""

import time
from dataclasses import asdict
from statistics import median, quantiles
from typing import Annotated

import typer
from rich.text import Text

from runic_redis.admin.doctor import Check, Verdict, examine
from runic_redis.admin.verifying import Verified, Verifier
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, WorkflowIds, opened
from runic_redis.cli.output import EXIT_NO, out, print_json, printable, progress, table
from runic_redis.durability import Durability, replicated
from runic_redis.errors import ConfigurationError, DurabilityError, StoreError, WriteRefused
from runic_redis.protocol.effects import Command
from runic_redis.protocol.refusals import ask
from runic_redis.store import RedisStore

__all__ = ["doctor", "verify"]

_ASKED = 200
# For how long a durability is waited for.
_DEADLINE_S = 2.0
_SLOW_MS = 5.0
_CLOCKS_APART_S = 1.0
# How wide the table is, but in a terminal: it has sentences.
_WIDTH = 80
_DURABILITIES: dict[str, Durability] = {
    '"fsync"': "fsync",
    "replicated(1)": replicated(1),
    "replicated(1, fsync=True)": replicated(1, fsync=True),
}
_STYLES: dict[Verdict, str] = {"good": "green", "warning": "yellow", "bad": "bold red", "unknown": "dim"}
# Of a workflow that is not there and never will be: deleting it changes nothing, and is confirmed like any write.
_NOBODY = "runic-redis doctor"


def verify(
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    repair: Annotated[bool, typer.Option("--repair", help="Set right what can be derived from the rest.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether what is kept is whole and true; writers may go on.

    Cursors without gaps, readable entries, facts that are there and true to their hashes, snapshots not above their
    streams, complete indexes. Without IDs, the whole namespace: its workflows, all its keys, all its facts. The exit
    status is 1 if anything is wrong that was not repaired.
    """
    all_of_it = Verified()
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        verifier = Verifier(store.context, workflow_ids or None, repair=repair)
        total = store.run(verifier.open(), "verify")
        with progress("workflows", total, quiet=as_json) as step:
            try:
                while (part := store.run(verifier.next_part(), "verify")) is not None:
                    all_of_it.workflows += part.workflows
                    all_of_it.events += part.events
                    all_of_it.facts += part.facts
                    all_of_it.findings += part.findings
                    step.to(all_of_it.workflows)
            except StoreError:
                # What was found until then counts, and what was repaired.
                _report(all_of_it, named=bool(workflow_ids), complete=False, as_json=as_json)
                raise
    if not _report(all_of_it, named=bool(workflow_ids), complete=True, as_json=as_json):
        raise typer.Exit(EXIT_NO)


def _report(all_of_it: Verified, *, named: bool, complete: bool, as_json: bool) -> bool:
    """Print what was found; whether all is sound."""
    left = [finding for finding in all_of_it.findings if not finding.repaired]
    sound = complete and not left
    if as_json:
        print_json({**asdict(all_of_it), "sound": sound})
    else:
        for finding in all_of_it.findings:
            mark = "repaired" if finding.repaired else "can be repaired" if finding.repairs else "damaged"
            style = "green" if finding.repaired else "yellow" if finding.repairs else "red"
            out.print(Text.assemble((mark, style), printable(f" {finding.kind} {finding.name}: {finding.problem}")))
        facts = f", {all_of_it.facts:,} facts" if not named else ""
        state = "all sound" if sound else f"{len(left):,} problems"
        if not complete:
            state += ", and not all was looked at"
        out.print(f"{all_of_it.workflows:,} workflows, {all_of_it.events:,} events{facts}: {state}")
    return sound


def doctor(*, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """Examine the server: version, persistence, eviction, replicas, user, latency, and what durability is to be had.

    Says what to change. Nothing is kept of it. The exit status is 1 if anything is bad.
    """
    with opened(url, namespace, may_be_new=True, deadline_s=_DEADLINE_S) as store:
        checks = [*store.run(examine(store.context), "doctor"), _writing(store), _latency(store), _clock(store)]
        checks += [_durability(store, name, durability) for name, durability in _DURABILITIES.items()]
    if as_json:
        for check in checks:
            print_json(check._asdict())
    else:
        shown = table("", "", "found", "what to change")
        for check in checks:
            shown.add_row(
                check.name, Text(check.verdict, _STYLES[check.verdict]), printable(check.found), printable(check.advice)
            )
        out.print(shown, width=None if out.is_terminal else _WIDTH)
    if any(check.verdict == "bad" for check in checks):
        raise typer.Exit(EXIT_NO)


def _writing(store: RedisStore) -> Check:
    """Whether a write is taken that changes nothing, and a script, as whatever is written goes by one."""
    key = store.context.keys.workflow(_NOBODY).index
    try:
        store.run(ask(Command(("ZADD", key, "XX", "0", _NOBODY), key)), "doctor")
        store.delete(_NOBODY, durability="memory")
    except StoreError as error:
        return Check("writing", "bad", "a write that changes nothing is refused", str(error))
    return Check("writing", "good", "a write that changes nothing is taken")


def _latency(store: RedisStore) -> Check:
    key = store.context.keys.config
    took_ms = []
    for _ in range(_ASKED):
        began_s = time.perf_counter()
        store.run(ask(Command(("HGET", key, "format"), key)), "doctor")
        took_ms.append((time.perf_counter() - began_s) * 1000)
    usual, nearly_all = median(took_ms), quantiles(took_ms, n=100)[98]
    found = f"{usual:.2f} ms a round trip, 99 of 100 within {nearly_all:.2f} ms, the longest {max(took_ms):.1f} ms"
    if nearly_all > _SLOW_MS:
        return Check("latency", "warning", found, "A lone append takes as long: come nearer, or see LATENCY DOCTOR.")
    return Check("latency", "good", found)


def _clock(store: RedisStore) -> Check:
    key = store.context.keys.config
    try:
        seconds, micros = store.run(ask(Command(("TIME",), key)), "doctor")
    except ConfigurationError:
        return Check("clock", "unknown", "TIME is refused", "Allow the user +time, for this.")
    apart_s = int(seconds) + int(micros) / 1e6 - time.time()
    found = f"the server's is {abs(apart_s):.2f} s {'ahead' if apart_s > 0 else 'behind'}"
    if abs(apart_s) > _CLOCKS_APART_S:
        return Check("clock", "warning", found, "Times of commits and leases are the server's: have NTP set both.")
    return Check("clock", "good", found)


def _durability(store: RedisStore, name: str, durability: Durability) -> Check:
    """Whether a durability is to be had, by having a write confirmed so that changes nothing."""
    began_s = time.perf_counter()
    try:
        store.delete(_NOBODY, durability=durability)
    except DurabilityError as error:
        found = f"not confirmed within {_DEADLINE_S:.0f} s"
        # Without an append-only file the server would have said so; without a replica it waits for one.
        if durability == "fsync":
            return Check(name, "bad", found, str(error))
        needs = "that syncs its append-only file" if durability == replicated(1, fsync=True) else "that keeps up"
        return Check(name, "unknown", found, f"Give the server a replica {needs}, or use another durability.")
    except WriteRefused as error:
        return Check(name, "bad", "the server takes no writes", str(error))
    except StoreError as error:
        return Check(name, "unknown", "not to be had of this server", str(error))
    return Check(name, "good", f"confirmed in {(time.perf_counter() - began_s) * 1000:.1f} ms")
