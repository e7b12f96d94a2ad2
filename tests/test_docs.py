"""Every example in the README and the docs runs, and what they name is there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runic_redis.cli.app import make_group
from tests.forking import run_forked
from tests.servers import RunningServer, cluster_url

ROOT = Path(__file__).parent.parent
CLUSTER = "localhost:7001"
DATABASE = "postgresql://localhost/shop"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```$", page.read_text())


def run(code: str, directory: Path) -> str:
    done = run_forked(code, directory=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_first_example_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    first = examples(ROOT / "README.md")[0]
    (tmp_path / "example.py").write_text(first)
    command = [sys.executable, "-W", "error", "example.py"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout, "it prints something"
    assert run(first, tmp_path), "and may be run again"


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, valkey: RunningServer, request: pytest.FixtureRequest
) -> None:
    code = "\n".join(examples(page)).replace("redis://localhost:6379/0", valkey.url())
    if CLUSTER in code:
        nodes: list[RunningServer] = request.getfixturevalue("cluster_nodes")
        code = code.replace(",localhost:7002,localhost:7003", "").replace(CLUSTER, f"127.0.0.1:{nodes[0].port}")
    if DATABASE in code:
        pytest.importorskip("psycopg")
        code = code.replace(DATABASE, request.getfixturevalue("postgres"))
    for _ in range(2):  # it may be run again, on what it has left
        run(code, tmp_path)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if re.search(r"(?m)^(def test_|class Test)", page.read_text())],
    ids=lambda page: page.stem,
)
def test_the_tests_that_a_page_shows_pass(page: Path, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(examples(page)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_of_the_tutorial_is_killed_and_another_goes_on(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorials" / "durable-worker.md"
    (tmp_path / "order.py").write_text(examples(page)[0])
    (session,) = re.findall(r"(?ms)^```console\n(\$ python order\.py .*?)^```$", page.read_text())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shown = ""
    statuses = []
    for command in re.findall(r"(?m)^\$ (.+)$", session):
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
        assert not done.stderr
        shown += f"$ {command}\n{done.stdout}"
        statuses.append(done.returncode)
    assert shown == session
    assert statuses == [0, -signal.SIGKILL, 0]


def test_the_agent_of_the_tutorial_survives_kill_9(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorials" / "durable-agent.md"
    tools, agent = examples(page)
    assert len(agent.splitlines()) <= 10
    (tmp_path / "agent.py").write_text(tools + agent)
    (session,) = re.findall(r"(?ms)^```console\n(\$ python agent\.py .*?)^```$", page.read_text())
    shown = ""
    statuses = []
    for command in re.findall(r"(?m)^\$ (.+)$", session):
        words = [sys.executable, "-W", "error", *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert not done.stderr
        shown += f"$ {command}\n{done.stdout}"
        statuses.append(done.returncode)
    assert shown == session
    assert statuses == [-signal.SIGKILL, 0]


@pytest.mark.parametrize("backend", ["valkey", "cluster_nodes"])
def test_the_orders_of_the_tutorial_are_fulfilled_although_a_worker_is_killed(
    tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    page = ROOT / "docs" / "tutorials" / "order-fulfilment.md"
    (code,) = examples(page)
    assert len(code.splitlines()) < 80
    server = request.getfixturevalue(backend)
    url = server.url() if backend == "valkey" else cluster_url(server)
    (tmp_path / "fulfil.py").write_text(code.replace("embedded://fulfil-data", url))
    (shown,) = re.findall(r"(?ms)^```console\n\$ python fulfil\.py play\n(.*?)^```$", page.read_text())
    command = [sys.executable, "-W", "error", "fulfil.py", "play"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    # On a slow machine, the reminder is faster than the cancellation.
    assert done.stdout.replace("order-2: place pay remind", "order-2: place pay") == shown, done.stderr
    assert done.stderr.count("due again in") >= 4, "both orders were tried again twice"


def code_of(page: Path) -> str:
    """What a page has as code, without its Python: what one may type."""
    text = re.sub(r"(?ms)^```python\n.*?^```$", "", page.read_text())
    return "\n".join(block or span for block, span in re.findall(r"(?ms)^```\w*\n(.*?)^```$|(?<!`)`([^`\n]+)`", text))


def test_the_targets_of_make_that_the_docs_name_are_there() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)", code_of(page))}
    assert named <= targets
    assert {"demo", "test", "docs"} <= named


def test_the_verbs_of_the_command_line_that_the_docs_name_are_there() -> None:
    # (An archive begins with a line that looks like one.)
    pattern = r"\brunic-redis (?!archive 1)([a-z][a-z-]*)"
    named = {verb for page in PAGES for verb in re.findall(pattern, code_of(page))}
    assert named <= set(make_group().commands)
    assert {"bench", "doctor", "events"} <= named


def test_the_links_of_every_page_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
