"""The documentation site: it builds without a warning, loads nothing from other sites, and has the whole API."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import runic_redis
from runic_redis import openai_agents, pydantic_ai, runic_events, testing

ROOT = Path(__file__).parent.parent
# Attributes that a browser loads by itself. Links are different: a reader sees where they lead.
FETCHED = {"src", "srcset", "data", "poster"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Page(HTMLParser):
    """The resources that a page loads, its anchors, and its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.places.add(value or "")
            elif name in FETCHED or (tag == "link" and name == "href"):
                self.fetched.append(value or "")
            elif tag == "a" and name == "href":
                self.links.append(value or "")


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path, page in pages(site).items():
        assert page.fetched, path
        assert not [target for target in page.fetched if re.match(r"(\w+:)?//", target)], path
    for path in (*site.rglob("*.css"), *site.rglob("*.svg")):
        text = path.read_text()
        assert not re.findall(r"(?:url\(|@import |href=|src=)[\"']?(?:https?:)?//[^)]*", text), path


def test_every_page_of_the_docs_is_there_and_its_links_lead_somewhere(site: Path) -> None:
    built = pages(site)
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix(".html")
        assert site / (name.with_name("index.html") if name.stem == "README" else name) in built
    for path, page in built.items():
        if path.name == "404.html":
            continue
        for link in page.links + page.fetched:
            target, _, place = link.partition("#")
            if ":" in target:
                continue
            found = (path.parent / target).resolve() if target else path
            found = found / "index.html" if found.is_dir() else found
            assert found.exists(), f"{path}: {link}"
            assert not place or found not in built or place in built[found].places, f"{path}: {link}"


def test_the_whole_api_is_there(site: Path) -> None:
    places = Page(site / "api.html").places
    for module in (runic_redis, runic_events, testing, openai_agents, pydantic_ai):
        for name in module.__all__:
            if name == "Hash":  # a type variable
                continue
            assert any(place.endswith(f".{name}") for place in places), name
    for method in ("append", "stream", "tail", "collect", "claim"):
        for store in (runic_redis.RedisStore, runic_redis.AsyncRedisStore):
            assert f"runic_redis.{store.__name__}.{method}" in places, (store, method)
