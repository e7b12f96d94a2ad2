"""What the command line and the page write: in any encoding, safe to show, and exact."""

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

from runic_redis import (
    AsyncRedisStore,
    Fact,
    InvalidArgument,
    RedisStore,
    StoreError,
    UnknownEvent,
    event,
    replicated,
)
from runic_redis.cli.main import main
from runic_redis.errors import printable, reason, short_repr
from runic_redis.events.plain import int_text, json_text, to_json, value_text
from runic_redis.recovery import EveryEvents
from tests.pages import serving
from tests.portal import BlockingStore
from tests.servers import RunningServer

# Control characters of both sets, DEL, marks and overrides of direction, isolates, no width, separators, a tag, and
# a lone surrogate where text may have one.
UNSEEN = "\x1b\x07\x00\x7f\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0001"
HOSTILE = f"{UNSEEN}[31m straße 日本 \U0001f600 [red]x[/red] '\"\\"
ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252", "utf-16", "shift_jis")
# What Python's own str() refuses, whatever the limit; what it writes at the lowest limit; and between.
LONG = 10**5000
INTS = (LONG, -LONG, 10**700, 2**2048 - 1, 2**53 + 1, -(2**63), 10**20_000)


@event(f"placed{UNSEEN}")
@dataclass
class Placed:
    """Its name is hostile too."""

    by: str


