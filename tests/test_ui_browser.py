"""The web page in a real browser, headless: what you see and press."""

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import make_dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, sync_playwright
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect as expect_

from runic_redis import Fact, RedisStore, event
from runic_redis.langgraph.records import register_in
from tests.pages import Page, serving
from tests.servers import RunningServer, free_ports, running, valkey_program
from tests.test_ui_checkpoints import put, saved, written

# Stored text that would run in the page if it became more than text.
HOSTILE = "<img src=x onerror='document.title=\"broken in\"'><script>document.title='broken in'</script>&lt;\"'`${1}"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
expect_.set_options(timeout=30_000)
_numbers = count()
expect: Callable[[Locator], Any] = expect_


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, PROGRAMS)), playwright.chromium.executable_path)
        if not Path(program).exists():
            pytest.skip("there is no Chromium here: playwright install chromium")
        # Chromium has no sandbox as root.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shop(valkey: RunningServer) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace="browsed", partitions=8) as store:
        store.append_many([(f"order-{n:03}", [{"type": "placed", "n": n}]) for n in range(150)])
        yield store
        store.delete_namespace()


@pytest.fixture(scope="module")
def page(valkey: RunningServer, shop: RedisStore) -> Iterator[Page]:
    with serving(valkey.url(), shop.context.keys.namespace) as page:
        yield page


@pytest.fixture(params=["light", "dark", "narrow"])
def tab(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Tab]:
    yield from _tab(browser, request.param)


@pytest.fixture
def light(browser: Browser) -> Iterator[Tab]:
    yield from _tab(browser, "light")


def _tab(browser: Browser, kind: str) -> Iterator[Tab]:
    """A tab that fails the test on any script error, console warning or foreign request."""
    context = browser.new_context(
        color_scheme="dark" if kind == "dark" else "light",
        viewport={"width": 390 if kind == "narrow" else 1280, "height": 800},
        reduced_motion="reduce",
    )
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    tab.on("request", lambda request: wrong.append(request.url) if "127.0.0.1" not in request.url else None)
    yield tab
    context.close()
    # The browser logs each rejected request. Tests check what the page shows of it.
    assert [text for text in wrong if "Failed to load resource" not in text and "ERR_" not in text] == []


def test_the_workflows_are_listed_searched_and_leafed_through(tab: Tab, page: Page, shop: RedisStore) -> None:
    tab.goto(page.url)
    rows = tab.locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(tab.locator(".tile .value").first).to_have_text(str(page.get("summary")["workflows"]))
    shown = rows.locator(".id a").all_inner_texts()
    tab.click("#older")
    expect(tab.get_by_role("link", name="Newest")).to_be_visible()
    expect(rows.first).not_to_have_attribute("data-id", shown[0])
    assert not set(rows.locator(".id a").all_inner_texts()) & set(shown)
    tab.go_back()
    expect(rows.first).to_have_attribute("data-id", shown[0])
    tab.keyboard.press("/")
    tab.keyboard.type("ER-14")
    expect(rows).to_have_count(10)
    expect(tab.locator("#search")).to_be_focused()
    expect(tab.locator("#search")).to_have_value("ER-14")
    tab.reload()
    expect(rows).to_have_count(10)
    tab.fill("#search", "nobody's")
    expect(tab.locator("main .empty")).to_contain_text("contains “nobody's”")
    tab.fill("#search", "order-149")
    expect(rows).to_have_count(1)
    rows.locator(".id a").click()
    expect(tab.locator("h1")).to_have_text("order-149")
    expect(tab.locator(".event")).to_have_count(1)
    _fits(tab)


