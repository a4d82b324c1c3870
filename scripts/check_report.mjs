// Checks a report.html in a real browser: node scripts/check_report.mjs REPORT.html [MORE.html …]
//
// Reports from made-up artifacts, one of them with hostile names, come from a test:
//   REPORT_FIXTURE_DIR=$PWD/target/report-fixture cargo test --lib fixture_reports_render
//   node scripts/check_report.mjs target/report-fixture/*/report.html
//
// Needs Chromium (CHROMIUM=/path, otherwise found on the path) and npm; playwright-core and axe-core are
// installed into target/report-check (REPORT_CHECK_DIR overrides). SCREENSHOTS=DIR also leaves pictures.
// Exits with 1 and a list of what failed.

import { createHash } from "node:crypto";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { findChromium, loadPackages } from "./browser.mjs";

const pages = process.argv.slice(2).map((file) => path.resolve(file));
if (pages.length === 0) {
  console.error("usage: node scripts/check_report.mjs REPORT.html [MORE.html …]");
  process.exit(2);
}
const { chromium, axe } = loadPackages();
const browser = await chromium.launch({ executablePath: findChromium(), args: ["--no-sandbox", "--disable-gpu"] });
let failed = 0;
let passed = 0;
let slowest = 0;

async function check(file) {
  const url = pathToFileURL(file).href;
  const problems = [];
  const expect = (fine, what) => {
    if (fine) passed += 1;
    else problems.push(what);
  };

  /// A page that writes down whatever goes wrong on it.
  async function open(options) {
    const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
    const page = await context.newPage();
    const note = (kind) => (text) => problems.push(`${kind}: ${text}`);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) note("console")(message.text());
    });
    page.on("pageerror", (error) => note("script error")(error.message));
    page.on("dialog", (dialog) => {
      note("dialog")(dialog.message());
      dialog.dismiss();
    });
    page.on("request", (request) => {
      if (request.url() !== url && !request.url().startsWith("data:")) note("network request")(request.url());
    });
    const began = performance.now();
    await page.goto(url, { waitUntil: "load" });
    // Two frames later the page has been drawn. Without scripts nobody can say.
    if (options.javaScriptEnabled !== false) {
      await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    }
    page.opened = performance.now() - began;
    return page;
  }
  async function shoot(page, name) {
    if (!process.env.SCREENSHOTS) return;
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    const tag = createHash("sha256").update(file).digest("hex").slice(0, 6);
    await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${tag}-${name}.png`), fullPage: true });
  }
  /// Elements that reach beyond the window and are not inside a region of their own that scrolls.
  const overflow = (page) => page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const inScroller = (element) => element.closest(".scroll, pre") !== null;
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width > 0 && box.right > width + 1 && !inScroller(element) && !element.closest("svg") && !element.matches(".skip");
    });
    return {
      scrolls: document.documentElement.scrollWidth > width,
      wide: wide.slice(0, 3).map((element) => `${element.tagName.toLowerCase()}.${element.className}`),
    };
  });
  async function accessibility(page, mode) {
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    await page.evaluate(axe);
    const result = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    const serious = result.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
    expect(serious.length === 0, `axe, ${mode}: ${serious.map((v) => `${v.id} at ${v.nodes[0].target} (${v.nodes.length}): ${v.nodes[0].any[0]?.message ?? v.help}`).join("; ")}`);
    return result.violations.length;
  }

  // Light.
  const light = await open({ colorScheme: "light" });
  await shoot(light, "light");
  const size = statSync(file).size;
  slowest = Math.max(slowest, light.opened);
  expect(light.opened < 1_000, `takes ${Math.round(light.opened)} ms to open`);
  expect(size < 4_000_000, `has ${size} bytes`);
  const text = (page) => page.evaluate(() => document.querySelector("main").innerText.trim());
  expect((await light.locator("h1").count()) === 1, "there must be exactly one h1");
  for (const landmark of ["header", "nav", "main", "footer"]) {
    expect((await light.locator(landmark).count()) === 1, `there must be exactly one ${landmark}`);
  }
  expect(!(await overflow(light)).scrolls, "scrolls sideways at 1200 px");
  expect((await light.locator("script").count()) === 1, "there must be exactly one script, the page's own");
  expect((await light.evaluate(() => document.querySelectorAll("[onerror], [onload], [onclick]").length)) === 0, "an element has a handler in its markup");
  const broken = await light.evaluate(() => [...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length);
  expect(broken === 0, `${broken} pictures are broken`);
  const anchors = await light.evaluate(() => [...document.querySelectorAll("a[href^='#']")].filter((a) => !document.getElementById(a.hash.slice(1))).map((a) => a.hash));
  expect(anchors.length === 0, `links lead nowhere: ${anchors}`);
  const ids = await light.evaluate(() => {
    const all = [...document.querySelectorAll("[id]")].map((element) => element.id);
    return all.filter((id, idx) => all.indexOf(id) !== idx);
  });
  expect(ids.length === 0, `ids stand twice: ${ids}`);

  // Pointer and keyboard on every chart, also those in details.
  await light.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
  const charts = light.locator("[data-chart]");
  for (let idx = 0; idx < (await charts.count()); idx += 1) {
    const figure = charts.nth(idx);
    const readout = figure.locator("[data-readout]");
    const atRest = await readout.innerText();
    const svg = figure.locator("svg");
    await svg.scrollIntoViewIfNeeded();
    const box = await svg.boundingBox();
    await light.mouse.move(box.x + box.width * 0.4, box.y + box.height * 0.5);
    const hovered = await readout.innerText();
    expect(/^epoch \d+ · /.test(hovered), `chart ${idx + 1} shows no value under the pointer: ${hovered}`);
    const epochs = await figure.locator(".strips rect").count();
    expect(epochs < 5 || hovered !== atRest, `chart ${idx + 1} does not follow the pointer`);
    const cursor = await figure.locator(".cursor").evaluate((line) => getComputedStyle(line).display !== "none" && line.getAttribute("x1"));
    expect(cursor, `chart ${idx + 1} has no cursor`);
    await light.mouse.move(1, 1);
    expect((await readout.innerText()) === atRest, `chart ${idx + 1} keeps the value when the pointer leaves`);
    await svg.focus();
    await light.keyboard.press("Home");
    const first = await readout.innerText();
    await light.keyboard.press("ArrowRight");
    expect(epochs < 2 || (await readout.innerText()) !== first, `chart ${idx + 1} does not follow the arrow keys`);
    await svg.blur();
  }

  // Sorting.
  const table = light.locator("table[data-sortable]").first();
  if ((await table.count()) > 0) {
    const column = async (idx) => table.locator(`tbody tr > :nth-child(${idx + 1})`).evaluateAll((cells) => cells.map((cell) => Number(cell.dataset.sort)));
    const heading = table.locator("thead th").nth(1);
    await heading.locator("button").click();
    const up = await column(1);
    expect(up.every((value, idx) => idx === 0 || up[idx - 1] <= value), `the first press does not sort upwards: ${up}`);
    expect((await heading.getAttribute("aria-sort")) === "ascending", "aria-sort does not say ascending");
    await heading.locator("button").press("Enter");
    const down = await column(1);
    expect(down.every((value, idx) => idx === 0 || down[idx - 1] >= value), `the second press does not sort downwards: ${down}`);
    expect((await heading.getAttribute("aria-sort")) === "descending", "aria-sort does not say descending");
    await table.locator("thead th").first().locator("button").click();
    expect((await heading.getAttribute("aria-sort")) === "none", "aria-sort stays on the column before");
  }

  // The map: pointer, keyboard, the other projection, errors.
  const figure = light.locator("[data-map]");
  if ((await figure.count()) > 0) {
    const tip = figure.locator(".tip");
    const shown = figure.locator(".map:visible");
    expect((await shown.count()) === 1, "there must be one map at a time");
    const dots = shown.locator(".point");
    await shown.scrollIntoViewIfNeeded();
    // Where points lie close together another one may be on top: any answer will do.
    const dot = await dots.last().boundingBox();
    await light.mouse.move(dot.x + dot.width / 2, dot.y + dot.height / 2);
    expect((await tip.isVisible()) && (await tip.innerText()).length > 0, "no name under the pointer on the map");
    if ((await figure.locator("[data-sprite]").count()) > 0) {
      const offset = () => tip.locator("img").evaluate((image) => getComputedStyle(image).objectPosition);
      const here = await offset();
      await shown.focus();
      await light.keyboard.press("Home");
      expect((await offset()) !== here, "the picture on the map does not follow");
      const box = await tip.locator("img").boundingBox();
      expect(box.width > 60 && box.width < 140, `the picture on the map is ${box.width} px wide`);
    }
    await shown.focus();
    await light.keyboard.press("Home");
    const first = await tip.innerText();
    await light.keyboard.press("ArrowRight");
    await light.keyboard.press("ArrowRight");
    expect((await tip.innerText()) !== first, "the map does not follow the arrow keys");
    await light.keyboard.press("Escape");
    expect(!(await tip.isVisible()), "the name on the map does not go away");
    const press = (name) => figure.locator("[data-controls] button", { hasText: name }).click();
    if ((await figure.locator("[data-controls] button", { hasText: "PCA" }).count()) > 0) {
      const before = await shown.getAttribute("data-projection");
      await press("PCA");
      expect((await shown.getAttribute("data-projection")) === "pca" && before === "tsne", "the other map does not come");
      await press("t-SNE");
    }
    if ((await figure.locator(".point.miss").count()) > 0) {
      const fill = () => figure.locator(".map:visible .point.miss").first().evaluate((point) => getComputedStyle(point).fill);
      const others = () => figure.locator(".map:visible .point:not(.miss)").first().evaluate((point) => getComputedStyle(point).fill);
      await press("by error");
      expect((await fill()) !== (await others()), "errors do not stand out");
      await press("by class");
      expect((await figure.locator(".by-error").count()) === 0, "the colours of classes do not come back");
    }
  }

  // The run, on pages that tell of one: graph, table, throughput.
  if ((await light.locator("meta[name='simsiam-pipe-run']").count()) > 0) {
    const graph = light.locator("#run .pipeline");
    const seen = await graph.boundingBox();
    expect(seen !== null && seen.width > 100 && seen.height > 100, "the graph of the pipeline is not to be seen");
    expect(((await graph.getAttribute("aria-label")) ?? "").length > 10, "the graph has no name");
    const boxes = await graph.locator(".stage > title").allTextContents();
    const rows = await light.locator("#run tbody tr").count();
    expect(boxes.length > 0 && boxes.every((title) => / (made|ran|restored|cells)/.test(title)), `boxes of the graph do not say what became of them: ${boxes}`);
    expect(rows > 0 && boxes.length <= rows, `the graph has ${boxes.length} boxes for ${rows} stages`);
    expect((await light.locator("#run th[aria-sort]").count()) > 5, "the table of stages does not sort");
    expect((await light.locator("nav a[href='#run']").count()) === 1, "the navigation does not lead to the pipeline");
    if ((await light.locator("#training [data-chart]").count()) > 0) {
      expect((await light.locator("#chart-throughput-title").count()) === 1, "there is no throughput");
    }
  } else {
    expect((await light.locator("#run").count()) === 0, "a page without a run tells of one");
  }
  const blocks = await light.locator("pre").allTextContents();
  expect(blocks.every((text) => !text.includes("\\u{a}") && text.includes("\n")), "parameters stand in one line");

  // Copy buttons.
  const copy = light.locator("[data-copy] .copy").first();
  if ((await copy.count()) > 0) {
    await light.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await copy.scrollIntoViewIfNeeded();
    await copy.click();
    await light.waitForTimeout(50);
    const said = await copy.innerText();
    expect(["Copied", "Selected"].includes(said), `the copy button says ${said}`);
  }

  // Legend of the map.
  const legend = light.locator("[data-legend] button").first();
  if ((await legend.count()) > 0) {
    await legend.click();
    expect((await legend.getAttribute("aria-pressed")) === "true" && (await light.locator(".map.focus .point.on").count()) > 0, "the legend does not bring out its class");
    await legend.click();
    expect((await light.locator(".map.focus").count()) === 0, "the legend does not let go");
  }
  await accessibility(light, "light");
  const lightColours = await light.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);

  // Dark.
  const dark = await open({ colorScheme: "dark" });
  await shoot(dark, "dark");
  const darkColours = await dark.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);
  expect(lightColours[0] !== darkColours[0] && lightColours[1] !== darkColours[1], "dark mode looks like light mode");
  await accessibility(dark, "dark");

  // A phone.
  for (const width of [375, 320]) {
    const phone = await open({ viewport: { width, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
    if (width === 375) await shoot(phone, "phone");
    await phone.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    const found = await overflow(phone);
    expect(!found.scrolls && found.wide.length === 0, `scrolls sideways at ${width} px: ${found.wide}`);
    if (width === 375) await accessibility(phone, "phone");
    await phone.context().close();
  }

  // Without scripts.
  const plain = await open({ javaScriptEnabled: false });
  const words = await plain.locator("main").innerText();
  for (const heading of await light.locator("h2").allInnerTexts()) {
    expect(words.includes(heading), `without scripts the section ${heading} is missing`);
  }
  expect(words.length > 0.8 * (await text(await open({}))).length, "without scripts a good part of the text is missing");
  expect((await plain.locator(".chart").count()) === (await charts.count()), "without scripts charts are missing");
  expect((await charts.count()) === 0 || (await plain.locator(".strips rect title").count()) > 0, "without scripts the charts carry no values");
  expect((await plain.locator("button:visible").count()) === 0, "without scripts there are dead buttons");
  expect((await plain.locator(".map:visible").count()) === (await figure.locator(".map").count()), "without scripts a map is missing");

  // Paper.
  const paper = await open({ colorScheme: "dark" });
  await paper.emulateMedia({ media: "print", colorScheme: "dark" });
  const sheet = await paper.evaluate(() => getComputedStyle(document.body).backgroundColor);
  expect(sheet === "rgb(255, 255, 255)", `print is not on white: ${sheet}`);
  expect(!(await paper.locator("nav").isVisible()), "print shows the navigation");
  await paper.emulateMedia({ media: null });
  const pdf = await paper.pdf({ format: "A4", printBackground: true });
  if (process.env.SCREENSHOTS) writeFileSync(path.join(process.env.SCREENSHOTS, "print.pdf"), pdf);
  expect(pdf.length > 10_000, "print is empty");
  // What fits on a sheet is not cut: figures, rows, cards and tables ask to stay whole.
  const broken_up = await paper.evaluate(() => [...document.querySelectorAll("figure, table, .card, .figures")].length);
  await paper.emulateMedia({ media: "print" });
  const whole = await paper.evaluate(() => [...document.querySelectorAll("figure, table, .card, .figures")].filter((element) => getComputedStyle(element).breakInside === "avoid").length);
  expect(whole === broken_up, `${broken_up - whole} figures or tables may be cut by a page's end`);
  // Only an epoch's table is left out, since its curves are there; everything else in details is shown.
  const hidden = await paper.evaluate(() => [...document.querySelectorAll("details:not(.bulky) > :not(summary)")].filter((element) => element.getClientRects().length === 0).length);
  expect(hidden === 0, `print hides ${hidden} parts of details`);

  if (problems.length > 0) {
    failed += problems.length;
    console.error(`${file}: ${problems.length} failed`);
    for (const problem of [...new Set(problems)]) console.error(`  - ${problem}`);
  }
  await Promise.all(browser.contexts().map((context) => context.close()));
}

try {
  for (const file of pages) await check(file);
} finally {
  await browser.close();
}
if (failed > 0) process.exit(1);
console.log(`${pages.length} ${pages.length === 1 ? "report" : "reports"}: all ${passed} checks passed, the slowest opened in ${Math.round(slowest)} ms`);