class Unprintable:
    """Fails where it is printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process, with an output of an encoding: its status, and what it wrote where."""

    def run(encoding: str, *arguments: str) -> tuple[int, str, str]:
        outputs = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]
        monkeypatch.setattr(sys, "argv", ["runic-redis", *arguments])
        monkeypatch.setattr(sys, "stdout", outputs[0])
        monkeypatch.setattr(sys, "stderr", outputs[1])
        with pytest.raises(SystemExit) as ended:
            main()
        texts = []
        for output in outputs:
            output.flush()
            texts.append(output.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
        assert isinstance(ended.value.code, int)
        return ended.value.code, texts[0], texts[1]

    return run


@pytest.fixture
def shop(valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    monkeypatch.setenv("RUNIC_REDIS_URL", valkey.url())
    monkeypatch.setenv("RUNIC_REDIS_NAMESPACE", namespace)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4, feed=True) as store:
        events = [{HOSTILE: HOSTILE, "report": Fact({"text": HOSTILE})}, {"n": LONG, LONG: {LONG}}, {"x": float("nan")}]
        store.append(HOSTILE, [Placed(HOSTILE)])
        store.append(HOSTILE, events, metadata={HOSTILE: HOSTILE, "n": LONG}, snapshot=b"\xff")
        store.release(store.acquire(HOSTILE, f"worker {HOSTILE}"))
        with store.subscribe("mailer", wait_s=0) as mailer:
            mailer.park(next(mailer), HOSTILE)
        yield store


def _shown(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_verb_writes_in_any_encoding_what_is_safe_to_show(
    encoding: str, runs: Run, shop: RedisStore, tmp_path: Path
) -> None:
    (past,) = shop.stream(HOSTILE, after=1, until=2)
    archive = str(tmp_path / f"{encoding} straße 日本\u202e.archive")
    verbs: list[tuple[int, tuple[str, ...]]] = [
        (0, ("workflows",)),
        (0, ("show", HOSTILE)),
        (0, ("events", HOSTILE)),
        (0, ("events", HOSTILE, "--type", f"placed{UNSEEN}")),
        (0, ("tail", HOSTILE, "--last", "3", "--limit", "3")),
        (0, ("feed", "--type", f"placed{UNSEEN}")),
        (0, ("subscriptions",)),
        (0, ("parked", "mailer")),
        (2, ("parked", HOSTILE)),
        (1, ("parked", "mailer", "--replay", f"none {HOSTILE}")),
        (0, ("facts", past["report"].hash)),
        (1, ("facts", HOSTILE)),
        (0, ("stats",)),
        (0, ("verify", HOSTILE)),
        (1, ("show", f"none {HOSTILE}")),
        (1, ("trim", f"none {HOSTILE}")),
        (0, ("trim", HOSTILE)),
        (0, ("export", archive, HOSTILE)),
        (2, ("export", archive, HOSTILE)),
        (0, ("import", archive)),
        (2, ("import", f"{archive}.none")),
        (1, ("delete", f"none {HOSTILE}")),
        (0, ("--help",)),
        (0, ("events", "--help")),
    ]
    for status, arguments in verbs:
        for as_json in ((), ("--json",)) if status == 0 and "--help" not in arguments else ((),):
            if as_json and arguments[0] == "export":
                Path(archive).unlink()
            found, out, err = runs(encoding, *arguments, *as_json)
            assert found == status, (arguments, err)
            assert _shown(out), arguments
            assert _shown(err), arguments
            if as_json:
                assert out.isascii()
                assert [json.loads(line) for line in out.splitlines()]


def test_json_is_parsed_to_what_was_stored(runs: Run, shop: RedisStore) -> None:
    _, out, _ = runs("ascii", "events", HOSTILE, "--json")
    _, first, second, third = map(json.loads, out.splitlines())
    assert first["workflow"] == HOSTILE
    assert first["fields"][HOSTILE] == HOSTILE
    assert first["metadata"] == {HOSTILE: HOSTILE, "n": {"$int": int_text(LONG)}}
    assert second["fields"] == {"$map": [["n", {"$int": int_text(LONG)}], [{"$int": int_text(LONG)}, _set_of_long()]]}
    assert third["fields"] == {"x": {"$float": "nan"}}


def _set_of_long() -> dict[str, Any]:
    return {"$set": [{"$int": int_text(LONG)}]}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        (f"--{HOSTILE}",),
        ("events",),
        ("events", "x", "--limit", HOSTILE),
        ("events", "x", f"--{HOSTILE}"),
        ("workflows", "--state", HOSTILE),
        ("import", HOSTILE),
        ("events", "x", "--namespace", HOSTILE),
        ("events", "x", "--url", HOSTILE),
        ("events", "x", "--url", f"redis://{HOSTILE}"),
        ("events", "x", "--url", "redis://\u202e"),
        ("events", "x", "--url", f"redis+cluster://a,{'b' * 64}"),
        ("events", "x", "--url", f"embedded:///dev/null/{HOSTILE}"),
        ("events", "\udcff"),
        ("workflows", "\udcff"),
        ("facts", "\udcff"),
        ("delete", "\udcff"),
        ("export", "/nowhere/\udcff", "x"),
        ("import", "/nowhere/\udcff"),
        ("serve", f"/dev/null/{HOSTILE.replace(chr(0), '')}"),
        ("ui", "--token", HOSTILE),
    ],
    ids=ascii,
)
def test_wrong_use_is_a_line_in_any_encoding(
    encoding: str, arguments: tuple[str, ...], runs: Run, shop: RedisStore
) -> None:
    status, out, err = runs(encoding, *arguments)
    assert status in {1, 2, 3}
    assert out == ""
    assert err.startswith("runic-redis: ")
    assert err.endswith(".\n") or "See runic-redis" in err
    assert _shown(err)
    assert err.count("\n") == 1


def _started(shell: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = shell.replace("CLI", f"{sys.executable} -m runic_redis.cli.main")
    return subprocess.run(
        ["bash", "-c", command], env={**os.environ, **environment}, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("CLI workflows >&-", 0),
        ("CLI workflows --json >&-", 0),
        ("CLI show none 2>&-", 1),
        ("CLI nonsense 2>&-", 2),
        ("CLI delete x <&-", 2),
        ("CLI workflows <&- >&- 2>&-", 0),
        ("CLI events $'\\xff\\xfe'", 2),
        ("CLI workflows >/dev/full", 3),
    ],
)
def test_closed_streams_and_bytes_that_are_no_text_leave_no_traceback(
    shell: str, status: int, shop: RedisStore
) -> None:
    shop.append("x", [{"n": 1}])
    done = _started(shell)
    assert done.returncode == status, done
    assert b"Traceback" not in done.stderr
    assert b"runic-redis:" not in done.stdout


