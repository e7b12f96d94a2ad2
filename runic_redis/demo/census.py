"""Measuring the standard library: which modules there are, what is in a file, and how the totals are reported."""

import ast
import gc
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Installed packages are no part of the library. Its own tests are more than half of it, and would double the time.
_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
# The fields of a node that hold statements.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True, slots=True)
class Module:
    """A top-level module or package, and the paths of its source files below the library's root."""

    name: str
    paths: tuple[str, ...]


@dataclass(slots=True)
class Totals:
    """What is counted."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    unreadable: int = 0

    def add(self, measured: dict[str, Any]) -> None:
        """Count one file in."""
        lines, functions, classes, imports = counts_in(measured)
        self.files += 1
        self.lines += lines
        self.functions += functions
        self.classes += classes
        self.imports += imports
        self.unreadable += measured["error"] is not None


def library_root() -> Path:
    """Where the sources of the running interpreter's library are."""
    return Path(sysconfig.get_path("stdlib"))


def standard_library() -> list[Module]:
    """Its modules, the largest first."""
    root = library_root()
    found: dict[str, list[str]] = {}
    for path in _sources(root):
        relative = path.relative_to(root)
        found.setdefault(relative.parts[0].removesuffix(".py"), []).append(relative.as_posix())
    modules = [Module(name, tuple(sorted(paths))) for name, paths in found.items()]
    return sorted(modules, key=lambda module: (-len(module.paths), module.name))


def _sources(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_dir():
            if path.name not in _SKIPPED and not path.is_symlink():
                yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def measure(path: str) -> dict[str, Any]:
    """What is in a source file: its lines, and the names of its functions, classes and imports."""
    source = (library_root() / path).read_bytes()
    measured: dict[str, Any] = {
        "lines": len(source.splitlines()),
        "functions": [],
        "classes": [],
        "imports": [],
        "error": None,
    }
    try:
        tree = _parse(source)
    except (SyntaxError, ValueError) as error:
        measured["error"] = type(error).__name__
        return measured
    for node in _statements(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            measured["functions"].append(node.name)
        elif isinstance(node, ast.ClassDef):
            measured["classes"].append(node.name)
        elif isinstance(node, ast.Import):
            measured["imports"].extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            measured["imports"].append("." * node.level + (node.module or ""))
    return measured


def counts_in(measured: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return how many lines, functions, classes and imports a measured file has."""
    return measured["lines"], len(measured["functions"]), len(measured["classes"]), len(measured["imports"])


def _parse(source: bytes) -> ast.Module:
    # A tree has no cycles, and looking for some among its many objects takes a third of the time.
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the library's sources
            return ast.parse(source)
    finally:
        gc.enable()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node. No expression has any, so expressions are left out."""
    for block in _BLOCKS:
        for statement in getattr(node, block, ()):
            yield statement
            yield from _statements(statement)


def report(counted: Iterable[tuple[str, Totals]]) -> list[str]:
    """The census as lines of text: one for each module by name, and the totals of all."""
    lines = []
    overall = Totals()
    for name, totals in sorted(counted, key=lambda pair: pair[0]):
        lines.append(_line(name, totals))
        for field in Totals.__slots__:
            setattr(overall, field, getattr(overall, field) + getattr(totals, field))
    return [*lines, _line("total", overall)]


def _line(name: str, totals: Totals) -> str:
    return f"{name}: " + ", ".join(f"{field} {getattr(totals, field)}" for field in Totals.__slots__)