def test_counters_are_links_and_workflows_are_filtered(tab: Tab, page: Page, shop: RedisStore) -> None:
    for n in range(3):
        shop.append(f"left-{n}", [{"n": n}])
        shop.acquire(f"left-{n}", "worker", ttl=0.001 if n else 600)
    tab.goto(page.url)
    rows = tab.locator("tbody tr")
    expect(rows).to_have_count(50)
    tab.get_by_role("link", name="Waiting").click()
    expect(rows).to_have_count(page.get("summary")["states"]["waiting"])
    expect(rows.filter(has_text="left-")).to_have_count(2)
    assert set(rows.locator(".badge").all_inner_texts()) == {"waiting"}
    expect(tab.get_by_label("State")).to_have_value("waiting")
    expect(rows.locator(".badge").first).to_be_in_viewport(ratio=1)
    tab.get_by_label("State").select_option("leased")
    expect(rows.filter(has_text="left-0")).to_have_count(1)
    expect(rows.locator(".badge.waiting")).to_have_count(0)
    tab.fill("#search", "left-1")
    expect(rows).to_have_count(0)
    expect(tab.locator("main .empty")).to_have_text("No workflow matches.")
    tab.get_by_label("State").select_option("")
    tab.get_by_label("Last write").select_option("1")
    expect(rows).to_have_count(1)
    tab.reload()
    expect(rows).to_have_count(1)
    expect(tab.get_by_label("Last write")).to_have_value("1")
    tab.get_by_role("link", name="Workflows").first.click()
    expect(rows).to_have_count(50)
    _fits(tab)


def test_events_are_filtered_by_type_text_and_time(light: Tab, page: Page, shop: RedisStore) -> None:
    name = "sifted"
    paid = event("browsed.paid")(make_dataclass("Paid", ["by"]))
    for n in range(30):
        shop.append(name, [paid("Zo\u00eb" if n % 2 else "Ada"), {"n": n}])
    light.goto(page.at("w", name))
    events = light.locator(".event")
    expect(events).to_have_count(60)
    light.get_by_label("Type").select_option("browsed.paid")
    expect(events).to_have_count(30)
    light.fill("#search", "zo\u00eb")
    light.keyboard.press("Enter")
    expect(events).to_have_count(15)
    expect(light.get_by_label("Type")).to_have_value("browsed.paid")
    light.fill("#jump", "31")
    light.keyboard.press("Enter")
    expect(events.first).to_have_attribute("data-cursor", "31")
    light.fill("#jump", "some day")
    light.keyboard.press("Enter")
    expect(light.locator("#banner")).to_contain_text("neither a cursor nor a time")
    light.fill("#jump", "2020-01-01 12:00")
    light.keyboard.press("Enter")
    expect(events).to_have_count(0)
    light.click("#newer")
    expect(events).to_have_count(15)
    light.get_by_label("Type").select_option("dict")
    expect(light.locator("main .empty")).to_have_text("None of the events 1 to 60 matches.")


def test_numbers_look_as_they_were_stored(light: Tab, page: Page, shop: RedisStore) -> None:
    numbers = [2.0, -0.0, 0.5, 1e22, 2**60 + 1, float("nan"), float("-inf"), 2]
    shop.append("numbers", [{"numbers": numbers}], metadata={"rate": 3.0})
    light.goto(page.at("w", "numbers", "e", "1"))
    expect(light.locator("#panel .tree")).to_have_count(2)
    shown = light.locator("#panel .tree .n").all_inner_texts()
    assert shown == ["2.0", "-0.0", "0.5", "1e+22", str(2**60 + 1), "nan", "-inf", "2", "3.0"]
    expect(light.locator(".chip")).to_have_text("rate=3.0")
    light.locator("#panel").get_by_role("button", name="JSON").last.click()
    expect(light.locator("#panel pre")).to_contain_text('"rate": 3.0')


