"""The demonstration and the command line, as users run them."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runic_redis import RedisStore, __version__
from runic_redis.cli.main import main
from runic_redis.demo import census, events, run, worker
from tests.forking import Forked, run_forked
from tests.servers import RunningServer

SMALL = census.Module("json", ("json/__init__.py", "json/decoder.py", "json/encoder.py"))
# Each Python process that finds this runs it at its start. It replaces the standard library by a small copy. A worker
# is slowed down, so that it is killed in the middle of its module although the files are small.
ANOTHER_LIBRARY = """
import ast, os, sys, sysconfig, time
of_python, parse = sysconfig.get_path, ast.parse
sysconfig.get_path = lambda name, *rest: os.environ["LIBRARY"] if name == "stdlib" else of_python(name, *rest)
if "runic_redis.demo.worker" in sys.orig_argv:
    ast.parse = lambda source: time.sleep(0.03) or parse(source)
"""
IN_A_GROUP = f"""
{ANOTHER_LIBRARY}
from runic_redis.cli.main import main
os.setpgid(0, 0)
main()
"""
COMMAND = (sys.executable, "-W", "error", "-m", "runic_redis.cli.main")


def running(directory: Path) -> set[str]:
    """Return the command lines of the server and the workers of a demonstration whose TMPDIR is a directory."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The directory is in the environment of the workers, and not in their command lines.
            command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if f"{directory}/runic-redis-demo-".encode() in command + environment:
            found.add(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_until_nothing_runs(directory: Path) -> None:
    """Wait for the server, which ends a moment after its last user."""
    over_s = time.monotonic() + 120
    while left := running(directory):
        assert time.monotonic() < over_s, left
        time.sleep(0.05)


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of some small files of the standard library, most of them from its largest module."""
    there, here = census.library_root(), tmp_path_factory.mktemp("library")
    largest, *others = census.standard_library()
    assert len(others) > 100, "all modules are found"
    for module, count in ((largest, 120), *((other, 2) for other in others[::6])):
        for path in sorted(module.paths, key=lambda path: abs((there / path).stat().st_size - 2000))[:count]:
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / path, here / path)
    (here / "broken.py").write_text("def (")
    return here


@pytest.fixture
def library(small_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[census.Module]:
    """Give this process and its children a small standard library; return its modules."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ANOTHER_LIBRARY)
    monkeypatch.setenv("LIBRARY", str(small_files))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setattr(census, "library_root", lambda: small_files)
    return census.standard_library()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return the directory for the files of a demonstration."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_the_demonstration_shows_the_takeover_and_leaves_its_data_to_the_page(
    library: list[census.Module], files: Path
) -> None:
    environment = {**os.environ, "TMPDIR": str(files)}
    done = subprocess.run([*COMMAND, "demo"], text=True, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    count = sum(len(module.paths) for module in library)
    assert f"{len(library)} modules, {count} files, 3 workers" in text
    killed = re.search(
        r"(worker-\d) \(process \d+\) was killed with SIGKILL: it had stored (\d+) of (\d+) files of (\S+);", text
    )
    assert killed
    assert killed[4] == library[0].name
    assert 0 < int(killed[2]) < int(killed[3])
    assert f"{killed[1]} (process" in text[: killed.start()], "each worker has told its first module"
    takeover = re.compile(
        r"(worker-\d) took over (\S+) from (worker-\d) at cursor (\d+), after (\d+) of \d+ files: "
        r"it loaded the snapshot at cursor (\d+) and replayed (\d+) events"
    )
    taken = takeover.search(text, killed.end(), text.index("measured by a plain pass"))
    assert taken
    assert (killed[1], killed[4]) == (taken[3], taken[2])
    assert taken[1] != killed[1]
    assert int(killed[2]) <= int(taken[5]) < int(killed[3])
    assert int(taken[4]) == 1 + int(taken[5]), "the first event is the claim, and each other one is a file"
    assert int(taken[6]) + int(taken[7]) == int(taken[4])
    assert int(taken[6]) > int(taken[7]), "most of it came from the snapshot"
    assert f"The events tell of it, too: {taken[0]}." in text, "the events say the same as the live output"
    assert "facts that no event refers to │ 0 │" in text
    for name in ("workflows", "events", "facts", "bytes in Redis", "events/s"):
        assert name in text
    assert re.search(rf"total: files {count}, lines .* unreadable [1-9]", text)
    assert f"All {len(library) + 1} lines equal those of a plain pass" in text
    assert "\x1b" not in done.stdout
    wait_until_nothing_runs(files)
    assert f"stdlib/{library[0].name}" in page_of(done.stdout.splitlines()[-1], files)
    wait_until_nothing_runs(files)


def page_of(command: str, files: Path) -> str:
    """Run the last line of the demonstration, on a free port, and return the workflows that the page lists."""
    (directory,) = files.iterdir()
    assert f" ui --url embedded://{directory} --namespace census" in command
    page = subprocess.Popen([*shlex.split(command), "--port", "0", "--json"], text=True, stdout=subprocess.PIPE)
    try:
        assert page.stdout is not None
        with urllib.request.urlopen(json.loads(page.stdout.readline())["url"] + "api/workflows") as answer:
            return answer.read().decode()
    finally:
        page.send_signal(signal.SIGINT)
        page.communicate()


def test_help_and_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_forked(None, "--version").stdout.strip() == __version__
    for arguments in (("--help",), ("-h",), ("demo", "--help")):
        monkeypatch.setattr(sys, "argv", ["runic-redis", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert "demo" in capsys.readouterr().out


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = run_forked(None, "demo", "--url", f"unix://{tmp_path}/nobody.sock")
    assert done.returncode == 3
    assert re.fullmatch(r"runic-redis: Redis cannot be reached: .*\n", done.stderr)
    assert done.stdout == ""


def test_the_census_measures_a_file() -> None:
    measured = census.measure("dataclasses.py")
    source = (census.library_root() / "dataclasses.py").read_text()
    assert measured["lines"] == len(source.splitlines())
    assert "dataclass" in measured["functions"]
    assert "Field" in measured["classes"]
    assert {"re", "sys"} <= set(measured["imports"])
    assert measured["error"] is None


def test_a_difference_is_found() -> None:
    one, other = census.Totals(files=1, lines=10), census.Totals(files=1, lines=11)
    assert census.report([("a", one)]) != census.report([("a", other)])
    assert census.report([("b", one), ("a", one)]) == census.report([("a", one), ("b", one)])
    assert census.report([("a", one), ("b", other)])[-1].startswith("total: files 2, lines 21")


def start_demonstration(directory: Path, *options: str) -> Forked:
    """Start a demonstration as a terminal does, in a new process group, and wait until it has stored files."""
    demonstration = Forked(IN_A_GROUP, "demo", *options, environment={**os.environ, "TMPDIR": str(directory)})
    while "files stored" not in demonstration.stdout.readline():
        assert demonstration.poll() is None
    return demonstration


@pytest.mark.usefixtures("library")
def test_ctrl_c_ends_all_of_it(files: Path) -> None:
    with start_demonstration(files) as demonstration:
        assert len(running(files)) >= 4, "three workers and a server"
        os.killpg(demonstration.pid, signal.SIGINT)
        _, errors = demonstration.communicate()
        assert demonstration.returncode == 130
        assert "Traceback" not in errors
        wait_until_nothing_runs(files)
        assert list(files.iterdir()) == []


def test_ctrl_c_leaves_nothing_in_a_redis(redis_6_2: RunningServer, library: list[census.Module], files: Path) -> None:
    with redis_6_2.client() as client:
        before = set(client.keys("*"))
        with start_demonstration(files, "--url", redis_6_2.url()) as demonstration:
            assert len(set(client.keys("*")) - before) > 2 * len(library), "the workers work there"
            os.killpg(demonstration.pid, signal.SIGINT)
            _, errors = demonstration.communicate()
            assert demonstration.returncode == 130
            assert "Traceback" not in errors
        assert set(client.keys("*")) == before


@pytest.mark.usefixtures("library")
def test_the_workers_and_the_server_end_when_the_demonstration_is_killed(files: Path) -> None:
    with start_demonstration(files) as demonstration:
        assert len(running(files)) >= 4, "three workers and a server"
        demonstration.kill()
        demonstration.wait()
        wait_until_nothing_runs(files)


def demonstrate(monkeypatch: pytest.MonkeyPatch, url: str, work: Callable[[RedisStore], None]) -> tuple[int, str]:
    """Run the demonstration of one small module, with a function in place of its crew; return status and output."""
    monkeypatch.setattr(run, "standard_library", lambda: [SMALL])
    monkeypatch.setattr(worker, "standard_library", lambda: [SMALL])
    monkeypatch.setattr(run.Crew, "__enter__", lambda self: self)
    said = io.StringIO()

    def stand_in(crew: run.Crew, bar: object) -> None:
        crew.append_s = 1.0
        with RedisStore.from_url(url, namespace=crew._namespace, partitions=worker.PARTITIONS) as store:
            work(store)

    monkeypatch.setattr(run.Crew, "work", stand_in)
    status = run.run_demo(url, Console(file=said, width=200))
    return status, said.getvalue()


def stop_at(path: str) -> Callable[[str], dict[str, Any]]:
    """Return a function that measures files, and fails at one of them."""

    def measure(asked: str) -> dict[str, Any]:
        if asked == path:
            raise InterruptedError
        return census.measure(asked)

    return measure


@pytest.mark.usefixtures("few_buckets")
def test_a_worker_goes_on_where_another_stopped(monkeypatch: pytest.MonkeyPatch, redis_6_2: RunningServer) -> None:
    def work(store: RedisStore) -> None:
        monkeypatch.setattr(worker, "measure", stop_at(SMALL.paths[-1]))
        with pytest.raises(InterruptedError):
            worker.run_worker(store, "worker-1")
        monkeypatch.setattr(worker, "measure", census.measure)
        worker.run_worker(store, "worker-2")
        assert store.claim("worker-3") == []

    with redis_6_2.client() as client:
        before = set(client.keys("*"))
        status, text = demonstrate(monkeypatch, redis_6_2.url(), work)
        assert set(client.keys("*")) == before, "it cleans up"
    assert status == 0, text
    assert (
        "worker-2 took over json from worker-1 at cursor 3, after 2 of 3 files: it found no snapshot and replayed 3 "
        "events" in text
    )


@pytest.mark.usefixtures("few_buckets")
def test_a_worker_that_lost_its_lease_leaves_the_module_to_others(
    monkeypatch: pytest.MonkeyPatch, valkey: RunningServer
) -> None:
    def work(store: RedisStore) -> None:
        def measure(path: str) -> dict[str, Any]:
            monkeypatch.setattr(worker, "measure", census.measure)
            # As if its lease had expired while it measured, and another worker had claimed the module.
            store.release(store.acquire(events.workflow_of(SMALL.name), "worker-1", ttl=30))
            worker.run_worker(store, "worker-2")
            return census.measure(path)

        monkeypatch.setattr(worker, "measure", measure)
        worker.run_worker(store, "worker-1")

    status, text = demonstrate(monkeypatch, valkey.url(), work)
    assert status == 0, text
    assert "worker-2 took over json from worker-1 at cursor 1, after 0 of 3 files: " in text


@pytest.mark.usefixtures("few_buckets")
def test_the_demonstration_fails_when_the_store_differs(monkeypatch: pytest.MonkeyPatch, valkey: RunningServer) -> None:
    def measure(path: str) -> dict[str, Any]:
        measured = census.measure(path)
        return {**measured, "lines": measured["lines"] + 1}

    monkeypatch.setattr(worker, "measure", measure)
    status, text = demonstrate(monkeypatch, valkey.url(), lambda store: worker.run_worker(store, "worker-1"))
    assert status == 1
    assert "The store differs from a plain pass over the same files:" in text
    assert "-json: files 3, lines " in text
    assert "+json: files 3, lines " in text


@pytest.mark.usefixtures("few_buckets")
def test_the_demonstration_fails_when_a_module_has_no_end(
    monkeypatch: pytest.MonkeyPatch, valkey: RunningServer
) -> None:
    def work(store: RedisStore) -> None:
        monkeypatch.setattr(worker, "measure", stop_at(SMALL.paths[-1]))
        with pytest.raises(InterruptedError):
            worker.run_worker(store, "worker-1")

    status, text = demonstrate(monkeypatch, valkey.url(), work)
    assert status == 1
    assert "the workflow of json does not have each file once, and one end" in text


@pytest.mark.usefixtures("few_buckets")
def test_the_demonstration_fails_when_no_module_was_taken_over(
    monkeypatch: pytest.MonkeyPatch, valkey: RunningServer
) -> None:
    status, text = demonstrate(monkeypatch, valkey.url(), lambda store: worker.run_worker(store, "worker-1"))
    assert status == 1
    assert "no worker took over the module of the killed worker" in text


@pytest.mark.usefixtures("few_buckets")
def test_the_demonstration_fails_when_a_worker_recovered_a_wrong_state(
    monkeypatch: pytest.MonkeyPatch, valkey: RunningServer
) -> None:
    def claim(name: str, module: str, files: int, measured: int, *rest: Any) -> events.ModuleClaimed:
        return events.ModuleClaimed(name, module, files, measured + 1, *rest)

    monkeypatch.setattr(worker, "ModuleClaimed", claim)
    status, text = demonstrate(monkeypatch, valkey.url(), lambda store: worker.run_worker(store, "worker-1"))
    assert status == 1
    assert "worker-1 recovered another state of json than is stored" in text
