"""The Lua scripts: read from lua/ once, named by file, called by SHA.

Nothing here talks to a server. A script's file describes what it does; the modules of operations/ call it.
"""

import re
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

# A line that includes a part that several scripts share.
_INCLUDE = re.compile(r"(?m)^--@include (\w+)\n")


class Script(NamedTuple):
    """One script: its name, its text, and the SHA-1 by which a server knows it."""

    name: str
    text: str
    sha: str


def scripts_directory() -> Path:
    """Return the directory of the scripts: inside an installed package, beside the package in a checkout."""
    installed = Path(__file__).parent.parent / "lua"
    return installed if installed.is_dir() else installed.parent.parent / "lua"


@cache
def load_script(name: str) -> Script:
    """Return the script in ``lua/<name>.lua``, with the parts from ``lua/shared`` that it includes."""
    text = _with_parts(scripts_directory() / f"{name}.lua")
    # SHA-1 is the name that Redis gives a script, not a protection of anything.
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_parts(path: Path) -> str:
    """Return the text of a script, or of a part, with all parts that it includes."""
    shared = scripts_directory() / "shared"
    return _INCLUDE.sub(lambda found: _with_parts(shared / f"{found[1]}.lua"), path.read_text(encoding="utf-8"))