def test_new_events_appear_by_themselves(tab: Tab, page: Page, shop: RedisStore) -> None:
    tab.goto(page.url)
    expect(tab.locator("#live")).to_have_attribute("aria-label", "live")
    expect(tab.locator("tbody tr")).to_have_count(50)
    name = f"fresh-{next(_numbers)}"
    shop.append(name, [{"type": "come", "n": 1}])
    first = tab.locator("tbody tr").first
    expect(first).to_have_attribute("data-id", name)
    first.locator(".id a").click()
    expect(tab.locator(".event")).to_have_count(1)
    shop.append(name, [{"type": "come", "n": 2}, {"type": "come", "n": 3}])
    expect(tab.locator(".event")).to_have_count(3)
    expect(tab.locator(".event").first).to_contain_text("n=3")
    shop.save_snapshot(name, 3, b"state")
    expect(tab.locator(".line .mark")).to_contain_text("Snapshot at 3, 5 B")
    shop.append(name, [{"n": n} for n in range(200)])
    expect(tab.locator(".event").first).to_have_attribute("data-cursor", "203")
    # A reader who has scrolled down keeps their place, and sees the number of new events.
    tab.locator('[data-cursor="110"]').scroll_into_view_if_needed()
    shop.append(name, [{"n": 1}] * 5)
    more = tab.locator(".more")
    expect(more).to_have_text("5 new ↑")
    expect(tab.locator(".event").first).to_have_attribute("data-cursor", "203")
    more.click()
    expect(tab.locator(".event").first).to_have_attribute("data-cursor", "208")
    expect(tab.locator("#rate")).to_contain_text("events/s")


def test_a_time_line_marks_commits_snapshot_and_trim(tab: Tab, page: Page, shop: RedisStore) -> None:
    name = "marked"
    if not shop.exists(name):
        for n in range(100):
            shop.append(name, [{"type": "even" if n % 2 else "odd", "n": n}] * 3, metadata={"user": "zo\u00eb"})
        shop.save_snapshot(name, 91, b"state")
        shop.trim(name)
        shop.append(name, [{"type": "big", "n": n} for n in range(250)])
    tab.goto(page.at("w", name))
    expect(tab.locator(".event")).to_have_count(100)
    expect(tab.locator(".commit")).to_have_count(1)
    expect(tab.locator(".commit .about-commit").first).to_contain_text("250 events")
    expect(tab.locator(".strip .legend")).to_contain_text("snapshot")
    expect(tab.locator(".strip .legend")).to_contain_text("trimmed")
    seen = _all_cursors(tab)
    while tab.locator("#older").is_visible():
        last = seen[-1]
        tab.click("#older")
        expect(tab.locator(".event").first).to_have_attribute("data-cursor", str(last - 1))
        seen += _all_cursors(tab)
    assert seen == list(range(550, 90, -1))
    expect(tab.locator(".mark", has_text="Snapshot at 91")).to_have_count(1)
    expect(tab.locator(".mark.trim")).to_have_text("Events up to 90 are trimmed")
    expect(tab.locator(".chip").first).to_have_text("user=zo\u00eb")
    tab.fill("#jump", "400")
    tab.keyboard.press("Enter")
    expect(tab.locator(".event").first).to_have_attribute("data-cursor", "400")
    tab.click("#newer")
    expect(tab.locator(".event").last).to_have_attribute("data-cursor", "401")
    # Into the strip, at its beginning, where everything is trimmed.
    tab.locator(".strip svg").click(position={"x": 3, "y": 20})
    expect(tab.locator(".mark.trim")).to_be_visible()
    expect(tab.locator(".event")).to_have_count(0)
    tab.click("#newer")
    expect(tab.locator(".event").last).to_have_attribute("data-cursor", "91")
    _fits(tab)


