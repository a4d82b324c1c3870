// Checks the pages of `simsiam-pipe view` in a real browser while a pipeline runs:
//
//   node scripts/check_view.mjs target/release/simsiam-pipe PROJECT PIPELINE
//
// The pipeline runs from nothing in PROJECT, a folder that the check may fill. Needs what check_report.mjs needs.

import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";

import { findChromium, loadPackages } from "./browser.mjs";

const [program, project, pipeline] = process.argv.slice(2);
if (!pipeline) {
  console.error("usage: node scripts/check_view.mjs PROGRAM PROJECT PIPELINE");
  process.exit(2);
}
const problems = [];
const expect = (fine, what) => {
  if (!fine) problems.push(what);
};
const start = (args, stdio) => spawn(path.resolve(program), ["--project-root", project, ...args], { stdio });
const viewer = start(["view"], ["ignore", "pipe", "inherit"]);
const { chromium, axe } = loadPackages();
const browser = await chromium.launch({ executablePath: findChromium(), args: ["--no-sandbox", "--disable-gpu"] });
const run = start(["run", "--no-cache", "--quiet", path.resolve(pipeline)], ["ignore", "inherit", "inherit"]);
try {
  const [address] = await once(createInterface(viewer.stdout), "line");
  async function open(url, options) {
    const page = await (await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options })).newPage();
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) problems.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => problems.push(`script error: ${error.message}`));
    page.on("request", (request) => {
      if (!request.url().startsWith(address) && !request.url().startsWith("data:")) problems.push(`request: ${request.url()}`);
    });
    await page.goto(url, { waitUntil: "load" });
    return page;
  }
  async function accessible(page, what) {
    // The page may bring no script, so that the check is put in by the debugger.
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    const serious = found.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
    expect(serious.length === 0, `axe, ${what}: ${serious.map((v) => `${v.id} at ${v.nodes[0].target}`).join("; ")}`);
  }

  // The run begins after the server: its page is there as soon as it has said something.
  const index = await open(address);
  const link = index.locator("a[href^='/live/']");
  for (let tries = 0; (await link.count()) === 0 && tries < 100; tries += 1) {
    await index.waitForTimeout(200);
    await index.reload();
  }
  expect((await link.count()) === 1, "the run is not in the list");
  await accessible(index, "list");
  const url = new URL(await link.getAttribute("href"), address).href;
  const page = await open(url);
  // It follows: a stage with progress, then curves that grow.
  await page.waitForSelector("#stages progress", { timeout: 60_000 });
  await page.waitForSelector("#curves figure", { timeout: 120_000 });
  const lines = () => page.locator("#curves .line").evaluateAll((all) => all.map((line) => line.getAttribute("d")).join());
  const before = await lines();
  for (let tries = 0; (await lines()) === before && tries < 300; tries += 1) await page.waitForTimeout(200);
  expect((await lines()) !== before, "the curves do not grow");
  const svg = page.locator("#curves svg").first();
  await svg.scrollIntoViewIfNeeded();
  const box = await svg.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  expect(/ at /.test(await page.locator("#curves .readout").first().innerText()), "no value under the pointer");
  await accessible(page, "run, light");
  const dark = await open(url, { colorScheme: "dark" });
  await dark.waitForSelector("#stages tbody tr");
  await accessible(dark, "run, dark");
  const phone = await open(url, { viewport: { width: 375, height: 740 }, isMobile: true });
  await phone.waitForSelector("#stages tbody tr");
  expect(await phone.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), "scrolls sideways at 375 px");
  if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, "live.png"), fullPage: true });
  if (run.exitCode === null) await once(run, "exit");
  await page.waitForFunction(() => document.getElementById("state").textContent.startsWith("Done"), undefined, { timeout: 10_000 });
  expect(await page.locator("#report a").isVisible(), "a run that is done does not link its report");
  expect((await page.locator(".state-ran").count()) > 0, "no stage has run");
  const graph = await page.evaluate(() => document.getElementById("graph").naturalWidth);
  expect(graph > 100, "there is no graph");
  await index.reload();
  const report = index.locator("a[href^='/report/']").first();
  expect((await report.count()) === 1, "the report is not in the list");
  await report.click();
  await index.waitForSelector("#verdict");
  expect(await index.locator("#run .pipeline").isVisible(), "the report shows no graph");
  // Pages that still ask would be left without an answer.
  for (const asking of [page, dark, phone]) await asking.context().close();
  viewer.kill("SIGINT");
  const [code] = await once(viewer, "exit");
  expect(code === 130, `it ends with ${code}`);
} finally {
  await browser.close();
  viewer.kill();
  run.kill();
}
if (problems.length > 0) {
  for (const problem of [...new Set(problems)]) console.error(`  - ${problem}`);
  process.exit(1);
}
console.log("view: all checks passed");
