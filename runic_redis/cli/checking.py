"""The verbs that check: `verify` for the stored data, and `doctor` for the server."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from runic_redis.admin.doctor import Verdict
from runic_redis.admin.doctor import doctor as run_doctor
from runic_redis.admin.verifying import Verified, Verifier
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, WorkflowIds, opened
from runic_redis.cli.output import EXIT_NO, console, counted, print_json, progress, styled, table
from runic_redis.errors import StoreError, printable

# For how long `doctor` waits for the server, and for each durability.
_DEADLINE_S = 2.0
# How wide the report of `doctor` is, in a wider terminal too.
_WIDTH = 80
_STYLES: dict[Verdict, str] = {"good": "green", "warning": "yellow", "bad": "bold red", "unknown": "dim"}


def verify(
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair damage whose right value can be derived from other data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that stored data is complete and consistent. Safe to run while writers are active.

    Checks that cursors have no gaps, entries are readable, facts exist and match their hashes, snapshots are not
    ahead of their events, and indexes are complete. Without IDs it checks the whole namespace: its workflows, all its
    keys, all its facts. Ends with exit status 1 if there is damage that was not repaired.
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
                # Report the damage that was found, and repaired, before the failure.
                _report(all_of_it, named=bool(workflow_ids), complete=False, as_json=as_json)
                raise
    if not _report(all_of_it, named=bool(workflow_ids), complete=True, as_json=as_json):
        raise typer.Exit(EXIT_NO)


def _report(all_of_it: Verified, *, named: bool, complete: bool, as_json: bool) -> bool:
    """Print the findings. Return whether no damage is left."""
    left = [finding for finding in all_of_it.findings if not finding.repaired]
    sound = complete and not left
    if as_json:
        print_json({**asdict(all_of_it), "sound": sound})
    else:
        out = console()
        for finding in all_of_it.findings:
            mark = "repaired" if finding.repaired else "can be repaired" if finding.repairs else "damaged"
            style = "green" if finding.repaired else "yellow" if finding.repairs else "red"
            out.print(styled((mark, style), printable(f" {finding.kind} {finding.name}: {finding.problem}")))
        counts = [counted(all_of_it.workflows, "workflow"), counted(all_of_it.events, "event")]
        if not named:
            counts.append(counted(all_of_it.facts, "fact"))
        state = "no damage" if sound else counted(len(left), "problem")
        if not complete:
            state += ", and not everything was checked"
        out.print(f"{', '.join(counts)}: {state}")
    return sound


def doctor(*, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """Examine the server: version, persistence, memory, replicas, user, latency, clock, and each durability.

    Advises what to change. Stores nothing. Ends with exit status 1 if anything is bad.
    """
    with opened(url, namespace, may_be_new=True, deadline_s=_DEADLINE_S) as store:
        checks = store.run(run_doctor(store.context, time.time, time.perf_counter), "doctor")
    if as_json:
        for check in checks:
            print_json(check._asdict())
    else:
        shown = table("", "", "")
        for check in checks:
            advice = f"\n→ {printable(check.advice)}" if check.advice else ""
            found = styled(printable(check.found), (advice, "bold"))
            shown.add_row(check.name, styled((check.verdict, _STYLES[check.verdict])), found)
        out = console()
        out.print(shown, width=min(out.width, _WIDTH))
    if any(check.verdict == "bad" for check in checks):
        raise typer.Exit(EXIT_NO)
