"""What `make docs` does to a page: links that leave docs/, to a test, say, become text: they lead nowhere on a site."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((\.[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page, with the links that leave docs/ as text."""
    docs = Path(config["docs_dir"]).resolve()
    here = Path(page.file.abs_src_path).parent

    def plain(link: re.Match[str]) -> str:
        inside = (here / link[2]).resolve().is_relative_to(docs)
        return link[0] if inside else link[1]

    return _LINK.sub(plain, markdown)
