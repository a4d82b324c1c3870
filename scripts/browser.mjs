// The browser and the packages that the checks of pages need; see check_report.mjs.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const PACKAGES = { "playwright-core": "1.56.1", "axe-core": "4.11.0" };
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/// The browser's path.
export function findChromium() {
  const named = process.env.CHROMIUM ? [process.env.CHROMIUM] : [];
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const candidates = [...named, ...names.flatMap((name) => folders.map((folder) => path.join(folder, name)))];
  const found = candidates.find((candidate) => existsSync(candidate));
  if (!found) throw new Error("no Chromium found: install it or set CHROMIUM to its path");
  return found;
}

/// playwright-core and axe-core, installed where they are not there yet.
export function loadPackages() {
  const folder = process.env.REPORT_CHECK_DIR ?? path.join(root, "target", "report-check");
  mkdirSync(folder, { recursive: true });
  const manifest = JSON.stringify({ private: true, dependencies: PACKAGES });
  const file = path.join(folder, "package.json");
  const installed = existsSync(file) && readFileSync(file, "utf8") === manifest
    && Object.keys(PACKAGES).every((name) => existsSync(path.join(folder, "node_modules", name)));
  if (!installed) {
    writeFileSync(file, manifest);
    execFileSync("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], { cwd: folder, stdio: "inherit" });
  }
  const require = createRequire(file);
  return { chromium: require("playwright-core").chromium, axe: readFileSync(require.resolve("axe-core/axe.min.js"), "utf8") };
}
