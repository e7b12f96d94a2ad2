"""The reference pages name every verb, option and error, and nothing else.

The tables of docs/reference/cli.md come from the command line: `python -m tests.test_reference` writes them again.
"""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer

from runic_redis import errors
from runic_redis.cli.app import make_group

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
CLI = REFERENCE / "cli.md"
ERRORS = (REFERENCE / "errors.md").read_text()

VERBS: dict[str, Any] = dict(make_group().commands)
# The page explains these once.
COMMON = ("--url", "--namespace", "--json")
PLACEHOLDERS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
SECTION = re.compile(r"(?ms)^(## `([\w-]+)`\n\n<!-- generated -->\n).*?(<!-- end -->)$")


def _kind(verb: str, name: str) -> Any:
    """Return the type of a parameter, without the None of one that may be left out."""
    kind = get_type_hints(VERBS[verb].callback)[name]
    return next((one for one in get_args(kind) if one is not NoneType), kind) if NoneType in get_args(kind) else kind


def _meaning(verb: str, parameter: Any) -> str:
    kind = _kind(verb, parameter.name)
    parts = [parameter.help]
    if get_origin(kind) is Literal:
        parts.append(f"One of {', '.join(f'`{one}`' for one in get_args(kind))}.")
    if parameter.envvar:
        parts.append(f"Environment: `{parameter.envvar}`.")
    return " ".join(parts).replace("|", r"\|")


def _rows(verb: str) -> Iterator[str]:
    for parameter in VERBS[verb].params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar}`"
        elif parameter.opts[0] in COMMON:
            continue
        else:
            kind = _kind(verb, parameter.name)
            value = (
                "" if parameter.is_flag else f" {parameter.metavar or PLACEHOLDERS.get(kind, parameter.name.upper())}"
            )
            name = ", ".join(f"`{one}{value}`" for one in (*parameter.opts, *parameter.secondary_opts))
        default = "" if parameter.default in (None, "") or parameter.default is False else f"`{parameter.default}`"
        yield f"| {name} | {_meaning(verb, parameter)} | {default} |"


def generated(verb: str) -> str:
    """Return the synopsis and the table of a verb, as the page has them."""
    parameters = VERBS[verb].params
    arguments = [one.metavar for one in parameters if one.param_type_name == "argument"]
    common = [f"`{name}`" for name in COMMON if any(name in one.opts for one in parameters)]
    rows = list(_rows(verb))
    table = ["", "| argument or option | meaning | default |", "|---|---|---|", *rows] if rows else []
    lines = ["```text", " ".join(["runic-redis", verb, "[OPTIONS]", *arguments]), "```", *table]
    return "\n".join([*lines, "", f"Common options: {', '.join(common)}.", ""])


def regenerated(page: str) -> str:
    """Return a page with its generated parts as the command line is now."""
    return SECTION.sub(lambda found: found[1] + generated(found[2]) + found[3], page)


def test_the_page_has_a_section_for_each_verb() -> None:
    assert [found[2] for found in SECTION.finditer(CLI.read_text())] == list(VERBS)


def test_the_page_has_the_arguments_and_options_that_the_command_line_has() -> None:
    page = CLI.read_text()
    assert page == regenerated(page), "python -m tests.test_reference writes the tables again"


def test_the_page_explains_the_common_options() -> None:
    section = CLI.read_text().partition("\n## Common options\n")[2].partition("\n## ")[0]
    for name in COMMON:
        (row,) = (line for line in section.splitlines() if line.startswith(f"| `{name}"))
        option = next(one for one in VERBS["show"].params if name in one.opts)
        assert all(f"`{short}" in row for short in option.opts)
        assert not option.envvar or f"`{option.envvar}`" in row
        assert not option.default or f"`{option.default}`" in row


def test_the_examples_of_a_verb_are_commands_that_it_takes() -> None:
    page = CLI.read_text()
    for verb, text in zip(VERBS, re.split(r"(?m)^## `.*`$", page)[1:], strict=True):
        lines = [
            shlex.split(line)[1:] for line in re.findall(r"(?m)^runic-redis .+$", text.partition("<!-- end -->")[2])
        ]
        assert lines, f"{verb} has no example"
        for name, *typed in lines:
            assert name == verb
            command = VERBS[verb]
            command.make_parser(typer.Context(command)).parse_args(typed)
        assert "Exit status" in text, verb


CLASSES = {
    name: kind for name, kind in sorted(vars(errors).items()) if inspect.isclass(kind) and issubclass(kind, Exception)
}
FIELDS = ("Bases", "Attributes", "Cause", "Changed", "Remedy")


def _tree(kind: type[Exception], depth: int = 0) -> Iterator[str]:
    others = [base.__name__ for base in kind.__bases__ if base.__name__ not in CLASSES]
    beside = f" (also a {others[0]})" if depth and others else ""
    yield f"{'    ' * depth}{kind.__name__}{beside}"
    for child in CLASSES.values():
        if child.__bases__[0] is kind:
            yield from _tree(child, depth + 1)


def _section(name: str) -> dict[str, str]:
    """Return what the page says of a class, by the bold word in front of it."""
    text = ERRORS.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    return {
        field: " ".join(said.split()) for field, said in re.findall(r"(?ms)^- \*\*(\w+)\*\*: (.*?)(?=^- |\Z)", text)
    }


def test_the_hierarchy_is_drawn_as_it_is() -> None:
    assert re.findall(r"(?ms)^```text\n(.*?)\n```$", ERRORS) == ["\n".join(_tree(errors.StoreError))]


def test_each_error_has_a_section_and_no_other() -> None:
    assert re.findall(r"(?m)^## `(.+)`$", ERRORS) == [line.split()[0] for line in _tree(errors.StoreError)]


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_names_the_bases_and_attributes_of_the_class(name: str) -> None:
    kind, said = CLASSES[name], _section(name)
    assert tuple(said) == FIELDS
    assert all(said.values())
    assert re.findall(r"`(\w+)`", said["Bases"]) == [base.__name__ for base in kind.__bases__]
    keywords = [
        one.name
        for one in inspect.signature(kind.__init__).parameters.values()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert re.findall(r"`(\w+)`", said["Attributes"]) == keywords


if __name__ == "__main__":
    CLI.write_text(regenerated(CLI.read_text()))
