"""The verbs that move data: `export`, `import` and `copy`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from runic_redis.admin.archive import ArchiveReader, ArchiveWriter, Record
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.cli.options import PATIENT_S, AsJson, Feed, Namespace, Partitions, Url, WorkflowIds, opened
from runic_redis.cli.output import EXIT_NO, Step, bytes_text, counted, note, print_json, progress
from runic_redis.context import URL_VARIABLE
from runic_redis.errors import printable

TARGET_VARIABLE = "RUNIC_REDIS_TO_URL"
_SHOWN = 20


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Write workflows, with the facts that they refer to, to an archive; without IDs, all workflows and facts.

    Safe to run while writers are active: each workflow is exported as it is at one moment. FILE appears once it is
    complete. An interrupted export leaves FILE.partial, and the same command continues it.
    """
    with opened(url, namespace, deadline_s=PATIENT_S) as store, ArchiveWriter(file) as archive:
        exporter = Exporter(store.context, workflow_ids or None)
        for record in archive.found:
            exporter.note(record)
        gone_on = exporter.workflows
        with progress("workflows", store.run(exporter.count(), "export"), quiet=as_json) as step:
            store.run(exporter.run(_stepping(archive.write, exporter, step)), "export")
        archive.finish()
        size = archive.size
    found = {"file": str(file), "bytes": size, **_counts(exporter), "resumed_with": gone_on}
    if as_json:
        print_json({**found, "problems": exporter.problems})
    else:
        resumed = f" ({gone_on:,} of them by an earlier run)" if gone_on else ""
        print(f"{printable(str(file))}: {_text(exporter)}{resumed}, {bytes_text(size)}")
    report_problems(exporter.problems)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive.", exists=True, dir_okay=False)],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    partitions: Partitions = None,
    feed: Feed = None,
    as_json: AsJson = False,
) -> None:
    """Import an archive, into any namespace of any server.

    A workflow appears once it is complete. A workflow that exists already is not changed. The same command continues
    an interrupted import. The import checks the archive as it reads it, and `verify` checks the result.
    """
    with (
        opened(url, namespace, partitions=partitions, feed=feed, may_be_new=True, deadline_s=PATIENT_S) as store,
        ArchiveReader(file) as archive,
    ):
        importer = Importer(store.context)
        with progress("bytes", archive.size, quiet=as_json) as step:
            for record in archive:
                store.run(importer.take(record), "import")
                step.to(archive.position)
    _report_import(importer, as_json=as_json)


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", envvar=URL_VARIABLE, help="The URL to copy from.")],
    target: Annotated[str, typer.Argument(metavar="TO", envvar=TARGET_VARIABLE, help="The URL to copy to.")],
    workflow_ids: WorkflowIds = None,
    *,
    namespace: Namespace = "runic",
    to_namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The namespace to copy to; by default the same name.")
    ] = None,
    partitions: Partitions = None,
    feed: Feed = None,
    as_json: AsJson = False,
) -> None:
    """Copy workflows, with the facts that they refer to, between servers; without IDs, all workflows and facts.

    This is an export and an import in one, without a file. The same command continues an interrupted copy.
    """
    with (
        opened(source, namespace, deadline_s=PATIENT_S) as store,
        opened(
            *(target, to_namespace or namespace),
            partitions=partitions,
            feed=feed,
            may_be_new=True,
            deadline_s=PATIENT_S,
        ) as there,
    ):
        exporter = Exporter(store.context, workflow_ids or None)
        importer = Importer(there.context)

        def take(record: Record) -> None:
            there.run(importer.take(record), "import")

        with progress("workflows", store.run(exporter.count(), "export"), quiet=as_json) as step:
            store.run(exporter.run(_stepping(take, exporter, step)), "export")
    importer.problems[:0] = exporter.problems
    _report_import(importer, as_json=as_json)


def _stepping(write: Any, exporter: Exporter, step: Step) -> Any:
    def written(record: Record) -> None:
        write(record)
        if record[0] == "done":
            step.to(exporter.workflows + 1)

    return written


def _report_import(importer: Importer, *, as_json: bool) -> None:
    if not importer.complete:
        importer.problems.append("The archive is incomplete: it holds less than it announces, or its end is missing.")
    if as_json:
        print_json({**_counts(importer), "there_already": importer.there, "problems": importer.problems})
    else:
        there = f"; {counted(importer.there, 'workflow')} existed already" if importer.there else ""
        print(f"imported: {_text(importer)}{there}")
    report_problems(importer.problems)


def _counts(mover: Exporter | Importer) -> dict[str, int]:
    return {"workflows": mover.workflows, "events": mover.events, "facts": mover.facts}


def _text(mover: Exporter | Importer) -> str:
    counts = (mover.workflows, "workflow"), (mover.events, "event"), (mover.facts, "fact")
    return ", ".join(counted(number, noun) for number, noun in counts)


def report_problems(problems: list[str]) -> None:
    """Print the first problems, and end with exit status 1 if there are any."""
    for problem in problems[:_SHOWN]:
        note(f"runic-redis: {problem}")
    if len(problems) > _SHOWN:
        note(f"runic-redis: and {counted(len(problems) - _SHOWN, 'more problem')}.")
    if problems:
        raise typer.Exit(EXIT_NO)
