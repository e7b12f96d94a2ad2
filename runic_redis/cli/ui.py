"""The verb `ui`: the store as a page in a browser."""

import asyncio
import secrets
from typing import Annotated

import typer

from runic_redis.aio import AsyncRedisStore
from runic_redis.cli.options import AsJson, Namespace, Url, opened
from runic_redis.cli.output import EXIT_USAGE, print_json, stop
from runic_redis.errors import InvalidArgument, printable
from runic_redis.events import bare_registry

TOKEN_VARIABLE = "RUNIC_REDIS_UI_TOKEN"  # noqa: S105 - a name
_SHORTEST_TOKEN = 16
# The deadline of the page's requests to the server.
_DEADLINE_S = 5.0


def ui(
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 for any free port.", min=0, max=65535)] = 8600,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE,
            help="The token that a browser must present. By default, a page that only reads, for this machine alone, "
            "needs none, and for another page a random token is printed.",
        ),
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Let the page replay and drop parked commits of subscriptions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a page that shows the store in a browser, and /metrics for Prometheus, until Ctrl-C.

    Without --allow-changes, the page changes nothing.
    """
    try:
        from runic_redis.ui import is_loopback, serve  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        stop(f"The page needs an extra: pip install 'runic-redis[ui]' ({error}).", EXIT_USAGE)
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isalnum()):
        raise InvalidArgument(f"The token is too weak: use at least {_SHORTEST_TOKEN} ASCII letters and digits.")
    if token is None and (allow_changes or not is_loopback(host)):
        token = secrets.token_hex(_SHORTEST_TOKEN)

    def started(address: str) -> None:
        shown = f"{address}?token={token}" if token else address
        if as_json:
            print_json({"url": shown})
        else:
            print(f"{printable(shown)}\nCtrl-C ends it.")
        print(end="", flush=True)

    # Opened first like in the other verbs, so that failures are reported alike.
    with opened(url, namespace) as store:
        partitions = store.context.keys.partitions

        async def main() -> None:
            async with AsyncRedisStore.from_url(
                url,
                namespace=namespace,
                partitions=partitions,
                deadline_s=_DEADLINE_S,
                registry=bare_registry,
                unknown_events="wrap",
            ) as shown:
                await serve(shown, host, port, token, started, allow_changes=allow_changes)

        asyncio.run(main())