def test_a_terminal_of_plain_c_shows_what_it_has_no_letters_for(shop: RedisStore) -> None:
    shop.append("straße", [{"city": "Łódź"}])
    done = _started("CLI events $'stra\\xc3\\x9fe'", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    # Python takes such arguments for bytes, so that the id is the same.
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"city='\\u0141\\xf3d\\u017a'" in done.stdout


@pytest.fixture(params=[4300, 640, 0])
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Python's limit of digits: as it is, as low as may be, and none."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(request.param)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("number", INTS, ids=int.bit_length)
def test_an_int_is_written_whole_whatever_the_limit(number: int) -> None:
    assert value_text({number: [number]}) == f"{{{int_text(number)}: [{int_text(number)}]}}"
    form = json.loads(json.dumps(to_json(number)))
    assert form == (number if number.bit_length() <= 2048 else {"$int": int_text(number)})
    assert json.loads(json_text(to_json([number]))) == [form]
    assert int_text(number) in {hex(number), f"{Decimal(number):f}"}


def test_values_of_other_types_that_hold_long_ints_and_unseen_characters_are_shown(runs: Run, shop: RedisStore) -> None:
    text = HOSTILE.replace("\0", "")
    held: list[Any] = [
        Fraction(LONG, 3),
        deque([LONG]),
        range(LONG),
        Counter({LONG: 1}),
        OrderedDict({LONG: LONG}),
        defaultdict(list, {text: LONG}),
        PurePosixPath(text),
        re.compile(re.escape(text)),
        complex(1, float("nan")),
    ]
    shop.append("held", [{"one": value} for value in held])
    for as_json in ((), ("--json",)):
        status, out, err = runs("ascii", "events", "held", *as_json)
        assert (status, err) == (0, "")
        assert _shown(out)
        assert len(out.splitlines()) == len(held)
        assert out.count(int_text(LONG)) >= 7
    assert [json.loads(line)["cursor"] for line in out.splitlines()] == list(range(1, len(held) + 1))


@pytest.mark.usefixtures("limit")
def test_an_int_is_shown_by_every_verb_whatever_the_limit(runs: Run, shop: RedisStore) -> None:
    for as_json in ((), ("--json",)):
        status, out, err = runs("ascii", "events", HOSTILE, *as_json)
        assert (status, err) == (0, "")
        assert out.count("1" + "0" * 5000) >= 3


@pytest.fixture(params=["sync", "asyncio"])
def either(request: pytest.FixtureRequest, namespace: str) -> Iterator[Any]:
    opener: Callable[..., Any] = (
        RedisStore.from_url
        if request.param == "sync"
        else lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))
    )
    with opener(f"memory://{namespace}", namespace=namespace) as store:
        yield store