def test_an_event_type_has_the_same_colour_in_every_view_and_visit(
    browser: Browser, page: Page, shop: RedisStore
) -> None:
    # Of so many types, some share a colour. The two workflows hold them in opposite orders.
    kinds = [event(f"browsed.{n}")(make_dataclass(f"Kind{n}", ["fact"])) for n in range(30)]
    orders = {f"coloured-{n}": kinds[::step] for n, step in ((next(_numbers), 1), (next(_numbers), -1))}
    colours: dict[str, set[str]] = defaultdict(set)
    for workflow_id, order in orders.items():
        shop.append(workflow_id, [kind(Fact(kind.__name__)) for kind in order])
        for tab in _tab(browser, "light"):
            for address, selectors in (
                (page.at("w", workflow_id, "e", "1"), (".event .type", ".legend span[style]", ".panel h2 .type")),
                (page.at("w", workflow_id, "facts"), (".node:has(.box.event)",)),
            ):
                tab.goto("about:blank")
                tab.goto(address)
                for selector in selectors:
                    expect(tab.locator(selector).first).to_be_visible()
                    for kind, colour in tab.locator(selector).evaluate_all(_NAMED_COLOURS):
                        colours[kind].add(colour)
    assert set(colours) == {f"browsed.{n}" for n in range(30)}
    assert {kind: shown for kind, shown in colours.items() if len(shown) > 1} == {}
    assert len(set().union(*colours.values())) > 12, "most types differ"


# The type that an element names, and the colour that it or its part has.
_NAMED_COLOURS = """elements => elements.map(element => [
  (element.querySelector("text") || element).textContent,
  ["--hue", "--tone"].map(
    name => getComputedStyle(element.querySelector(".box") || element).getPropertyValue(name)
  ).join(),
])"""


