"""The speed of the page with 100 000 workflows and one of 1 M events: ``python -m tests.measure_ui``.

`runic-redis ui` runs in a separate process, on an embedded server. Each address is requested many times, in turn. Then
a headless Chromium opens each view many times. The time runs from the key or click until the view is complete.
"""

import shutil
import tempfile
import time
from collections import defaultdict
from statistics import median

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from runic_redis import Fact, RedisStore
from tests.pages import Page, serving

_WORKFLOWS = 100_000
_EVENTS = 1_000_000
_TIMES = 30


def main() -> None:
    """Measure, and print milliseconds."""
    with tempfile.TemporaryDirectory(prefix="runic-redis-") as directory:
        url = f"embedded://{directory}"
        with RedisStore.from_url(url, namespace="measured") as store:
            fill(store)
            with serving(url, "measured") as page:
                report("at the server", ask(page))
                report("in the browser", browse(page, store))


def fill(store: RedisStore) -> None:
    """Make the workflows. The long one is written last."""
    for first in range(0, _WORKFLOWS - 1, 1000):
        numbers = range(first, min(first + 1000, _WORKFLOWS - 1))
        store.append_many([(f"order-{n:06}", [{"type": "placed", "n": n}] * 3) for n in numbers])
    for first in range(0, _EVENTS, 1000):
        events = [{"type": "counted", "n": n, "fact": Fact(n // 1000)} for n in range(first, first + 1000)]
        store.append("the long one", events, metadata={"user": "somebody"})
    store.save_snapshot("the long one", _EVENTS // 2, b"state")


def ask(page: Page) -> dict[str, list[float]]:
    """Return the times of the requests that the views send."""
    took_ms = defaultdict(list)
    for _ in range(_TIMES):
        for path, query in [
            ("summary", {}),
            ("workflows", {"limit": 50}),
            ("workflows", {"limit": 50, "containing": "r-04217"}),
            ("workflows", {"limit": 50, "containing": "not there"}),
            ("workflow", {"id": "the long one"}),
            ("memory", {"id": "the long one"}),
            ("overview", {"id": "the long one"}),
            ("events", {"id": "the long one"}),
            ("events", {"id": "the long one", "upto": _EVENTS // 2}),
            ("event", {"id": "the long one", "cursor": _EVENTS // 2}),
            ("graph", {"id": "the long one"}),
        ]:
            began_s = time.perf_counter()
            page.get(path, **query)
            name = " ".join([path, *(f"{key}={value}" for key, value in query.items() if key not in {"id", "limit"})])
            took_ms[name].append((time.perf_counter() - began_s) * 1000)
        began_s = time.perf_counter()
        page.ask("metrics")
        took_ms["metrics"].append((time.perf_counter() - began_s) * 1000)
    return took_ms


def browse(page: Page, store: RedisStore) -> dict[str, list[float]]:
    """Return the times of a person's actions in the browser."""
    took_ms = defaultdict(list)

    def timed(name: str, began_s: float) -> None:
        took_ms[name].append((time.perf_counter() - began_s) * 1000)

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        tab: Tab = playwright.chromium.launch(executable_path=program, chromium_sandbox=False).new_page()
        for number in range(_TIMES):
            tab.goto("about:blank")
            began_s = time.perf_counter()
            tab.goto(page.url)
            tab.wait_for_selector("tbody tr:nth-child(50)")
            timed("the page opened, and the workflows listed", began_s)

            began_s = time.perf_counter()
            tab.fill("#search", f"R-0{number:02}179")
            tab.wait_for_selector(f'tbody tr:only-child[data-id="order-0{number:02}179"]')
            timed("a search, of which 180 ms are waited for more keys", began_s)

            tab.goto(page.url)
            tab.wait_for_selector("tbody tr:nth-child(50)")
            tab.wait_for_selector("#live.on")
            began_s = time.perf_counter()
            store.append("order-000007", [{"type": "come", "n": number}])
            tab.wait_for_selector(
                f'tbody tr:first-child[data-id="order-000007"] td:nth-child(3):text-is("{4 + number}")'
            )
            timed("a commit, until its workflow is on top of the list", began_s)

            store.append("the long one", [{"type": "come", "n": number}])
            tab.wait_for_selector('tbody tr:first-child[data-id="the long one"]')
            began_s = time.perf_counter()
            tab.click('[data-id="the long one"] a')
            tab.wait_for_selector(".strip rect.fill")
            tab.wait_for_selector(".event")
            timed("the workflow of 1 M events", began_s)

            began_s = time.perf_counter()
            tab.fill("#jump", str(1000 + number * 30_000))
            tab.keyboard.press("Enter")
            tab.wait_for_selector(f'.event[data-cursor="{1000 + number * 30_000}"]')
            timed("a jump into it", began_s)

            began_s = time.perf_counter()
            tab.click(".event:first-child")
            tab.wait_for_selector("#panel .tree")
            timed("an event's fields", began_s)
            tab.keyboard.press("Escape")

            began_s = time.perf_counter()
            tab.click("text=Facts")
            tab.wait_for_selector(".node")
            timed("its facts", began_s)
    return took_ms


def report(where: str, took_ms: dict[str, list[float]]) -> None:
    """Print a line for each measurement."""
    for what, times in took_ms.items():
        print(
            f"{where}, {what}: median {median(times):.0f} ms, longest of {len(times)} {max(times):.0f} ms", flush=True
        )


if __name__ == "__main__":
    main()
