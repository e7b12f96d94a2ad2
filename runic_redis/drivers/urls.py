"""Parses and checks URLs and their options. Nothing here connects."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote_to_bytes, urlsplit

from runic_redis.errors import InvalidArgument

EXAMPLES = (
    "redis://localhost:6379/0, rediss://…, unix:///run/redis.sock, redis+cluster://host1,host2, "
    "redis+sentinel://host1,host2/service/0, embedded:///directory or memory://name"
)


def is_utf_8(url: str) -> bool:
    """Whether a URL is UTF-8, percent-encoded or not: a str from the environment may hold other bytes as surrogates."""
    try:
        unquote_to_bytes(url.encode()).decode()
    except UnicodeError:
        return False
    return True


_HOST = re.compile(r"([^:@\[\]]*|\[[^@\]]*\])(:\d+)?")


def shown(url: str) -> str:
    """Return a URL without user, password, options and fragment: safe to print, even if it is malformed."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    before, *behind = re.split(r"[?#]", rest, maxsplit=1)
    place = before.rpartition("@")[2]
    # With an @ behind, a password may have begun before; and a port that is no number may be one.
    if "@" in "".join(behind) or not all(map(_HOST.fullmatch, place.partition("/")[0].split(","))):
        place = "…"
    return scheme + separator + place[:200]


TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


# The options of a URL. redis-py accepts more: these have no text form, or change what is sent.
OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "health_check_interval",
        "max_connections",
        "password",
        "protocol",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "username",
    }
)


_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
    }
)


_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})


SENTINEL_OPTIONS = frozenset({"sentinel_password", "sentinel_username"})


_REFUSED_OPTIONS = {
    "decode_responses": "the store keeps bytes, so decode_responses cannot be set",
    "retry_on_timeout": "retry_on_timeout would send a command twice; the store retries safely by itself",
    "retry_on_error": "retry_on_error would send a command twice; the store retries safely by itself",
}


def parse_options(
    url: str, parse_url: Callable[[str], dict[str, Any]], allowed: frozenset[str] = OPTIONS
) -> dict[str, Any]:
    """Return what redis-py reads from a URL, and reject mistakes that it accepts."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and ("@" in parts.path + parts.query or parts.fragment):
        raise InvalidArgument("it has special characters (one of @ / ? #) that must be percent-encoded")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name in _REFUSED_OPTIONS:
            raise InvalidArgument(_REFUSED_OPTIONS[name])
        known = allowed | _TLS_OPTIONS if parts.scheme == "rediss" else allowed
        if name not in known:
            # Beside a password it may be a part of that, behind an & that was not encoded.
            shown = "something beside the password" if any("password" in one for one in given) else name[:40]
            raise InvalidArgument(f"{shown} is not an option of it; it takes {', '.join(sorted(known))}")
    if parts.scheme == "unix":
        if not parts.path:
            raise InvalidArgument("it names no socket: write unix:///run/redis.sock")
    else:
        _check_host(parts.hostname or "")
        _check_database(parts)
    options: dict[str, Any] = parse_url(url)
    _check_values(options)
    return options


def _check_values(options: dict[str, Any]) -> None:
    for name in TIMEOUTS:
        if name in options and not 0 < options[name] < float("inf"):
            raise InvalidArgument(f"{name} is a number of seconds above 0")
    for name in _TLS_FILES & options.keys():
        if not Path(options[name]).exists():
            raise InvalidArgument(f"{name} names a file that does not exist")
    if "protocol" in options:
        options["protocol"] = check_protocol(int(options["protocol"]))
    if options.get("max_connections", 2) < 2:
        raise InvalidArgument("max_connections is at least 2: a reader of many events has its own connection")


def check_protocol(protocol: int) -> int:
    """Return the RESP version of a URL.

    Raises:
        InvalidArgument: it is neither 2 nor 3.
    """
    if protocol not in {2, 3}:
        raise InvalidArgument("protocol is 2 or 3")
    return protocol


def _check_host(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise InvalidArgument("its host is no name that a host can have") from None


def _check_database(parts: SplitResult) -> None:
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise InvalidArgument("the database, what follows the host, is a number")


def own_options(parts: SplitResult, *known: str) -> dict[str, str]:
    """Return the options of a URL that redis-py never sees."""
    if parts.fragment:
        raise InvalidArgument("a # in it must be percent-encoded")
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    for name in options:
        if name not in known:
            raise InvalidArgument(f"{parts.scheme}:// knows the options {' and '.join(known)}, not {name[:40]}")
    return options


def split_hosts(url: str, scheme: str, default_port: int) -> tuple[list[tuple[str, int]], str]:
    """Return the hosts of a URL that names several, and the URL with only the first, as redis-py reads it."""
    match = re.match(r"(rediss?)\+\w+://(?:([^@/]*)@)?([^/?]*)(.*)", url, re.DOTALL)
    if match is None:
        raise InvalidArgument(f"it is not of the form {scheme}://host1,host2")
    base, login, hosts, rest = match.groups()
    found = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        if not address.hostname:
            raise InvalidArgument(f"it names no host: write {scheme}://host1,host2")
        _check_host(address.hostname)
        found.append((address.hostname, address.port or default_port))
    who = f"{login}@" if login is not None else ""
    return found, f"{base}://{who}{hosts.split(',')[0]}{rest}"