def test_an_event_is_shown_beside(tab: Tab, page: Page, shop: RedisStore) -> None:
    name = "fields"
    if not shop.exists(name):
        deep = {"list": list(range(250)), "big": 2**70, "bytes": b"\0\1", "tuple": (1, None, True), 1: "one"}
        shop.append(name, [{"type": "first"}, {"type": "deep", "value": deep}, {"type": "last"}])
    tab.goto(page.at("w", name))
    tab.locator('[data-cursor="2"]').click()
    panel = tab.locator("#panel")
    expect(panel.locator("h2")).to_have_text("deep")
    expect(panel).to_contain_text(str(2**70))
    expect(panel.locator("summary", has_text="list, 250")).to_be_visible()
    panel.locator("summary", has_text="list, 250").click()
    expect(panel.get_by_role("button", name="More")).to_be_visible()
    panel.get_by_role("button", name="JSON").click()
    expect(panel.locator("pre")).to_contain_text(str(2**70))
    expect(tab.locator(".event[aria-current]")).to_have_attribute("data-cursor", "2")
    panel.get_by_role("link", name="Newer").click()
    expect(tab.locator(".event[aria-current]")).to_have_attribute("data-cursor", "3")
    expect(panel.get_by_role("link", name="Newer")).to_be_hidden()
    expect(panel.locator("dd").first).to_have_text("3")
    panel.get_by_role("link", name="Older").click()
    expect(panel.locator("dd").first).to_have_text("2")
    panel.get_by_role("link", name="Older").click()
    expect(tab.locator(".event[aria-current]")).to_have_attribute("data-cursor", "1")
    tab.reload()
    expect(panel.locator("h2")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(tab.locator(".event")).to_have_count(3)


def test_facts_are_drawn_and_followed(tab: Tab, page: Page, shop: RedisStore) -> None:
    name = "drawn"
    if not shop.exists(name):
        for n in range(6):
            shop.append(name, [{"type": "step", "uses": [Fact(f"v{at}") for at in range(n)], "makes": Fact(f"v{n}")}])
    tab.goto(page.at("w", name))
    tab.get_by_role("link", name="Facts", exact=True).click()
    expect(tab.locator(".node")).to_have_count(12)
    expect(tab.locator(".edge")).to_have_count(6 + 15)
    places = tab.locator(".node").evaluate_all(
        "nodes => nodes.map(node => node.getAttribute('transform').match(/[0-9.]+/g).map(Number))"
    )
    assert len({tuple(place) for place in places}) == 12, "none on another"
    tab.locator(".node", has=tab.locator(".fact")).last.hover()
    expect(tab.locator(".graph.lit .node.on").first).to_be_visible()
    tab.locator(".node", has=tab.locator(".fact")).last.click()
    expect(tab.locator("h1")).to_have_text("Fact")
    expect(tab.locator("main .tree")).to_contain_text('"v')
    tab.go_back()
    tab.locator(".node", has=tab.locator(".event")).last.click()
    expect(tab.locator("#panel h2")).to_have_text("step")


def test_the_graph_starts_inside_its_card_and_previews_values(tab: Tab, page: Page, shop: RedisStore) -> None:
    name = "previewed"
    if not shop.exists(name):
        shop.append(name, [{"makes": Fact({"total": 2.5})}, {"makes": Fact("x" * 10_000)}])
        for n in range(30):
            shop.append(name, [{"uses": Fact(f"value {n}"), "makes": Fact(f"value {n + 1}")}])
    tab.goto(page.at("w", name, "facts"))
    boxes = tab.locator(".node")
    expect(boxes).to_have_count(2 * 2 + 30 + 31)
    labels = boxes.locator("text")
    expect(labels.filter(has_text="{'total': 2.5}")).to_be_in_viewport()
    expect(labels.filter(has_text="bytes")).to_have_count(1)
    expect(labels.filter(has_text="value")).to_have_count(31)
    frame, first = tab.locator(".graph").bounding_box(), boxes.first.bounding_box()
    assert frame is not None
    assert first is not None
    assert frame["x"] < first["x"]
    assert frame["y"] < first["y"]
    sizes = labels.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(sizes) >= 11, "large enough to read"


def test_a_fact_that_many_events_use_is_in_sight(tab: Tab, page: Page, shop: RedisStore) -> None:
    if not shop.exists("used by many"):
        shop.append("used by many", [{"makes": Fact("used by many")}] * 40)
    tab.goto(page.at("w", "used by many", "facts"))
    expect(tab.locator(".node")).to_have_count(41)
    expect(tab.locator(".node", has=tab.locator(".fact"))).to_be_in_viewport()


def test_a_thread_is_a_tree_of_checkpoints(tab: Tab, page: Page, shop: RedisStore) -> None:
    name = "a thread"
    if not shop.exists(name):
        register_in(shop.registry)
        put(shop, saved("1", step=-1, source="input"), saved("2", "1", step=0, changed=["messages"]), thread=name)
        put(shop, written("2", "task", (0, "messages", b"1"), (-3, "__interrupt__", b"2")), thread=name)
        put(
            shop, saved("3", "2", step=1), saved("4", "2", step=1, source="fork"), saved("9", ns="child:1"), thread=name
        )
    tab.goto(page.at("w", name))
    tab.get_by_role("link", name="Checkpoints").click()
    boxes = tab.locator(".checkpoint")
    expect(tab.locator(".thread")).to_have_count(2)
    expect(boxes).to_have_count(5)
    expect(tab.locator(".thread").first.locator(".edge")).to_have_count(3)
    expect(boxes.nth(2)).to_contain_text("fork, 2 branches")
    expect(boxes.nth(2)).to_contain_text("1 interrupt")
    boxes.first.click()
    expect(tab.locator("#panel h2")).to_have_text("Step 1")
    expect(tab.locator("#panel")).to_contain_text("2 checkpoints from the start; forks at step 0")
    expect(tab.locator(".checkpoint.on")).to_have_count(3)
    expect(tab.locator(".edge.on")).to_have_count(2)
    tab.keyboard.press("Escape")
    expect(tab.locator("#panel")).to_be_hidden()
    expect(tab.locator(".checkpoint.on")).to_have_count(0)
    _fits(tab)


def test_text_of_the_store_stays_text(light: Tab, page: Page, shop: RedisStore) -> None:
    # (An event of a class would be of a type that can be named anything, too.)
    shop.append(HOSTILE, [{"type": HOSTILE, HOSTILE: [HOSTILE, Fact(HOSTILE)]}], metadata={HOSTILE: HOSTILE})
    shop.acquire(HOSTILE, HOSTILE, ttl=600)
    ref = shop.put_fact(HOSTILE)
    light.goto(page.url)
    light.fill("#search", HOSTILE)
    expect(light.locator("tbody tr")).to_have_count(1)
    light.locator("tbody .id a").click()
    expect(light.locator("h1")).to_have_text(HOSTILE)
    light.locator(".event").click()
    expect(light.locator("#panel .tree").first).to_contain_text("<script>")
    light.goto(page.at("w", HOSTILE, "facts"))
    expect(light.locator(".node")).to_have_count(2)
    light.goto(page.at("f", ref))
    expect(light.locator("main .tree")).to_contain_text("<script>")
    for address in (
        page.at("w", f"{HOSTILE}!"),
        page.at("f", HOSTILE),
        page.at("", q=HOSTILE),
        f"{page.url}#/%E0%A4%A",
    ):
        light.goto("about:blank")
        light.goto(address)
        light.wait_for_selector("body[data-turn]")
    assert light.locator("main script, main img, #panel img").count() == 0
    assert light.title().startswith(("Runic Redis", "<img"))
    assert "broken in" not in light.title().replace(HOSTILE, "")


def test_the_page_runs_no_other_code(browser: Browser, page: Page) -> None:
    with browser.new_page() as tab:
        tab.goto(page.url)
        for attempt in (
            # (Later, since a debugger's own evaluations may evaluate.)
            "setTimeout(() => { try { eval('1'); } catch (error) { no(error.message); } })",
            "document.addEventListener('securitypolicyviolation', () => no('Content Security Policy')); "
            "fetch('http://127.0.0.1:1/')",
            "document.addEventListener('securitypolicyviolation', () => no('Content Security Policy')); "
            "document.body.appendChild(document.createElement('script')).src = 'http://127.0.0.1:1/'",
        ):
            with pytest.raises(Error, match="Content Security Policy"):
                tab.evaluate(f"() => new Promise((yes, no) => {{ {attempt}; }})")
        tab.evaluate("() => { document.body.innerHTML += '<p onclick=\"document.title = 1\" id=pressed>p</p>'; }")
        tab.click("#pressed")
        assert tab.title() == "Runic Redis"


def test_missing_workflows_and_events_are_reported(light: Tab, page: Page, shop: RedisStore) -> None:
    light.goto(page.at("w", "nobody"))
    expect(light.locator("#banner")).to_contain_text("no workflow 'nobody'")
    light.get_by_role("link", name="Workflows").click()
    expect(light.locator("#banner")).to_be_hidden()
    expect(light.locator("tbody tr")).to_have_count(50)
    light.goto(page.at("w", "order-001", "e", "99"))
    expect(light.locator("#banner")).to_contain_text("no event 99")
    expect(light.locator("h1")).to_have_text("order-001")
    shop.append("deleted", [{"n": 1}])
    light.goto(page.at("w", "deleted"))
    expect(light.locator("h1")).to_have_text("deleted")
    expect(light.locator(".event")).to_have_count(1)
    shop.delete("deleted")
    light.get_by_role("link", name="Facts", exact=True).click()
    expect(light.locator("#banner")).to_contain_text("no workflow 'deleted'")


def test_the_dot_shows_at_once_that_the_store_or_the_page_is_gone(light: Tab, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ("--appendonly", "yes", "--appendfsync", "always")
    url = f"redis://127.0.0.1:{port}"
    with (
        running(valkey_program(), tmp_path / "server", *options, port=port) as server,
        RedisStore.from_url(url, namespace="gone", deadline_s=60) as store,
    ):
        store.append("w", [{"n": 1}])
        with serving(url, "gone") as page:
            light.goto(page.url)
            dot = light.locator("#live")

            def shows(label: str) -> None:
                expect_(dot).to_have_attribute("aria-label", label, timeout=6_000)

            shows("live")
            server.kill()
            shows("the store does not answer")
            expect(light.locator("#banner")).to_contain_text("has not answered")
            expect(light.locator("#rate")).not_to_contain_text("events")
            light.reload()
            expect(light.locator("main")).to_contain_text("Nothing to show")
            server.restart()
            shows("live")
            expect(light.locator("#banner")).to_be_hidden()
            store.append("w", [{"n": 2}])
            expect(light.locator("tbody .right").first).to_have_text("2")
            page.process.send_signal(signal.SIGSTOP)
            shows("not connected")
            page.process.send_signal(signal.SIGCONT)
            shows("live")
            page.process.kill()
            shows("not connected")


def test_a_page_that_a_proxy_rejected_for_a_while_connects_again(light: Tab, page: Page, shop: RedisStore) -> None:
    light.route("**/api/live*", lambda route: route.fulfill(status=503))
    light.goto(page.url)
    expect(light.locator("#live")).to_have_attribute("aria-label", "not connected")
    light.unroute("**/api/live*")
    expect(light.locator("#live")).to_have_attribute("aria-label", "live")


@pytest.fixture
def fed(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    """A store with a feed, and a subscription that has parked the commits of two workflows."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        for workflow_id in ("order-1", HOSTILE, "order-2"):
            store.append(workflow_id, [{"n": 1}])
        with store.subscribe("mailer", wait_s=0) as mailer:
            for _ in range(2):
                mailer.park(next(mailer), f"Declined: {HOSTILE}")
            with pytest.raises(ZeroDivisionError):
                mailer.run(lambda commit: 1 / 0, attempts=1)
        yield store


def test_subscriptions_are_shown_and_followed(tab: Tab, valkey: RunningServer, namespace: str, fed: RedisStore) -> None:
    with serving(valkey.url(), namespace) as page:
        tab.goto(page.url)
        tab.locator("#subscriptions").click()
        row = tab.locator(".entry")
        expect(row).to_have_attribute("data-name", "mailer")
        expect(row).to_contain_text("1 event and")
        expect(row).to_contain_text("2 parked")
        expect(row.locator(".problem")).to_contain_text("failed 1 time: ZeroDivisionError: division by zero")
        _fits(tab)
        with fed.subscribe("mailer", wait_s=0) as mailer:
            for commit in mailer:
                mailer.ack(commit)
        expect(row).to_contain_text("up to date, 0 consumers")
        expect(row.locator(".problem")).to_have_count(0)
        row.get_by_role("link", name="mailer").click()
        expect(tab.locator("h1")).to_have_text("mailer")
        expect(tab.locator(".entry")).to_have_count(2)
        expect(tab.locator(".entry").nth(0)).to_contain_text(f"Declined: {HOSTILE}")
        expect(tab.locator(".note")).to_contain_text("--allow-changes")
        expect(tab.get_by_role("button", name="Drop")).to_have_count(0)
        _fits(tab)
        tab.get_by_role("link", name="order-1").click()
        expect(tab.locator("h1")).to_have_text("order-1")


def test_parked_commits_are_replayed_and_dropped(
    tab: Tab, valkey: RunningServer, namespace: str, fed: RedisStore
) -> None:
    with serving(valkey.url(), namespace, "--allow-changes") as page:
        tab.goto(page.url)
        expect(tab.locator("#subscriptions")).to_be_visible()
        tab.goto(f"{page.url.partition('?')[0]}#/s/mailer")
        rows = tab.locator(".entry")
        expect(rows).to_have_count(2)
        _fits(tab)
        asked: list[str] = []
        tab.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        rows.nth(1).get_by_role("button", name="Drop").click()
        assert asked
        assert len(fed.parked("mailer")) == 2
        tab.once("dialog", lambda dialog: dialog.accept())
        rows.nth(1).get_by_role("button", name="Drop").click()
        expect(rows).to_have_count(1)
        assert [one.workflow_id for one in fed.parked("mailer")] == ["order-1"]
        rows.get_by_role("button", name="Replay").click()
        expect(rows.locator(".badge")).to_have_text("waiting")
        expect(rows.get_by_role("button")).to_have_count(0)
        with fed.subscribe("mailer", wait_s=0) as mailer:
            for commit in mailer:
                mailer.ack(commit)
        expect(tab.locator(".note")).to_have_text("No commit is parked.")


def test_a_namespace_without_a_feed_has_no_subscriptions(light: Tab, page: Page) -> None:
    light.goto(page.url)
    expect(light.locator("tbody tr")).to_have_count(50)
    expect(light.locator("#subscriptions")).to_be_hidden()


def test_a_token_is_asked_for_once(browser: Browser, valkey: RunningServer, shop: RedisStore) -> None:
    namespace = shop.context.keys.namespace
    with serving(valkey.url(), namespace, "--token", "0123456789abcdefghij") as page:
        for tab in _tab(browser, "light"):
            tab.goto(page.url.partition("?")[0])
            expect(tab.locator("body")).to_contain_text("A token is needed")
            tab.goto(page.url)
            expect(tab.locator("tbody tr")).to_have_count(50)
            assert "token" not in tab.url
            expect(tab.locator("#live")).to_have_attribute("aria-label", "live")
            tab.goto(page.url.partition("?")[0])
            expect(tab.locator("tbody tr")).to_have_count(50)


def _all_cursors(tab: Tab) -> list[int]:
    return [int(one) for one in tab.locator(".event").evaluate_all("all => all.map(one => one.dataset.cursor)")]


def test_invisible_characters_are_escaped_and_ints_are_whole(light: Tab, page: Page, shop: RedisStore) -> None:
    name = "straße tr\u202eick\x9b\u200b"
    shop.append(name, [{"k\u2066ey": "v\u202e\nalue", "n": 10**5000, "big": 2**60 + 1}], metadata={"m\u061c": "x"})
    light.goto(page.url)
    expect(light.get_by_text("straße tr\\u202eick\\u009b\\u200b", exact=True)).to_be_visible()
    light.goto(page.at("w", name, "e", "1"))
    panel = light.locator("#panel")
    expect(panel.locator(".tree").first).to_contain_text("k\\u2066ey")
    expect(panel.locator(".tree").first).to_contain_text("1" + "0" * 5000)
    expect(panel.locator(".tree").first).to_contain_text(str(2**60 + 1))
    panel.get_by_role("button", name="JSON").first.click()
    expect(panel.locator("pre").first).to_contain_text('"v\\u202e\\nalue"')
    shown = light.evaluate("document.body.innerText + document.title")
    assert all(one.isprintable() or one in "\n\t" for one in shown)


def _fits(tab: Tab) -> None:
    """Check that nothing is wider than the window, and that every text contrasts with its background."""
    wide, low = tab.evaluate(_LOOK)
    assert wide <= 0, "it scrolls sideways"
    assert low == []


# How much wider it is than the window, and the texts whose contrast with what is behind them is below WCAG's AA.
_LOOK = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
  const rgb = (colour, under) => {
    paint(`rgb(${under})`);
    paint(colour);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const bent = (part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * bent(r) + 0.7152 * bent(g) + 0.0722 * bent(b);
  const white = [255, 255, 255];
  const behind = (one) => (one ? rgb(getComputedStyle(one).backgroundColor, behind(one.parentElement)) : white);
  const low = [];
  for (const one of document.querySelectorAll("body *")) {
    const said = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!said || one.closest("svg") || !one.checkVisibility()) continue;
    const under = behind(one);
    const lights = [luminance(rgb(getComputedStyle(one).color, under)), luminance(under)];
    const contrast = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    if (contrast < 4.5) low.push(`${one.className} ${one.textContent} ${contrast.toFixed(2)}`);
  }
  return [document.documentElement.scrollWidth - window.innerWidth, low];
}"""
