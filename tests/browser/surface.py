"""The page as an operator sees it, and a watch over what no page may ever do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from playwright.async_api import BrowserContext, Locator, Page, Request, WebSocket, expect

SHOTS: Final = Path(__file__).resolve().parents[2] / ".gbe" / "screenshots"
"""Where the screenshots go; ignored by git."""

TABS: Final = ("dashboard", "scenarios", "pillars", "governance", "history", "logs")

PATIENCE: Final = 20_000
"""Milliseconds; generous, since the machine may be busy with something else."""

_WATCH: Final = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective}: ${event.blockedURI || event.sourceFile}`);
});
"""


class Surface:
    """`open` it; `expect_clean` at the end of every test."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.requests: list[Request] = []
        self.sockets: list[WebSocket] = []
        self._answered: set[Request] = set()
        self.complaints: list[str] = []
        self.tolerated: list[str] = []
        """Parts of console messages that a test brings about on purpose."""
        # `append` itself is nothing that Playwright can mark as listening.
        page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108
        page.on("websocket", lambda socket: self.sockets.append(socket))  # noqa: PLW0108
        for event in ("requestfinished", "requestfailed"):
            page.on(event, lambda request: self._answered.add(request))  # noqa: PLW0108
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda said: (
                self.complaints.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None
            ),
        )

    async def open(self, where: str = "") -> None:
        """Open the page; returns when it is connected."""
        await self.context.add_init_script(_WATCH)
        await self.page.goto(f"{self.url}/{where}")
        await self.ready()

    async def ready(self) -> None:
        """Wait until it has read everything and is connected."""
        await self.page.wait_for_selector("html[data-ready=true][data-connection=live]", timeout=PATIENCE)

    async def quiet(self) -> None:
        """Wait until nothing that was asked for is outstanding, and what came is drawn."""
        while True:
            await self.page.evaluate(
                "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            if all(request in self._answered for request in self.requests):
                return

    # --- what there is ---

    @property
    def pill(self) -> Locator:
        return self.page.locator(".pill")

    @property
    def dialog(self) -> Locator:
        return self.page.locator("dialog[open]")

    def control(self, name: str) -> Locator:
        return self.page.locator(f'.controls [data-control="{name}"]')

    def panel(self, name: str) -> Locator:
        return self.page.locator(f"#panel-{name}")

    def toast(self, text: str) -> Locator:
        return self.page.locator(".toast", has_text=text)

    async def controls(self) -> dict[str, bool]:
        """The controls of the run that are shown, and whether they may be used."""
        found = await self.page.locator(".controls [data-control]").evaluate_all(
            "nodes => nodes.map(node => [node.dataset.control, !node.disabled])"
        )
        return {name: usable for name, usable in found if name != "options"}

    async def expect_controls(self, **wanted: bool) -> None:
        """Wait until exactly these are shown."""
        await self.page.wait_for_function(
            """wanted => {
              const nodes = [...document.querySelectorAll(".controls [data-control]:not([data-control=options])")];
              const names = Object.keys(wanted);
              const usable = Object.fromEntries(nodes.map((node) => [node.dataset.control, !node.disabled]));
              return nodes.length === names.length && names.every((name) => usable[name] === wanted[name]);
            }""",
            arg=wanted,
            timeout=PATIENCE,
        )

    async def ticks(self) -> int:
        """Of the run, as the progress bar tells an assistive technology."""
        text = await self.page.locator(".progress").get_attribute("aria-valuetext") or ""
        return int(text.split("tick ")[1].split(" of ")[0].replace(",", "").replace("–", "0"))

    async def expect_ticks_beyond(self, ticks: int) -> None:
        """Wait until the run is further than that."""
        await self.page.wait_for_function(
            """ticks => {
              const text = document.querySelector(".progress").getAttribute("aria-valuetext");
              return Number((text.match(/tick ([\\d,]+)/) ?? [0, "0"])[1].replaceAll(",", "")) > ticks;
            }""",
            arg=ticks,
            timeout=PATIENCE,
        )

    # --- what an operator does ---

    async def tab(self, name: str) -> None:
        """Open a tab by its button."""
        await self.page.locator(f"#tab-{name}").click()
        await expect(self.panel(name)).to_be_visible()

    async def start(self, scenario: str, ticks: int, *, paused: bool = False) -> None:
        """Start with options, as the dialog has them."""
        await self.control("options").click()
        await self.dialog.get_by_label("Scenario").select_option(scenario)
        await self.dialog.get_by_label("Ticks").fill(str(ticks))
        if paused:
            await self.dialog.get_by_label("Start paused").check()
        await self.dialog.get_by_role("button", name="Start").click()
        await expect(self.dialog).to_have_count(0)

    async def stop(self) -> None:
        """Stop the run, and say yes."""
        await self.control("stop").click()
        await self.dialog.get_by_role("button", name="Stop the run").click()
        await self.expect_controls(start=True)

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the service beside the page. Raises on an error status."""
        headers = {"content-type": "application/json"} if body is not None else {}
        answer = await self.context.request.fetch(
            f"{self.url}{path}", method=method, headers=headers, data=None if body is None else json.dumps(body)
        )
        assert answer.ok, f"{method} {path}: {answer.status} {await answer.text()}"
        return await answer.json()

    async def refuse(self, pattern: str, status: int, code: str, *, times: int | None = None) -> None:
        """Let the service answer with an error, so often or until `page.unroute(pattern)`."""
        self.tolerated.append(f"status of {status}")
        body = {"error": {"code": code, "message": f"{code} on purpose", "field": None}}
        await self.page.route(pattern, lambda route: route.fulfill(status=status, json=body), times=times)

    async def picture(self, name: str) -> None:
        """Keep a screenshot, to be looked at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SHOTS / f"{name}.png")

    def writes(self) -> list[str]:
        """What the page has sent that changes something: `POST /runs`."""
        return [f"{each.method} {each.url.removeprefix(self.url)}" for each in self.requests if each.method != "GET"]

    # --- what must hold ---

    async def expect_clean(self) -> None:
        """No request left the origin, nothing was refused by the content security policy, nothing went wrong unseen."""
        socket_url = self.url.replace("http", "ws", 1)
        strangers = [
            each.url for each in self.requests if not each.url.startswith((f"{self.url}/", f"blob:{self.url}/"))
        ]
        strangers += [each.url for each in self.sockets if not each.url.startswith(f"{socket_url}/")]
        assert strangers == [], strangers
        if not self.page.is_closed():
            assert await self.page.evaluate("window.__violations ?? []") == []
        complaints = [said for said in self.complaints if not any(part in said for part in self.tolerated)]
        assert complaints == [], complaints
