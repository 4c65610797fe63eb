"""A whole operator session, clicked through: item 7 of the operator-surface issue, and what it shows when done."""

import asyncio
import json
import re
import zipfile

import pytest
from playwright.async_api import Route, expect

from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]


async def test_start_watch_pause_step_resume_stop_history_export_logs(surface: Surface) -> None:
    page = surface.page
    await surface.open()
    await surface.expect_controls(start=True)
    await expect(surface.pill).to_have_text("Idle")
    await surface.picture("session-1-idle")

    # Short while it runs: whoever cancels waits for the results, and the export is among them.
    await surface.start("pulse-100", 5_000_000, paused=True)
    await surface.expect_controls(resume=True, step=True, stop=True)
    await expect(surface.pill).to_have_text("Paused")
    held = await surface.ticks()
    await surface.control("step").click()
    await expect(page.locator(".progress")).to_have_attribute("aria-valuetext", _with(f"tick {held + 1:,} of"))

    # It moves without a reload.
    await surface.control("resume").click()
    await surface.expect_controls(pause=True, step=False, stop=True)
    await surface.expect_ticks_beyond(held + 1)
    await surface.expect_ticks_beyond(await surface.ticks())
    await surface.control("pause").click()
    await surface.expect_controls(resume=True, step=True, stop=True)
    assert len([each for each in surface.requests if each.is_navigation_request()]) == 1

    cards = surface.panel("dashboard").locator(".pillar")
    await expect(cards).to_have_count(5)
    for card in await cards.all():
        await expect(card.locator(".pillar-status")).to_have_text("paused")
        await expect(card.locator(".pillar-headline")).not_to_have_text("–")
    for chart in ("Σ |flux| per tick", "Ticks per second"):
        await expect(page.get_by_role("img", name=chart)).to_have_attribute("aria-label", _with("highest"))
    drawing = page.locator(".topology-drawing")
    await expect(drawing.locator(".topology-node")).to_have_count(100)
    await expect(drawing.locator("title").first).to_contain_text("pulse-100")
    await surface.picture("session-2-paused")

    # Stopping asks once, and saying no sends nothing.
    before = surface.writes()
    await surface.control("stop").click()
    await expect(surface.dialog).to_contain_text("Stop this run?")
    await expect(surface.dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await surface.picture("session-3-stop")
    await page.keyboard.press("Escape")
    await expect(surface.dialog).to_have_count(0)
    assert surface.writes() == before
    await surface.stop()
    await expect(surface.panel("dashboard").locator(".banner")).to_contain_text("cancelled")
    run = (await surface.api("GET", "/state"))["run"]
    assert run["state"] == "cancelled"

    await surface.tab("history")
    row = page.locator(f'.history-table tr[data-run="{run["run_id"]}"]')
    await expect(row).to_contain_text("cancelled")
    await row.get_by_role("button", name=run["run_id"]).click()
    side = surface.panel("history").locator(".detail")
    await expect(side).to_contain_text("pulse-100")
    await expect(side).to_contain_text("of 5,000,000")
    assert page.url.endswith(f"#/history/{run['run_id']}")
    await surface.picture("session-4-history")

    async with page.expect_download() as coming:
        await side.get_by_role("button", name="Export").click()
    download = await coming.value
    assert download.url == f"{surface.url}/history/{run['run_id']}/export"  # the browser's own, not through the page
    assert download.suggested_filename == f"{run['run_id']}.zip"
    with zipfile.ZipFile(await download.path()) as bundle:
        assert bundle.testzip() is None
        names = bundle.namelist()
        manifest = next(name for name in names if name.endswith("manifest.json"))
        assert isinstance(json.loads(bundle.read(manifest)), dict)

    await side.get_by_role("button", name="Logs").click()
    await expect(surface.panel("logs")).to_be_visible()
    lines = surface.panel("logs").locator(".log-line:visible")
    await expect(surface.panel("logs").locator(".log-counts")).to_contain_text("complete")
    await expect(lines.first).to_be_visible()
    await surface.picture("session-5-logs")
    await page.get_by_label("Level").select_option("INFO")
    await expect(surface.panel("logs").locator('.log-line[data-level="DEBUG"]:visible')).to_have_count(0)
    await page.keyboard.press("/")
    await page.get_by_label("Search in the entries").fill("run_start")
    await expect(lines).to_have_count(1)
    await lines.first.click()
    await expect(surface.panel("logs").locator(".log-detail")).to_contain_text("run_start")
    await expect(surface.panel("logs").locator(".payload")).to_contain_text("total_ticks")


async def test_a_run_that_completes_leaves_the_surface_idle(surface: Surface) -> None:
    await surface.open()
    await surface.start("gf01", 8)
    banner = surface.panel("dashboard").locator(".banner")
    await expect(banner).to_contain_text("completed")
    await surface.expect_controls(start=True)
    await banner.get_by_role("button", name="Details").click()
    side = surface.panel("history").locator(".detail")
    await expect(side).to_contain_text("Nap total")
    await expect(side).to_contain_text("8 of 8")
    await surface.tab("dashboard")
    await banner.get_by_role("button", name="Dismiss").click()
    await expect(banner).to_have_count(0)
    assert (await surface.api("GET", "/state"))["run"] is None


async def test_a_control_that_is_off_sends_nothing(surface: Surface) -> None:
    page = surface.page
    await surface.open()
    for key in ("p", ".", "x", "r"):
        await page.keyboard.press(key)
    assert surface.writes() == []

    await surface.start("ring-5", 2_000_000)
    await surface.expect_controls(pause=True, step=False, stop=True)
    before = surface.writes()
    await page.keyboard.press("s")
    await page.keyboard.press("o")
    await page.keyboard.press(".")
    await page.keyboard.press("r")
    await surface.control("step").dispatch_event("click")
    await surface.control("step").evaluate("node => node.click()")
    assert surface.writes() == before
    await expect(surface.dialog).to_have_count(0)


async def test_what_the_service_refuses_is_said_at_the_field_and_elsewhere(surface: Surface) -> None:
    page = surface.page
    await surface.api("POST", "/scenarios/gf01/activate")
    await surface.open()
    await surface.control("options").click()
    surface.tolerated.append("422")
    await surface.dialog.get_by_label("Ticks").fill("many")
    await surface.dialog.get_by_role("button", name="Start").click()
    await expect(surface.dialog.get_by_label("Ticks")).to_have_attribute("aria-invalid", "true")
    await expect(surface.dialog.locator(".field-error:not(:empty)")).to_be_visible()
    await expect(surface.dialog.get_by_label("Ticks")).to_be_focused()
    await surface.picture("refused-start")
    await page.keyboard.press("Escape")

    # Somebody else was faster, and the page did not know yet.
    surface.tolerated.append("409")
    await page.route(
        "**/runs",
        lambda route: route.fulfill(
            status=409, json={"error": {"code": "run_active", "message": "another run is under way", "field": None}}
        ),
    )
    await surface.control("start").click()
    toast = surface.toast("another run is under way")
    await expect(toast).to_contain_text("run_active · 409")
    await toast.get_by_role("button", name="Dismiss").click()
    await expect(toast).to_have_count(0)


def _with(part: str) -> re.Pattern[str]:
    return re.compile(re.escape(part))


async def test_the_dialog_does_not_wait_and_what_is_under_way_is_not_thrown_away(surface: Surface) -> None:
    page = surface.page
    await surface.open()
    goes_on = asyncio.Event()

    async def late(route: Route) -> None:
        await goes_on.wait()
        await route.continue_()

    await page.route("**/governance/presets", late)
    await surface.control("options").click()
    await expect(surface.dialog.get_by_label("Ticks")).to_be_focused()
    goes_on.set()
    await expect(surface.dialog.get_by_label("Governance").locator("option")).not_to_have_count(1)

    # Escape while the service is asked: the dialog stays, for the answer may be a refusal.
    asked, answered = asyncio.Event(), asyncio.Event()

    async def refused(route: Route) -> None:
        asked.set()
        await answered.wait()
        error = {"code": "run_active", "message": "another run is under way", "field": None}
        await route.fulfill(status=409, json={"error": error})

    surface.tolerated.append("409")
    await page.route("**/runs", refused)
    await page.keyboard.press("Enter")
    await asked.wait()
    await page.keyboard.press("Escape")
    answered.set()
    await expect(surface.dialog).to_contain_text("another run is under way (run_active)")
    await page.keyboard.press("Escape")
    await expect(surface.dialog).to_have_count(0)


async def test_controls_that_are_pressed_twice_send_once(surface: Surface) -> None:
    page = surface.page
    await surface.api("POST", "/scenarios/pulse-100", {"core_params": {"ticks_total": 5_000_000}})
    await surface.api("POST", "/scenarios/pulse-100/activate")
    await surface.open()
    for control, then in (
        ("start", {"pause": True, "step": False, "stop": True}),
        ("pause", {"resume": True, "step": True, "stop": True}),
        ("step", {"resume": True, "step": True, "stop": True}),
        ("resume", {"pause": True, "step": False, "stop": True}),
    ):
        # Both in one turn: faster than any answer.
        await surface.control(control).evaluate("node => { node.click(); node.click(); }")
        await surface.expect_controls(**then)
    await surface.control("stop").evaluate("node => { node.click(); node.click(); }")
    await expect(surface.dialog).to_have_count(1)
    await surface.dialog.get_by_role("button", name="Stop the run").dblclick()
    await surface.expect_controls(start=True)
    await page.evaluate("location.hash = '#/scenarios/gf01'")
    activate = surface.panel("scenarios").get_by_role("button", name="Set active")
    await expect(surface.panel("scenarios").locator(".card-title")).to_have_text("gf01")
    await activate.evaluate("node => { node.click(); node.click(); }")
    await expect(activate).to_be_hidden()
    sent = [each.rsplit("/", 1)[1] for each in surface.writes()]
    assert sent == ["runs", "pause", "step", "resume", "stop", "activate"]