@pytest.mark.parametrize("value", [LONG, -LONG, Unprintable()], ids=["long", "negative", "unprintable"])
def test_an_error_names_a_value_that_cannot_be_printed(value: Any, either: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: either.append(value, [{}]),
        lambda: either.append("w", [value]),
        lambda: either.append("w", value),
        lambda: either.append("w", [{}], expected_cursor=value),
        lambda: either.append("w", [{}], commit_id=value),
        lambda: either.append("w", [{}], durability=value),
        lambda: either.append("w", [{}], lease=value),
        lambda: either.append("w", [{value: {value: Unprintable()}}]),
        lambda: either.append_many([value]),
        lambda: either.append_many(value),
        lambda: list(either.stream("w", after=value)),
        lambda: either.cursor(value),
        lambda: list(either.list(prefix=value)),
        lambda: list(either.list(limit=value)),
        lambda: either.acquire("w", value),
        lambda: either.acquire("w", "me", ttl=value),
        lambda: either.claim("me", limit=value),
        lambda: either.load_fact(value),
        lambda: either.load_facts(value),
        lambda: either.load_facts([value]),
        lambda: either.save_snapshot("w", value, b""),
        lambda: either.save_snapshot("w", 1, value),
        lambda: either.trim("w", keep=value),
        lambda: either.collect(value),
        lambda: RedisStore.from_url(value),
        lambda: RedisStore.from_url("memory://", namespace=value),
        lambda: RedisStore.from_url("memory://", partitions=value),
        lambda: RedisStore.from_url("memory://", deadline_s=value),
        lambda: RedisStore.from_url("memory://", unknown_events=value),
        lambda: RedisStore.from_url("memory://", durability=value),
        lambda: replicated(value),
        lambda: EveryEvents(-value if value == LONG else value),
        lambda: event(value)(Placed),
        lambda: event("output_version", version=value)(Placed),
        lambda: event("output_upcasters", upcasters=value)(Placed),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(StoreError) as found:
            call()
        assert "integer string conversion" not in str(found.value), number
        assert str(found.value).isprintable(), number
    assert list(either.list()) == []


def test_the_beginning_of_a_value_is_shown_whatever_its_repr_does() -> None:
    assert short_repr("a" * 200) == "'" + "a" * 79
    assert short_repr([1, 2], 3) == "[1,"
    assert short_repr(LONG) == "a value of the type int that cannot be printed"
    assert short_repr(Unprintable()) == "a value of the type Unprintable that cannot be printed"


def test_what_an_error_repeats_is_safe_to_show() -> None:
    def fail() -> NoReturn:
        raise ValueError(f"two\nlines {UNSEEN}\ud800")

    with pytest.raises(ValueError, match="lines") as found:
        fail()
    assert _shown(reason(found.value))
    assert reason(found.value).startswith("two\nlines \\x1b\\x07\\x00\\x7f\\x85\\x9b\\u061c")
    assert printable("straße 日本 \U0001f600 a\tb") == "straße 日本 \U0001f600 a\\tb"
    assert json.loads(json_text({HOSTILE: [HOSTILE, "\ud800\n"]})) == {HOSTILE: [HOSTILE, "\ud800\n"]}
    assert _shown(json_text({HOSTILE: [HOSTILE, "\ud800\n"]}))


def test_the_page_answers_in_ascii_and_to_the_last_digit(valkey: RunningServer, shop: RedisStore) -> None:
    with serving(valkey.url(), shop.context.keys.namespace) as page:
        for name, query in {
            "workflows": {},
            "workflow": {"id": HOSTILE},
            "events": {"id": HOSTILE},
            "overview": {"id": HOSTILE},
            "graph": {"id": HOSTILE},
        }.items():
            answer = page.ask(f"api/{name}?{urlencode(query)}")
            assert answer.status == 200, name
            assert answer.body.isascii()
            assert answer.json
        assert page.ask(f"api/workflow?{urlencode({'id': 'none' + HOSTILE})}").status == 404
        whole = page.get("event", id=HOSTILE, cursor=3)
        fields = whole["fields"]
        assert _shown(fields["json"])
        long = {"$int": int_text(LONG)}
        assert json.loads(fields["json"]) == fields["value"] == {"$map": [["n", long], [long, _set_of_long()]]}
        assert whole["metadata"]["value"] == {HOSTILE: HOSTILE, "n": long}
        first = page.get("event", id=HOSTILE, cursor=2)["fields"]["json"]
        assert json.loads(first)[HOSTILE] == HOSTILE
        assert _shown(first)


def test_a_host_that_no_host_can_be_is_no_url(namespace: str) -> None:
    for host in ("\u202e", "b" * 64, "a..b"):
        for url in (f"redis://{host}", f"redis+cluster://{host}", f"redis+sentinel://a,{host}/service"):
            for kind in (RedisStore, AsyncRedisStore):
                with pytest.raises((StoreError, InvalidArgument), match="its host is no name"):
                    _open(kind, url, namespace)


def _open(kind: Any, url: str, namespace: str) -> None:
    if kind is AsyncRedisStore:
        BlockingStore(kind.from_url(url, namespace=namespace)).__enter__()
    else:
        kind.from_url(url, namespace=namespace)


def test_a_name_of_a_field_is_not_taken_for_another(runs: Run, shop: RedisStore) -> None:
    events: list[Any] = [{"a": 1, "b": 2}, {"a=1, b": 2}, {1: 1}, {"1": 1}, {True: 1}, {"True": 1}, {"": 1}]
    shop.append("names", events)
    _, out, _ = runs("ascii", "events", "names")
    shown = [line.partition(" dict ")[2] for line in out.splitlines()]
    assert shown == ["a=1, b=2", "'a=1, b'=2", "1=1", "'1'=1", "True=1", "'True'=1", "''=1"]


def test_what_containers_hold_is_shown_without_its_class() -> None:
    colour = UnknownEvent("colour", 1, {"name": "RED"})
    assert value_text(deque([colour], maxlen=2)) == "deque([colour(name='RED')], maxlen=2)"
    assert value_text(OrderedDict(a=colour)) == "OrderedDict({'a': colour(name='RED')})"
    assert value_text(Counter("aab")) == "Counter({'a': 2, 'b': 1})"
    assert value_text(defaultdict(list, {1: [colour]})) == "defaultdict(list, {1: [colour(name='RED')]})"
    assert value_text(defaultdict(None, a=1)) == "defaultdict(None, {'a': 1})"


def test_a_value_whose_repr_does_not_tell_it_is_shown_by_its_parts() -> None:
    assert value_text([msgspec.Raw(b"1")]) == "[msgspec.Raw(value=b'1')]"
    assert value_text(pydantic.ByteSize(5)) == "pydantic.ByteSize(value=5)"


def test_a_set_is_shown_alike_by_every_process() -> None:
    code = "from runic_redis.events.plain import value_text; print(value_text([{'b', 'a', 'c', 1}, frozenset('xyz')]))"
    shown = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2", "3")
    }
    assert shown == {"[{'a', 'b', 'c', 1}, frozenset({'x', 'y', 'z'})]\n"}


