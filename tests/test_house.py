"""Rules of the house: sizes, names, what is private, and whose warnings are errors."""

import ast
import os
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "runic_redis").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
STORES = {"runic_redis/store.py", "runic_redis/aio.py"}
LONGEST_MODULE = 450
LONGEST_FUNCTION = 60
# A module's docstring, or a function's, has these words in the sentence that says why it is longer.
EXCUSES = {"module": "one module because", "function": "one function because"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_of(path: Path) -> Iterator[Function]:
    """Yield the functions and methods of a module."""
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """Return the number of lines of a function, its docstring aside."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    docstring = function.body[0]
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def is_excused(node: ast.Module | Function, kind: str) -> bool:
    return EXCUSES[kind] in " ".join((ast.get_docstring(node) or "").split())


def test_a_long_module_says_why() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE}
    assert {
        name_of(path): length
        for path, length in lengths.items()
        if length > LONGEST_MODULE and not is_excused(tree_of(path), "module")
    } == {}


def test_a_long_function_says_why() -> None:
    assert {
        f"{name_of(path)}: {function.name}": lines_of(function)
        for path in PACKAGE
        for function in functions_of(path)
        if lines_of(function) > LONGEST_FUNCTION and not is_excused(function, "function")
    } == {}


@cache
def private_names(path: Path) -> set[str]:
    """Return the private names that classes of a module give to their instances: methods, and attributes of self."""
    names = {function.name for function in functions_of(path)}
    names |= {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute) and is_own(node)}
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def test_only_the_stores_know_what_is_private_in_a_store() -> None:
    of_stores = set().union(*(private_names(ROOT / name) for name in STORES))
    assert {"_write", "_sender"} <= of_stores, "they are found"
    assert [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in (*PACKAGE, *BENCHMARKS)
        if name_of(path) not in STORES
        for node in ast.walk(tree_of(path))
        # (A module may know what is private in its own classes.)
        if isinstance(node, ast.Attribute) and not is_own(node) and node.attr in of_stores - private_names(path)
    ] == []


def homes(functions: Callable[[Path], Iterable[ast.AST]]) -> dict[str, set[str]]:
    """Return the modules that define each function, by its name.

    The stores and the command line are left out, because users type their names. A module for threads and its twin for
    asyncio count as one.
    """
    found = defaultdict(set)
    for path in PACKAGE:
        name = name_of(path)
        if name not in STORES and not name.startswith("runic_redis/cli/"):
            for node in functions(path):
                if isinstance(node, Function):
                    found[node.name].add(name.replace("/aio", "/sync"))
    return found


def test_no_two_modules_have_a_public_function_of_the_same_name() -> None:
    found = homes(lambda path: tree_of(path).body)
    del found["main"]  # of each program
    assert {name: modules for name, modules in found.items() if len(modules) > 1 and not name.startswith("_")} == {}


# Modules have used these verbs for different things.
@pytest.mark.parametrize("verb", ["apart", "check", "collect", "exchange", "lost", "once", "prolong", "refusal"])
def test_a_disputed_verb_has_one_meaning(verb: str) -> None:
    modules = homes(functions_of)[verb] - {"runic_redis/ui/metrics.py"}  # Prometheus calls a method `collect`
    assert len(modules) <= 1, modules


@pytest.mark.parametrize("module", ["runic_redis", "runic_redis.store", "tests.test_house", "redis.client"])
def test_warnings_of_the_project_and_its_dependencies_are_errors(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="outdated"):
        warnings.warn_explicit("outdated", DeprecationWarning, "file.py", 1, module)


@pytest.mark.parametrize("module", ["their_plugin", "pluggy._callers", "runic_redis_of_others"])
def test_warnings_of_others_are_none(module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn_explicit("outdated", DeprecationWarning, "file.py", 1, module)
    assert len(seen) == 1


PLUGIN = """
import warnings, pytest

def warn(place):
    warnings.warn(place, DeprecationWarning, stacklevel=1)
    warnings.warn(pytest.PytestWarning(place), stacklevel=1)

warn("import")

def pytest_configure(config):
    warn("configure")
    config.issue_config_time_warning(pytest.PytestConfigWarning("issued"), stacklevel=2)

def pytest_collectstart(collector):
    warn("collectstart")

def pytest_collection_modifyitems(items):
    warn("modifyitems")

def pytest_runtest_setup(item):
    warn("setup")
"""


def test_a_plugin_that_warns_fails_no_test(tmp_path: Path) -> None:
    (tmp_path / "their_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "their_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\ntheirs = their_plugin\n")
    narrow = f"{__file__}::{test_warnings_of_others_are_none.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", narrow],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for place in ("import", "configure", "issued", "collectstart", "modifyitems", "setup"):
        assert f"Warning: {place}\n" in done.stdout + done.stderr, "the plugin was loaded"
