"""The README and the docs are easy to read: their sentences are short, and begin with a thing that the reader knows."""

import re
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MEAN_OF_ALL = 17
MEAN_OF_A_PAGE = 20
CLAUSES = 5
# "That needs Python" has a pronoun for its subject, "That a lease ends" a clause.
_CLAUSE = re.compile(r"(What|Whatever|Who|Whoever|Whether|How(?! to)) |That (a|an|all|each|every|it|no|the|they|you) ")


def sentences(markdown: str) -> list[str]:
    """The sentences of a page, without its headings, tables, code, HTML and URLs; a span of code counts as a word."""
    text = re.sub(r"(?s)\A---\n.*?^---$|^```.*?^```$|<!--.*?-->", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"(?m)^(#|\||:::|    \S).*$", "", text)
    text = re.sub(r"`[^`]+`", "code", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|</?[a-z][^>]*>", r"\1", text)
    text = text.replace("*", "")
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[-+>]|\d+\.) ", "\n" + text)
    # (After a colon, what comes may be a list.)
    return [
        sentence.strip(" ()")
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\)?\s+(?=[A-Z(\"0-9]|code)", " ".join(paragraph.lstrip("- ").split()))
        if re.search(r"\w", sentence)
    ]


def words(sentence: str) -> int:
    return len(re.findall(r"[\w'.,/-]*\w", sentence))


def clauses(markdown: str) -> list[str]:
    """The sentences of a page whose subject is a clause; a question has none."""
    return [one for one in sentences(markdown) if _CLAUSE.match(one) and not one.endswith("?")]


def test_sentences_are_told_apart() -> None:
    page = (
        "# A title\n\nThe *store* keeps `a, b. C` ([docs](x.md#y)). Is it [1.0](z)? A list:\n\n"
        "- What ends\n  here.\n- That helps.\n\n| a | table |\n|---|---|\n\n```python\nNot. This.\n```\n"
        "That the end is near."
    )
    assert sentences(page) == [
        "The store keeps code (docs).",
        "Is it 1.0?",
        "A list:",
        "What ends here.",
        "That helps.",
        "That the end is near.",
    ]
    assert [words(one) for one in sentences(page)] == [5, 3, 2, 3, 2, 5]
    assert clauses(page) == ["What ends here.", "That the end is near."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_sentences_of_a_page_are_short(page: Path) -> None:
    found = sentences(page.read_text())
    longest = sorted(found, key=words)[-10:]
    assert not found or mean(map(words, found)) <= MEAN_OF_A_PAGE, "\n".join(longest)


def test_the_sentences_of_all_pages_are_short() -> None:
    assert mean(words(one) for page in PAGES for one in sentences(page.read_text())) <= MEAN_OF_ALL


def test_few_sentences_have_a_clause_for_their_subject() -> None:
    found = [f"{page.relative_to(ROOT)}: {one}" for page in PAGES for one in clauses(page.read_text())]
    assert len(found) <= CLAUSES, "\n".join(found)
