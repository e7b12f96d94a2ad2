"""The experience of a newcomer: each command on a page works, twice, and no message names a file that is missing."""

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import runic_redis
from runic_redis import RedisStore
from runic_redis.cli.app import make_group
from tests.servers import RunningServer
from tests.test_docs import PAGES, ROOT, examples, run

REDIS = "redis://localhost:6379/0"
# The URL of the README's examples.
SHOP = "embedded://shop-data"
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
SOURCES = sorted(path for folder in ("runic_redis", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
# Verbs that run until Ctrl-C.
LIVE = {"tail", "ui"}
# `doctor` exits with 1 because it has advice about the tests' server.
STATUSES = {"doctor": {0, 1}, "tail": {130}}


def commands(page: Path) -> list[list[str]]:
    """Return the typed lines of each console block of a page."""
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```$", page.read_text())
    return [re.findall(r"(?m)^\$ (.+)$", block) for block in blocks]


def _messages(source: Path) -> Iterator[str]:
    """Yield the texts in a module that users can see: all string literals except docstrings."""
    tree = ast.parse(source.read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    bodies += [node.body for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _public_docstrings() -> Iterator[str]:
    for name in runic_redis.__all__:
        thing = getattr(runic_redis, name)
        for one in (thing, *vars(thing).values()) if isinstance(thing, type) else (thing,):
            yield getattr(one, "__doc__", None) or ""
    for verb in make_group().commands.values():
        yield verb.help or ""
        yield from (getattr(option, "help", None) or "" for option in verb.params)


def test_no_message_names_a_page_that_pip_does_not_bring() -> None:
    shown = [(source.name, text) for source in SOURCES for text in _messages(source)]
    shown += [("help", text) for text in _public_docstrings()]
    assert len(shown) > 1000
    assert [(name, text) for name, text in shown if re.search(r"\bdocs/|\.md\b|README", text)] == []


def test_the_extras_that_pages_and_messages_name_are_there() -> None:
    texts = [page.read_text() for page in PAGES] + [text for source in SOURCES for text in _messages(source)]
    lists = {some for text in texts for some in re.findall(r"(?:runic-redis|\.)\[([a-z,]+)\]'", text)}
    named = {extra for some in lists for extra in some.split(",")}
    assert named <= EXTRAS
    assert {"embedded", "memory", "cli", "ui", "otel", "bench"} <= named


def test_what_pages_install_is_the_checkout() -> None:
    found = [line for page in PAGES for block in commands(page) for line in block if line.startswith("pip install")]
    assert len(found) >= 4
    for line in found:
        ours, *_ = shlex.split(line)[2:]
        assert re.fullmatch(r"\.\[[a-z,]+\]", ours), line
        assert "#" not in line


def test_a_command_has_no_comment_behind_it() -> None:
    """In zsh, a typed # begins no comment."""
    assert [line for page in PAGES for block in commands(page) for line in block if re.search(r"\s#", line)] == []


def test_no_page_has_a_stray_backslash() -> None:
    for page in PAGES:
        text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page.read_text())
        assert re.findall(r"\\['\"]", text) == [], page.name


@dataclass
class Shell:
    """A shell for the commands of a page. It has the checkout's command line, and a server in place of the page's."""

    directory: Path
    environment: dict[str, str]
    url: str

    def start(self, lines: list[str]) -> subprocess.Popen[str]:
        script = "\n".join(lines).replace(REDIS, self.url).replace(SHOP, self.url)
        return subprocess.Popen(
            ["bash", "-ec", script],
            cwd=self.directory,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def shell(valkey: RunningServer, tmp_path: Path) -> Shell:
    (tmp_path / "bin").mkdir()
    ours = tmp_path / "bin" / "runic-redis"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m runic_redis.cli.main "$@"\n')
    ours.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNIC_REDIS_")}
    path = os.pathsep.join([str(ours.parent), environment["PATH"]])
    return Shell(tmp_path, {**environment, "PATH": path, "PYTHONPATH": str(ROOT)}, valkey.url())


def _type(shell: Shell, block: list[str]) -> str:
    """Run the lines of a block, press Ctrl-C for commands that show events as they come, and return the output."""
    shown = ""
    before: list[str] = []
    for line in block:
        verb = line.split()[1] if line.startswith("runic-redis ") else ""
        if not verb:
            before.append(line)
            continue
        port = " --port 0" if verb == "ui" else ""
        with shell.start([*before, f"exec {line}{port}"]) as process:
            try:
                if verb in LIVE:
                    assert process.stdout is not None
                    shown += process.stdout.readline()
                    process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode in STATUSES.get(verb, {0}), (line, out, err)
        assert "Traceback" not in err
        shown += out
    return shown


@contextmanager
def _events_come(url: str) -> Iterator[None]:
    """Append events to the shop until the block ends."""
    ended = threading.Event()

    def append() -> None:
        with RedisStore.from_url(url, namespace="shop") as store:
            while not ended.wait(0.02):
                store.append("visitor", [{"seen": True}])

    thread = threading.Thread(target=append)
    thread.start()
    yield
    ended.set()
    thread.join()


def _is_ours(block: list[str]) -> bool:
    return any(line.startswith("runic-redis ") for line in block)


SHOWING = [page for page in PAGES if any(map(_is_ours, commands(page)))]


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_and_run_again(page: Path, shell: Shell, tmp_path: Path) -> None:
    for source in dict.fromkeys([ROOT / "README.md", page]):
        run("\n".join(examples(source)).replace(REDIS, shell.url).replace(SHOP, shell.url), tmp_path)
    with RedisStore.from_url(f"embedded://{tmp_path}/start-data", namespace="start") as store:
        store.append("order-1", [{"step": "reserve"}])
    for block in filter(_is_ours, commands(page)):
        typed = [line for line in block if not line.startswith(("pip install", "python"))]
        for _ in range(2):
            with _events_come(shell.url):
                shown = _type(shell, typed)
            if page.stem == "README":
                assert '"type": "order_paid"' in shown
                assert "visitor" in shown


def test_what_the_first_tutorial_calls_newest_first_is_so(tmp_path: Path) -> None:
    code = "\n".join(examples(ROOT / "docs" / "tutorials" / "start.md"))
    for _ in range(2):
        printed = run(code, tmp_path).splitlines()
        assert "['cart-9', 'cart-8', 'cart-7']" in printed
        assert printed[printed.index("['cart-9', 'cart-8', 'cart-7']") - 1].startswith("4 ")