@pytest.mark.parametrize("columns", ["", "0", "1", "20", "x"])
def test_no_width_of_a_terminal_hides_anything(columns: str, shop: RedisStore) -> None:
    long = f"order-{'9' * 200}"
    shop.append(long, [{"n": 1}])
    done = _started("CLI workflows; CLI show " + long, COLUMNS=columns)
    assert [line.split()[:2] for line in done.stdout.decode().splitlines() if "order-" in line] == [
        [long, "open"],
        ["workflow", long],
    ], "a line each, for grep"
    for shell in ("CLI workflows", "CLI --help", "CLI events --help"):
        done = _started(shell, COLUMNS=columns, FORCE_COLOR="1")
        shown = re.sub(r"\x1b\[[\d;]*m|\W", "", done.stdout.decode())
        assert ("order" if shell == "CLI workflows" else "Usage") in shown
    doctor = _started("CLI doctor", COLUMNS=columns).stdout.decode()
    assert max(map(len, doctor.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ("workflows", "many", "--limit", str(10**30)),
        ("workflows", "many", "--limit", str(10**30), "--state", "open"),
        ("events", "many-1", "--limit", str(10**30)),
        ("tail", "many-1", "--last", str(10**30), "--limit", "3"),
    ],
)
def test_a_limit_may_have_any_size(arguments: tuple[str, ...], runs: Run, shop: RedisStore) -> None:
    for number in range(3):
        shop.append(f"many-{number}", [{"n": n} for n in range(3)])
    status, out, err = runs("ascii", *arguments, "--json")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize("file", ["", ".", "/", ".."])
def test_an_export_to_no_file_says_so(file: str, runs: Run, shop: RedisStore) -> None:
    status, out, err = runs("ascii", "export", file)
    assert (status, out) == (2, "")
    assert err.startswith("runic-redis: The file ")
    assert err.count("\n") == 1


def test_a_time_in_json_names_its_zone() -> None:
    berlin, offset = ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=1))
    assert to_json(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin)) == {
        "$datetime": "2026-10-25T02:30:00+01:00~[Europe/Berlin]"
    }
    assert to_json(datetime(2026, 10, 25, 2, 30, tzinfo=offset)) == {"$datetime": "2026-10-25T02:30:00+01:00"}
    assert to_json(time(2, 30, tzinfo=berlin)) == {"$time": "02:30:00[Europe/Berlin]"}
    assert to_json(time(2, 30)) == {"$time": "02:30:00"}
