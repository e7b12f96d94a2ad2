"""Every example in the README and the docs runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RunningServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```$", page.read_text())


def run(code: str, directory: Path) -> str:
    (directory / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"], cwd=directory, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_example_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    first = examples(ROOT / "README.md")[0]
    assert run(first, tmp_path), "it prints something"
    assert run(first, tmp_path), "and may be run again"


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path, valkey: RunningServer) -> None:
    code = "\n".join(examples(page)).replace("redis://localhost:6379/0", valkey.url())
    run(code, tmp_path)


def test_the_links_of_every_page_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
