// The page's own list, fed as the stream feeds it: batches of 500, drawn as they come. Answers with milliseconds.
async (lines) => {
  const { LogList } = await import("/app/loglist.js");
  const host = document.createElement("div");
  host.className = "log-area";
  host.id = "synthetic";
  document.querySelector("#panel-logs .log-area").hidden = true;
  document.querySelector("#panel-logs .logs-view").append(host);
  const list = (window.__list = new LogList({ onChange: (counts) => (window.__counts = counts) }));
  host.append(list.element);

  const frame = () => new Promise((done) => requestAnimationFrame(done));
  let longest = 0;
  let last = performance.now();
  let watching = true;
  const watch = (async () => {
    while (watching) {
      await frame();
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }
  })();
  const timed = async (action) => {
    const begin = performance.now();
    await action();
    await frame();
    await frame();
    return performance.now() - begin;
  };

  const levels = ["DEBUG", "DEBUG", "INFO", "WARN", "ERROR"];
  const entry = (number) => ({
    timestamp: new Date(1.7e12 + number).toISOString(),
    level: levels[number % levels.length],
    event_type: "tick_complete",
    run_id: "synthetic",
    message: `Tick ${number} complete`,
    payload: { C_t: -number },
    index: number,
    cursor: String(number + 1),
  });
  const figures = {};
  figures.feed = await timed(async () => {
    for (let begin = 0; begin < lines; begin += 500) {
      list.append(Array.from({ length: 500 }, (_, offset) => entry(begin + offset)));
      await new Promise((done) => setTimeout(done));
    }
  });
  figures.longestFrameWhileFed = longest;
  figures.search = await timed(() => list.filter({ text: "tick 99" }));
  figures.searchAgain = await timed(() => list.filter({ text: "tick 12" }));
  figures.level = await timed(() => list.filter({ text: "", level: "WARN" }));
  figures.all = await timed(() => list.filter({ level: "DEBUG" }));
  list.follow(false);
  await frame();
  longest = 0;
  for (let jump = 0; jump < 60; jump += 1) {
    list.element.scrollTop = (list.element.scrollHeight * jump) / 60;
    await frame();
  }
  figures.longestFrameWhileScrolled = longest;
  watching = false;
  await watch;
  figures.elements = host.querySelectorAll("*").length;
  return figures;
}
