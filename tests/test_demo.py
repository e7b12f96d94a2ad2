"""The demonstration and the command line, as their users run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from runic_redis import RedisStore, __version__
from runic_redis.demo import census
from tests.servers import RunningServer


def runic_redis(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "runic_redis.cli.main", *arguments],
        text=True,
        capture_output=True,
        check=False,
    )


def servers_running() -> set[str]:
    """The command lines of every server and worker that a demonstration starts."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "runic-redis-demo-" in command or "runic_redis.demo.worker" in command:
            found.add(command)
    return found


@pytest.mark.timeout(170)
def test_the_demonstration_counts_right_and_leaves_nothing_running() -> None:
    done = runic_redis("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    modules = census.standard_library()
    files = sum(len(module.paths) for module in modules)
    assert f"{len(modules)} modules, {files} files, 3 workers" in text
    killed = re.search(r"killed: (worker-\d) with SIGKILL, in (\S+), when it had reported (\d+) of (\d+) files", text)
    taken = re.search(
        r"taken over: (worker-\d) went on with (\S+) from cursor (\d+), where (worker-\d) had stopped", text
    )
    assert killed
    assert taken
    assert (killed[1], killed[2]) == (taken[4], taken[2])
    assert taken[1] != killed[1]
    assert 0 < int(killed[3]) < int(killed[4])
    assert int(killed[3]) < int(taken[3]) <= int(killed[4])
    for name in ("workflows", "events", "commits", "facts", "bytes in Redis", "events/s"):
        assert name in text
    assert f"total: files {files}, lines " in text
    assert f"All {len(modules) + 1} lines equal those of a plain pass" in text
    assert "\x1b" not in done.stdout
    assert servers_running() == set()


@pytest.mark.timeout(170)
def test_the_demonstration_runs_on_any_redis_and_cleans_up(redis_6_2: RunningServer) -> None:
    with redis_6_2.client() as client:
        before = set(client.keys("*"))
        done = runic_redis("demo", "--url", redis_6_2.url())
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(client.keys("*")) == before


def test_help_and_version() -> None:
    assert runic_redis("--version").stdout.strip() == __version__
    for arguments in (("--help",), ("-h",), ("demo", "--help")):
        done = runic_redis(*arguments)
        assert done.returncode == 0
        assert "demo" in done.stdout


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = runic_redis("demo", "--url", f"unix://{tmp_path}/nobody.sock")
    assert done.returncode == 1
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


def test_the_demonstration_fails_when_the_store_differs(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    from rich.console import Console  # noqa: PLC0415

    from runic_redis.demo import run  # noqa: PLC0415

    small = [census.Module("this", ("this.py",))]
    monkeypatch.setattr(run, "standard_library", lambda: small)
    monkeypatch.setattr(run.Crew, "__enter__", lambda self: self)
    monkeypatch.setattr(run.Crew, "work", lambda self, bar: None)
    with RedisStore.from_url(f"memory://{namespace}"):
        assert run.run_demo(f"memory://{namespace}", Console(quiet=True)) == 1
