"""The dashboard in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from support.lookers import Lab, shown
from support.servers import TOKEN, Launcher, Node

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
SIZES = {"desk": {"width": 1280, "height": 1000}, "phone": {"width": 390, "height": 844}}
PATIENCE_MS = 30_000

needs_browser = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("MESHLIB_BROWSER_REQUIRED"),
    reason="chromium is not installed",
)
Open = Callable[..., Page]


@pytest.fixture
def open_page() -> Iterator[Open]:
    """Open the dashboard of a node, as somebody who has a token for it."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM or None, args=["--no-sandbox"]
        )

        def open_(node: Node | str, *, size: str = "desk", token: str = TOKEN) -> Page:
            page = browser.new_page(viewport=SIZES[size])  # type: ignore[arg-type]
            page.goto(f"http://{node if isinstance(node, str) else node.address}/mesh/ui")
            if token:
                page.fill("#token", token)
                page.keyboard.press("Enter")
            return page

        yield open_
        browser.close()


def row(page: Page, table: str, name: str) -> Any:
    """Return the row of a table that begins with a name."""
    cell = page.locator("td:first-child", has_text=re.compile(f"^{name}$"))
    return page.locator(f"#{table} tbody tr").filter(has=cell)


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Kill a node, and start it again at the end."""
    node.kill()
    yield
    node.spawn()


def answer(node: Node, **headers: str) -> httpx2.Response:
    """Ask for the page without a token."""
    return httpx2.get(f"http://{node.address}/mesh/ui", headers=headers, trust_env=False)


def test_the_page_itself_holds_nothing_of_the_cluster(node: Node) -> None:
    """It needs no token, loads nothing from elsewhere, and no other script can run in it."""
    page = answer(node)

    assert 200 == page.status_code
    assert "node1" not in page.text
    assert [] == re.findall(r"""(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org)""", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert "innerHTML" not in page.text


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, as WCAG 2.2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_of_text_is_legible_on_every_ground(theme: str, node: Node) -> None:
    """4.5 to 1 at least: WCAG 2.2, AA."""
    styles = re.findall(r"--([\w-]+): (#\w{6})", answer(node).text)
    half = len(styles) // 2
    colours = dict(styles[:half] if theme == "light" else styles[half:])

    for ink in ("ink", "quiet", "accent", "good", "warn", "bad"):
        for ground in ("paper", "panel"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("size", list(SIZES))
def test_a_cluster_is_shown_whole_and_fits_the_screen(
    size: str, cluster: list[Node], open_page: Open
) -> None:
    """Members, health, the ring; and nothing is wider than the screen."""
    page = open_page(cluster[0], size=size)

    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#members tbody tr")).to_have_count(3)
    expect(page.locator("#ring span")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


@needs_browser
@pytest.mark.slow
def test_a_node_that_goes_down_and_returns_is_seen(own_launcher: Launcher, open_page: Open) -> None:
    """Without a reload, with its event and with the problem, while it lasts."""
    nodes = own_launcher.cluster("one", "two", "three")
    page = open_page(nodes[0])
    state = row(page, "members", "two").locator("td").nth(1)
    expect(state).to_have_text("Alive")

    with stopped(nodes[1]):
        expect(state).to_have_text("Down")
        expect(page.locator("#log")).to_contain_text("MemberDown")
        expect(page.locator("#problems")).to_contain_text("two")

    expect(state).to_have_text("Alive")
    expect(page.locator("#health")).to_have_text("healthy")


@needs_browser
@pytest.mark.slow
def test_a_limit_is_changed_by_the_keyboard(
    cluster: list[Node], name: str, open_page: Open
) -> None:
    """And shows on the page of another node."""
    page, other = open_page(cluster[0]), open_page(cluster[1])
    expect(page.locator("#state")).to_have_text("ready")
    expect(other.locator("#state")).to_have_text("ready")

    page.focus("#limit-form [name=key]")
    page.keyboard.press("Control+a")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type("123")
    page.keyboard.press("Enter")

    expect(page.locator("#notice")).to_contain_text("123")
    expect(row(other, "limits", name).locator("td").nth(1)).to_have_text("123")


@needs_browser
@pytest.mark.slow
def test_a_policy_is_set(node: Node, name: str, open_page: Open) -> None:
    """By its form, and shows."""
    page = open_page(node)
    expect(page.locator("#state")).to_have_text("ready")

    page.fill("#policy-form [name=model]", name)
    page.fill("#policy-form [name=type]", "round_robin")
    page.press("#policy-form [name=type]", "Enter")

    expect(row(page, "policies", name).locator("td").nth(1)).to_have_text("round_robin")
    assert "round_robin" == node.get(f"/mesh/policies/{name}")["policy_type"]


@needs_browser
@pytest.mark.slow
def test_a_member_that_is_down_is_forgotten(own_launcher: Launcher, open_page: Open) -> None:
    """After a question; one that is there has no such button."""
    nodes = own_launcher.cluster("one", "two", "three")
    page = open_page(nodes[0])
    forget = page.get_by_role("button", name="Forget two")
    expect(row(page, "members", "two").locator("td").nth(1)).to_have_text("Alive")
    expect(forget).to_be_hidden()
    nodes[1].kill()
    page.on("dialog", lambda dialog: dialog.accept())

    forget.click()

    expect(row(page, "members", "two")).to_have_count(0)
    expect(page.locator("#members tbody tr")).to_have_count(2)


@needs_browser
@pytest.mark.slow
def test_what_a_limit_admits_and_refuses_is_drawn(node: Node, name: str, open_page: Open) -> None:
    """Against the limit; and the keys of which most was decided are named."""
    hexed = b'{"limit_per_second": 2}'.hex()
    node.request("POST", "/mesh/config", {"key": f"rate_limit:{name}", "value": hexed})
    page = open_page(node)
    expect(page.locator("#state")).to_have_text("ready")
    for _ in range(12):
        node.client.post("/mesh/rate-limit/acquire", json={"key": name})

    busy = row(page, "busiest", name).locator("td")
    expect(busy.nth(2)).to_have_text(re.compile("[1-9]"))
    expect(row(page, "limits", name).locator("svg polyline")).to_have_count(3)


@needs_browser
@pytest.mark.slow
def test_what_a_token_does_not_open_is_said(own_launcher: Launcher, open_page: Open) -> None:
    """A reader sees everything, and is refused a change in words."""
    node = own_launcher.node("one", environment={"MESH_TOKENS": "reader:read"})
    node.client.headers["Authorization"] = "Bearer reader"
    node.start()
    page = open_page(node, token="reader")
    expect(page.locator("#state")).to_have_text("ready")

    page.fill("#limit-form [name=limit]", "5")
    page.press("#limit-form [name=limit]", "Enter")

    expect(page.locator("#notice")).to_contain_text("operate")


@needs_browser
@pytest.mark.slow
def test_a_wrong_token_is_asked_for_again_and_none_is_in_the_address(
    node: Node, open_page: Open
) -> None:
    """It is kept in the tab alone."""
    page = open_page(node, token="wrong")
    expect(page.locator("#state")).to_have_text("no access")
    expect(page.locator("#ask")).to_be_visible()

    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")

    expect(page.locator("#state")).to_have_text("ready")
    assert TOKEN not in page.url
    assert 0 == page.evaluate("localStorage.length")


@needs_browser
@pytest.mark.slow
def test_before_a_token_nothing_is_wrong_and_many_keys_hide_nothing(
    own_launcher: Launcher, open_page: Open
) -> None:
    """Who opens the page is asked, not refused; and a list scrolls in its own place."""
    node = own_launcher.node("one")
    node.start()
    for number in range(0, 200, 100):
        keys = {f"key/{one}": "00" for one in range(number, number + 100)}
        node.request("PATCH", "/mesh/config", {"put": [{"key": k, "value": keys[k]} for k in keys]})
    page = open_page(node, token="")
    expect(page.locator("#state")).to_have_text("a token is needed")
    expect(page.locator("#notice")).to_have_text("")

    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")

    expect(page.locator("#config tbody tr")).to_have_count(200)
    assert page.evaluate("document.documentElement.scrollHeight") < 3 * SIZES["desk"]["height"]


@needs_browser
@pytest.mark.slow
def test_a_name_that_is_markup_is_text(node: Node, name: str, open_page: Open) -> None:
    """Whatever a worker is called, it runs nothing."""
    strange = f"{name}<img src=x onerror=alert(1)>"
    body = {"model_id": "m", "url": strange, "health": True, "load": 0.0}
    node.request("PUT", f"/mesh/workers/{name}", body)
    page = open_page(node)
    try:
        expect(row(page, "workers", name).locator("td").nth(2)).to_have_text(strange)
        assert 0 == page.locator("img").count()
    finally:
        node.request("DELETE", f"/mesh/workers/{name}")


@needs_browser
@pytest.mark.slow
def test_a_link_that_is_broken_one_way_shows_in_the_matrix(open_page: Open) -> None:
    """Though every member is Alive to all; and it goes when the link is whole again."""
    lab = Lab()
    with shown(lab) as address:
        page = open_page(address, token="")
        cell = page.locator('#matrix [data-pair="b>a"]')
        expect(cell).to_have_text("✓")

        lab.broken.add(("a:1", "b:1"))

        expect(cell).to_have_text("✕ not heard")
        expect(page.locator('#matrix [data-pair="c>a"]')).to_have_text("✓")
        expect(row(page, "members", "a").locator("td").nth(1)).to_have_text("Alive")
        if "MESHLIB_PICTURES" in os.environ:
            page.screenshot(path=os.environ["MESHLIB_PICTURES"] + "/partition.png", full_page=True)
        lab.broken.clear()
        expect(cell).to_have_text("✓")


def test_the_pictures_of_the_documents_are_there() -> None:
    """Those that the page on operations shows."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    shown = re.findall(r"!\[[^\]]+\]\((assets/[^)]+)\)", (docs / "operations.md").read_text())

    assert shown
    assert all((docs / each).is_file() for each in shown)


@needs_browser
@pytest.mark.slow
def test_a_worker_is_set_unhealthy_and_healthy_again(
    node: Node, name: str, open_page: Open
) -> None:
    """The button says what it does, and a lease stays one; what is in flight there is shown."""
    worker = {"model_id": name, "url": "http://w", "health": True, "load": 0.5, "ttl_s": 600}
    node.request("PUT", f"/mesh/workers/{name}", worker)
    first = node.request("POST", f"/mesh/route/{name}", {"text": "a prompt", "tokens": 9000})
    node.request("POST", f"/mesh/route/{name}/complete", {"request_id": first["request_id"]})
    node.request("POST", f"/mesh/route/{name}", {"text": "a prompt", "tokens": 9000})
    page = open_page(node)
    cells = row(page, "workers", name).locator("td")
    expect(cells.nth(5)).to_have_text("1")
    expect(cells.nth(7)).to_have_text(re.compile(r"^\d+\.\d %$"))

    for button, state in (("Set unhealthy", "not healthy"), ("Set healthy", "healthy")):
        page.get_by_role("button", name=f"{button}: {name}").click()
        expect(cells.nth(3)).to_have_text(state)
    assert {**worker, "worker_id": name, "version": 3} == node.get(f"/mesh/workers/{name}")
