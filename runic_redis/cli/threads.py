"""The verb `import-langgraph`, which imports threads from other checkpoint savers."""

from importlib.util import find_spec
from typing import Annotated

import typer

from runic_redis.cli.moving import report_problems
from runic_redis.cli.options import NAMESPACE_VARIABLE, PATIENT_S, AsJson, Feed, Partitions, Url, opened
from runic_redis.cli.output import EXIT_USAGE, counted, print_json, progress, stop
from runic_redis.events import EventRegistry

SOURCE_VARIABLE = "RUNIC_REDIS_FROM_URL"


def import_langgraph(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar=SOURCE_VARIABLE,
            metavar="SOURCE",
            help="The checkpoints to import: sqlite:PATH, postgres://…, or those of langgraph-checkpoint-plainredis "
            "at redis://…, rediss://… or unix://….",
            show_default=False,
        ),
    ],
    *,
    url: Url = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", envvar=NAMESPACE_VARIABLE, metavar="NAME", help="The namespace.")
    ] = "langgraph",
    partitions: Partitions = None,
    feed: Feed = None,
    as_json: AsJson = False,
) -> None:
    """Import the threads of another LangGraph checkpointer, for RunicSaver. The source is not changed.

    Each checkpoint is read back and compared with the source, with its metadata, its parent and its pending writes. The
    same command continues an interrupted import, and imports what the source has got since. Values are not decoded.
    """
    if find_spec("langgraph") is None or find_spec("langgraph.checkpoint") is None:
        stop("This needs LangGraph: pip install 'runic-redis[langgraph]'. Nothing was changed.", EXIT_USAGE)
    from runic_redis.langgraph.importing import ThreadImporter  # noqa: PLC0415 - langgraph is an extra
    from runic_redis.langgraph.sources import open_source  # noqa: PLC0415

    threads = open_source(source)
    try:
        with opened(
            *(url, namespace),
            partitions=partitions,
            feed=feed,
            may_be_new=True,
            deadline_s=PATIENT_S,
            registry=EventRegistry(),
        ) as store:
            importer = ThreadImporter(store, threads)
            with progress("threads", threads.count(), quiet=as_json) as step:
                for done, thread in enumerate(threads.threads(), 1):
                    importer.take(thread)
                    step.to(done)
    finally:
        threads.close()
    found = {"threads": importer.threads, "checkpoints": importer.checkpoints, "writes": importer.writes}
    if as_json:
        print_json({**found, "there_already": importer.there, "problems": importer.problems})
    else:
        there = f"; {counted(importer.there, 'thread')} existed already" if importer.there else ""
        print("imported: " + ", ".join(counted(number, noun[:-1]) for noun, number in found.items()) + there)
    report_problems(importer.problems)
