"""Hostile texts, the content security policy, and the token."""

import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

import trinity_gate
from tests.browser.gate import TOKENS, Gate
from tests.browser.library import MARKUP
from tests.browser.surface import TABS, Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]

WEB = Path(trinity_gate.__file__).parent / "web"


async def test_markup_in_names_labels_windows_and_logs_is_shown_as_text(surface: Surface) -> None:
    page = surface.page
    await surface.api("POST", "/scenarios/markup", {"name": MARKUP[:120], "tags": ["<i>tag</i>"]})
    await surface.api("POST", "/scenarios/markup/activate")
    await surface.open("#/scenarios/markup")
    await expect(surface.panel("scenarios").get_by_label("Description")).to_have_value(MARKUP)
    await expect(page.locator('.pick-list li[data-id="markup"] .pick-text')).to_have_text(MARKUP)
    await surface.panel("scenarios").get_by_text("Expert view").click()
    await surface.picture("markup-scenarios")
    await surface.start("markup", 20)
    await surface.expect_controls(start=True)
    for tab in TABS:
        await surface.tab(tab)
        await surface.quiet()
    lines = surface.panel("logs").locator(".log-line:visible")
    await surface.panel("logs").get_by_label("Search in the entries").fill("window.__owned")
    await expect(surface.panel("logs").locator(".log-counts")).to_contain_text(" of ")
    await lines.first.click()
    await expect(surface.panel("logs").locator(".payload")).to_contain_text("onerror")
    await surface.picture("markup-logs")
    await page.evaluate("location.hash = '#/history/' + encodeURIComponent('<img src=x onerror=window.__owned=1>')")
    surface.tolerated += ["404", "422"]
    await expect(surface.panel("history").locator(".detail")).to_contain_text("onerror")
    assert await page.evaluate("window.__owned") is None
    assert await page.locator("img[onerror], b.owned, main script").count() == 0


@pytest.mark.parametrize(
    "forbidden",
    [
        r"\b(inner|outer)HTML\b(?!\.slice)",
        r"insertAdjacentHTML",
        r"document\.write",
        r"createContextualFragment|DOMParser|setHTMLUnsafe",
        r"\beval\(|new Function\(",
        r"javascript:",
        r"https?://(?!www\.w3\.org/)",
    ],
)
async def test_no_file_of_the_page_parses_markup_runs_text_or_names_another_host(forbidden: str) -> None:
    files = [file for file in WEB.rglob("*") if file.is_file()]
    assert len(files) > 20
    found = [f"{file.name}: {match.group()}" for file in files for match in re.finditer(forbidden, file.read_text())]
    assert found == []


async def test_the_document_has_no_inline_script_style_or_handler() -> None:
    text = (WEB / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", text) == []


async def test_the_policy_really_holds(surface: Surface) -> None:
    """What an injected element would try is refused by the browser: the watch over violations sees something."""
    await surface.open()
    surface.tolerated.append("Content Security Policy")
    await surface.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.__owned = 1";
          document.body.append(script);
          document.body.setAttribute("style", "color: red");
        }"""
    )
    await surface.page.wait_for_function("window.__violations.length >= 2")
    assert await surface.page.evaluate("window.__owned") is None
    await surface.page.evaluate("window.__violations = []")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """A service that wants tokens."""
    gate = Gate(tmp_path_factory.mktemp("guarded"), tokens=True)
    await gate.start()
    try:
        yield gate
    finally:
        await gate.stop()


async def test_a_token_is_asked_for_kept_for_the_tab_and_never_in_an_address(browser: Browser, guarded: Gate) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page = await context.new_page()
    surface = Surface(context, page, guarded.url)
    surface.tolerated.append("401")
    await page.goto(guarded.url)
    await expect(surface.dialog).to_contain_text("asks for a token")
    await surface.picture("token")

    # Who has none is not asked again and again.
    await page.keyboard.press("Escape")
    await expect(page.locator(".connection")).to_have_text("A token is needed")
    await surface.expect_controls(start=False)
    await page.get_by_role("button", name="Another token").click()
    await surface.dialog.get_by_label("Token").fill("not-a-token-of-anybody-1")
    await page.keyboard.press("Enter")
    await expect(surface.dialog).to_contain_text("does not know this token")
    role, token = TOKENS["otto"]
    await surface.dialog.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await surface.ready()
    await expect(page.locator(".who")).to_have_text(f"otto · {role}")

    # An operator steers, and edits nothing.
    await surface.start("gf01", 8)
    await surface.expect_controls(start=True)
    await page.evaluate("location.hash = '#/scenarios/gf01'")
    await expect(surface.panel("scenarios").get_by_label("Description")).to_be_disabled()
    await expect(surface.panel("scenarios").get_by_role("button", name="Save")).to_have_count(0)
    await surface.panel("scenarios").get_by_role("button", name="Set active").click()
    await expect(page.locator(".scenario-chip strong")).to_have_text("gf01")
    await surface.tab("governance")
    await expect(surface.panel("governance").get_by_role("radio", name="Off")).to_be_disabled()
    await expect(surface.panel("governance").locator(".audit")).to_be_hidden()
    await expect(surface.panel("governance").get_by_role("button", name="Save")).to_have_count(0)
    # A link carries no token, so an export goes through the page.
    await surface.tab("history")
    await surface.panel("history").locator("tbody tr .when").first.click()
    async with page.expect_download() as coming:
        await surface.panel("history").get_by_role("button", name="Export").click()
    download = await coming.value
    assert download.url.startswith("blob:")
    assert zipfile.is_zipfile(await download.path())
    await page.reload()
    await surface.ready()
    assert await page.evaluate("sessionStorage.getItem('gate.token')") == token
    assert await page.evaluate("localStorage.getItem('gate.token')") is None
    assert all(token not in each.url for each in surface.requests)
    assert len(surface.sockets) >= 2
    assert all(token not in each.url for each in surface.sockets)
    await surface.expect_clean()

    # An observer only looks. Another tab knows no token.
    other = Surface(context, await context.new_page(), guarded.url)
    other.tolerated.append("401")
    await other.page.goto(guarded.url)
    await other.dialog.get_by_label("Token").fill(TOKENS["olga"][1])
    await other.page.keyboard.press("Enter")
    await other.ready()
    await other.expect_controls(start=False)
    await other.page.keyboard.press("s")
    assert other.writes() == []
    await other.expect_clean()
    await context.close()
