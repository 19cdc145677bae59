// SPDX-License-Identifier: Apache-2.0
// Tests of the page in a browser, with csp1d on its virtual HAT. Run by tools/browser; screenshots go
// to the folder in PICTURES.
"use strict";
const { spawn } = require("node:child_process");
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const { after, before, describe, it } = require("node:test");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const ROOT = path.resolve(__dirname, "../..");
const PICTURES = process.env.PICTURES;
const DESKTOP = { width: 1180, height: 1240 }, PHONE = { width: 390, height: 1120 };
const STEP_SECONDS = 24, FOLLOWS_MS = 2000, PATIENCE_MS = 15000;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "csp1d-browser-"));
const requests = [], problems = [];
let daemon, browser, page;

// Starts csp1d on the virtual HAT; resolves when it has printed the URL of its page.
function start(listen, scenario, site = "") {
  const config = path.join(folder, "csp1d.toml");
  fs.writeFileSync(config, `[http]\nlisten = "${listen}"\n[direction]\nreference = "voltage"\nexport_current = "zero"\n` +
    `[p1]\nnominal_voltage = 230\n[site]\n${site}`);
  const process_ = spawn(process.env.PYTHON,
    ["-m", "csp1d", "--config", config, "--simulate", scenario],
    { cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] });
  return new Promise((resolve, reject) => {
    let output = "";
    process_.stdout.on("data", (data) => {
      output += data;
      const match = output.match(/^P1 port: (\S+)\nPage: (\S+)\n/);
      if (!match) return;
      // The telegrams must be read, or the port stops accepting them.
      const consumer = fs.createReadStream(match[1]);
      consumer.on("data", () => {}).on("error", () => {});
      // The scenario started a moment ago.
      resolve({ process: process_, consumer, url: match[2], startMs: Date.now() });
    });
    process_.on("exit", (code) => reject(new Error(`csp1d ended (${code})`)));
  });
}

async function stop() {
  const ended = new Promise((resolve) => daemon.process.on("exit", resolve));
  daemon.process.kill("SIGTERM");
  await ended;
}

const text = (id) => page.locator(`#${id}`).textContent();
const amperes = async (phase) => parseFloat(await text(`amperes-${phase}`));

// Waits until a function, run in the page, returns true.
const shown = (condition, argument) => page.waitForFunction(condition, argument,
  { polling: 50, timeout: PATIENCE_MS });
const stateHas = (part) => shown(
  (wanted) => document.getElementById("state").textContent.includes(wanted), part);

// A day of minutes, without readings before minute 200 and in six of the last hour.
const MADE_UP_GAP = [1410, 1416];
function madeUpDay() {
  // The last minute began 15 s ago.
  const current_amperes = {}, start = Date.now() / 1000 - 15 - 1439 * 60;
  for (const phase of ["L1", "L2", "L3"]) current_amperes[phase] = { lowest: [], mean: [], highest: [] };
  for (let i = 0; i < 1440; i++) {
    const isGap = i < 200 || (i >= MADE_UP_GAP[0] && i < MADE_UP_GAP[1]);
    const time = new Date((start + 60 * i) * 1000), hour = time.getHours() + time.getMinutes() / 60;
    const means = { L1: 0.6 + 9 * Math.max(0, Math.sin(((hour - 7) / 12) * Math.PI)),
      L2: i % 160 < 12 ? 11.8 : 1.9, L3: hour < 4 ? 16 : 2.2 };
    for (const [phase, mean] of Object.entries(means))
      for (const [name, factor] of [["lowest", 0.9], ["mean", 1], ["highest", 1.15]])
        current_amperes[phase][name].push(isGap ? null : Number((factor * mean).toFixed(2)));
  }
  current_amperes.L2.highest[1400] = 26.3;
  return { start_timestamp_seconds: start, spacing_seconds: 60, current_amperes };
}

// The horizontal pieces of a curve, each as its runs of minutes: [first x, last x, minutes].
const pieces = async (phase) => (await page.locator(`#chart .wave.c-${phase}`).getAttribute("d"))
  .split("M").slice(1).map((piece) => {
    const ends = [...piece.matchAll(/H([\d.]+)/g)].map((match) => Number(match[1]));
    return [Number(piece.split(" ")[0]), ends.at(-1), ends.length];
  });

async function picture(name, viewport, colorScheme) {
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
  await page.evaluate(() => scrollTo(0, 0));
  if (PICTURES) await page.screenshot({ path: path.join(PICTURES, name) });
}

describe("the page", { concurrency: false }, () => {
  before(async () => {
    daemon = await start("127.0.0.1:0", path.join(__dirname, "scenario.toml"));
    // A separate profile, and no requests by the browser itself.
    browser = await chromium.launchPersistentContext(path.join(folder, "profile"), {
      executablePath: process.env.CHROMIUM,
      headless: true,
      viewport: DESKTOP,
      colorScheme: "light",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
    });
    page = browser.pages()[0];
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) problems.push(message.text());
    });
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(daemon.url);
  });

  after(async () => {
    await browser?.close();
    await stop();
    fs.rmSync(folder, { recursive: true });
  });

  it("shows the currents and their direction", async () => {
    await shown(() => document.getElementById("phases").textContent.includes("export"));
    assert.ok(Math.abs(await amperes("L1") - 6.2) < 0.05);
    assert.ok(Math.abs(await amperes("L2") - 5.4) < 0.05);
    const flows = await page.locator(".flow").allTextContents();
    assert.match(flows[0], /^↑ export to the grid, 6\.\d\d A/);
    assert.match(flows[1], /^↓ import from the grid, 5\.\d\d A/);
    await stateHas("Measuring, no problems");
    assert.equal(await page.title(), "csp1d: Measuring, no problems");
    assert.ok(await page.locator("#problems").isHidden());
  });

  it("announces nothing to a screen reader while nothing changes", async () => {
    const changes = await page.evaluate(async () => {
      let count = 0;
      const observer = new MutationObserver((records) => { count += records.length; });
      const live = document.querySelectorAll("[role=status], [role=alert], [aria-live]");
      for (const element of live)
        observer.observe(element, { subtree: true, childList: true, characterData: true });
      await new Promise((resolve) => setTimeout(resolve, 2500));
      return live.length === 1 ? count : -1;
    });
    assert.equal(changes, 0);
  });

  it("shows the LEDs as they are on the enclosure", async () => {
    assert.equal(await text("led-power").then((content) => content.trim()), "poweron");
    assert.match(await text("led-current"), /27[34] ms per second/);
    const litMs = await page.evaluate(() => new Promise((resolve) => {
      const led = document.getElementById("led-current");
      let since;
      new MutationObserver(() => {
        if (led.className === "lit") since = performance.now();
        else if (since) resolve(performance.now() - since);
      }).observe(led, { attributeFilter: ["class"] });
    }));
    // A busy machine turns it off late, but before the next flash.
    assert.ok(litMs > 250 && litMs < 900, `lit for ${litMs} ms`);
  });

  it("follows a step of the current", async () => {
    await shown(() => parseFloat(document.getElementById("amperes-L2").textContent) > 18.6);
    const lateMs = Date.now() - daemon.startMs - STEP_SECONDS * 1000;
    console.log(`      the page shows the step after ${lateMs} ms`);
    assert.ok(lateMs > 0 && lateMs <= FOLLOWS_MS, `${lateMs} ms`);
  });

  it("draws two cycles of every channel", async () => {
    const drawn = await page.locator("#scope .wave").evaluateAll(
      (paths) => paths.map((path) => path.getAttribute("d").split("L").length));
    assert.equal(drawn.length, 4);
    for (const points of drawn) assert.ok(points >= 150 && points <= 240, `${points} points`);
    assert.match(await text("legend"), /L2, 2\d\.\d A peak.*reference, 1\.4 V/);
    await page.locator("#legend input").nth(0).uncheck();
    assert.equal(await page.locator("#scope .c-L1").getAttribute("d"), "");
    await page.locator("#legend input").nth(0).check();
  });

  it("draws the readings since the start, and nothing before it", async () => {
    await shown(() => /Highest: \d+\.\d A on L2 at \d\d:\d\d\. Always below the main fuse \(25 A\)/.test(
      document.getElementById("history-text").textContent));
    const [[first, last, minutes], ...others] = await pieces("L2");
    assert.deepEqual(others, []);
    assert.ok(first > 900 && last > first && minutes <= 3, `${minutes} minutes from ${first} to ${last}`);
    assert.match(await text("history-text"), new RegExp(`Shaded: ${60 - minutes} minutes without a reading`));
    assert.match(await text("history-legend"), /L1, 3\.1 to 6\.2 A, mean [3-6]\.\d A/);
  });

  it("draws the last hour and day with the main fuse, and a gap as a gap", async () => {
    await page.route("**/history.json", (route) => route.fulfill({ json: madeUpDay() }));
    await page.reload();
    const textHas = (part) => shown((wanted) =>
      document.getElementById("history-text").textContent.includes(wanted), part);
    await textHas("Highest: 26.3 A on L2");
    await textHas("At or above the main fuse (25 A) in 1 minute. Shaded: 6 minutes without a reading.");
    const chart = page.locator("#chart");
    assert.equal(await chart.getAttribute("role"), "img");
    assert.equal(await chart.getAttribute("aria-describedby"), "history-text");
    const gaps = (await page.locator("#chart .gap").getAttribute("d")).split("M").slice(1);
    assert.equal(gaps.length, 6);
    const [gapStart, gapEnd] = [gaps[0].split(" ")[0], gaps[5].match(/H([\d.]+)V/)[1]].map(Number);
    for (const phase of ["L1", "L2", "L3"]) {
      const [before, after, ...others] = await pieces(phase);
      assert.deepEqual(others, []);
      assert.deepEqual([before[1], before[2]], [gapStart, 30]);
      assert.deepEqual([after[0], after[2]], [gapEnd, 24]);
    }
    // The fuse is at 25 A of the scale, and the reading of 26.3 A above it.
    const heights = Object.fromEntries(await page.locator("#chart text").evaluateAll((labels) =>
      labels.map((label) => [label.textContent, Number(label.getAttribute("y")) - 4])));
    const fuse = Number((await page.locator("#chart .fuse").getAttribute("d")).match(/ ([\d.]+)H/)[1]);
    assert.ok(Math.abs(fuse - (heights["20 A"] + heights["30 A"]) / 2) < 0.2, `${fuse}`);
    assert.ok("main fuse 25 A" in heights);
    const band = await page.locator("#chart .band.c-L2").getAttribute("d");
    assert.equal([...band.matchAll(/ ([\d.]+)H/g)].filter((match) => Number(match[1]) < fuse).length, 1);
    const over = await page.locator("#chart .over").getAttribute("d");
    assert.deepEqual([...over.matchAll(/V([\d.]+)/g)].map((match) => Number(match[1])), [fuse]);
    await page.selectOption("#fuse", "40");
    await textHas("Always below the main fuse (40 A).");
    await page.selectOption("#fuse", "25");
    await page.locator("[name=minutes]").nth(1).check();
    await textHas("Shaded: 206 minutes without a reading.");
    assert.deepEqual((await pieces("L3")).map(([, , minutes]) => minutes), [1210, 24]);
    await page.locator("#history-legend input").nth(2).uncheck();
    assert.equal(await page.locator("#chart .c-L3").count(), 0);
    await page.locator("#history-legend input").nth(2).check();
    assert.equal(await page.locator("#chart .c-L3").count(), 2);
  });

  it("has the colours of the conductors, in bars, chart and waveforms", async () => {
    const colours = (phase) => page.evaluate((name) => {
      const [bar, band, wave, scope] = [`.phase.c-${name} .fill`, `#chart .band.c-${name}`, `#chart .wave.c-${name}`,
        `#scope .c-${name}`].map((selector) => getComputedStyle(document.querySelector(selector)));
      // Export is striped.
      return [bar.backgroundImage.match(/rgb\([^)]*\)/)?.[0] ?? bar.backgroundColor, band.fill, wave.stroke, scope.stroke];
    }, phase);
    for (const [colorScheme, l2] of [["light", 0], ["dark", 255]]) {
      await page.emulateMedia({ colorScheme });
      const found = {};
      for (const phase of ["L1", "L2", "L3"]) {
        const same = new Set(await colours(phase));
        assert.equal(same.size, 1, `${phase}: ${[...same]}`);
        found[phase] = [...same][0].match(/\d+/g).map(Number);
      }
      const [red, green, blue] = found.L1;
      assert.ok(red > 1.3 * green && green > 1.3 * blue, `brown: ${found.L1}`);
      assert.deepEqual(found.L2, [l2, l2, l2]);
      assert.ok(Math.max(...found.L3) - Math.min(...found.L3) < 25, `grey: ${found.L3}`);
      assert.ok(found.L3[0] > 100 && found.L3[0] < 160);
    }
    await page.emulateMedia({ colorScheme: "light", forcedColors: "active" });
    const plain = await page.evaluate(() => getComputedStyle(document.body).color);
    for (const phase of ["L1", "L2", "L3"]) assert.deepEqual(new Set(await colours(phase)), new Set([plain]));
    const dashes = await page.locator("#chart .wave").evaluateAll((waves) =>
      waves.map((wave) => getComputedStyle(wave).strokeDasharray));
    assert.equal(new Set(dashes).size, 3);
    await page.emulateMedia({ forcedColors: "none" });
  });

  it("has the currents first on a phone, and the rest collapsed", async () => {
    await page.setViewportSize(PHONE);
    await page.reload();
    await stateHas("Measuring");
    assert.equal(await page.locator("details[open]").count(), 0);
    const titles = await page.locator("h2:visible").allTextContents();
    assert.deepEqual(titles, ["Currents", "LEDs on the enclosure", "Last hour and day", "Last two mains cycles",
      "Status", "Last telegram"]);
    const { y, height } = await page.locator("main section").first().boundingBox();
    assert.ok(y + height < PHONE.height / 2, `${y} + ${height}`);
    // What is collapsed is not fetched.
    requests.length = 0;
    await page.waitForTimeout(2500);
    assert.deepEqual(new Set(requests.map((url) => new URL(url).pathname)), new Set(["/status.json"]));
    await page.locator("#history summary").click();
    await shown(() => document.querySelectorAll("#chart .wave").length === 3);
    const labels = await page.locator("#chart text").evaluateAll((texts) => texts.map((label) => {
      const { left, right, bottom } = label.getBoundingClientRect();
      return { left, right, bottom };
    }));
    const lowest = Math.max(...labels.map(({ bottom }) => bottom));
    const times = labels.filter(({ bottom }) => bottom > lowest - 4).sort((a, b) => a.left - b.left);
    assert.ok(times.length >= 2);
    times.slice(1).forEach(({ left }, i) => assert.ok(left > times[i].right, "labels overlap"));
    await page.locator("#waves summary").click();
    await shown(() => document.querySelector("#scope .c-L1").getAttribute("d"));
    // Turned, and turned back.
    await page.setViewportSize({ width: PHONE.height, height: PHONE.width });
    await page.setViewportSize(PHONE);
    await page.waitForTimeout(200);
    assert.deepEqual(await page.locator("details[open]").evaluateAll((all) => all.map(({ id }) => id)),
      ["history", "waves"]);
    await page.setViewportSize(DESKTOP);
    await page.reload();
    await stateHas("Measuring");
    assert.equal(await page.locator("details:not([open])").count(), 0);
  });

  it("says what to do without JavaScript", async () => {
    const other = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
    try {
      const plain = await (await other.newContext({ javaScriptEnabled: false })).newPage();
      await plain.goto(daemon.url);
      assert.match(await plain.locator("body").innerText(),
        /^csp1d\s+This page needs JavaScript: allow it in the browser\. Without it, status\.json has .* the problems;/);
      assert.ok(await plain.locator("body noscript").isVisible());
      assert.ok(await plain.locator("main").isHidden());
      assert.ok(await plain.locator("#pause").isHidden());
    } finally {
      await other.close();
    }
  });

  it("explains each object of the telegram", async () => {
    const objects = await page.locator("#telegram dt").allTextContents();
    const meanings = await page.locator("#telegram dd").allTextContents();
    assert.equal(objects.length, meanings.length);
    assert.deepEqual(objects.filter((_, i) => !meanings[i]), []);
    const meaningOf = (start) => meanings[objects.findIndex((line) => line.startsWith(start))];
    assert.equal(meaningOf("1-0:51.7.0"), "current, L2");
    assert.equal(meaningOf("1-0:22.7.0"), "power exported, L1");
  });

  it("looks right on a desktop and on a phone, light and dark", async () => {
    // Without motion, so that the blinking LED is lit in every picture.
    const motion = () => page.locator(".fill").first().evaluate((fill) => getComputedStyle(fill).transitionDuration);
    assert.equal(await motion(), "0.25s");
    await page.emulateMedia({ reducedMotion: "reduce" });
    assert.equal(await motion(), "0s");
    await page.setViewportSize(DESKTOP);
    await page.reload();
    await page.waitForSelector("#led-current.lit");
    await page.locator("[name=minutes]").nth(1).check();
    await shown(() => document.querySelectorAll("#chart .wave").length === 3);
    await picture("page-desktop-light.png", DESKTOP, "light");
    await page.setViewportSize(PHONE);
    await page.reload();
    await stateHas("Measuring");
    await page.locator("#history summary").click();
    await page.locator("[name=minutes]").nth(1).check();
    await shown(() => document.querySelectorAll("#chart .wave").length === 3);
    await picture("page-phone-dark.png", PHONE, "dark");
    const overflow = await page.evaluate(() =>
      document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(overflow, 0);
  });

  for (const [viewport, scheme] of [[DESKTOP, "light"], [DESKTOP, "dark"], [PHONE, "light"],
    [PHONE, "dark"]]) {
    it(`has no accessibility problem (${viewport.width} wide, ${scheme})`, async () => {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme: scheme });
      await page.locator("details").evaluateAll((all) => all.forEach((details) => { details.open = true; }));
      // A <script> element is forbidden by the page's policy.
      await page.evaluate(axe.source);
      const { violations, passes } = await page.evaluate(() => window.axe.run());
      const found = violations.map(({ id, impact, nodes }) =>
        `${impact} ${id}: ${nodes.map((node) => node.html).join(" ")}`);
      assert.deepEqual(found, []);
      assert.ok(passes.length > 10);
    });
  }

  it("can be used from the keyboard", async () => {
    await page.unroute("**/history.json");
    await page.setViewportSize(DESKTOP);
    await page.reload();
    await stateHas("Measuring");
    await shown(() => !document.querySelector("#legend label:last-child").hidden);
    await shown(() => !document.querySelector("#history-legend label:last-child").hidden);
    for (const wanted of ["pause", "fuse", "summary", "summary", "radio", ...Array(3).fill("checkbox"), "summary",
      ...Array(4).fill("checkbox"), "normalise", "summary", "a", "a", "a", "a", "summary"]) {
      await page.keyboard.press("Tab");
      const reached = await page.evaluate(() => {
        const { id, type, localName } = document.activeElement;
        return id || type || localName;
      });
      assert.equal(reached, wanted);
    }
    await page.locator("#pause").focus();
    await page.keyboard.press("Space");
    await stateHas("Paused");
    const count = requests.length;
    await page.waitForTimeout(1200);
    assert.equal(requests.length, count);
    await page.keyboard.press("Space");
    await shown(() => !document.getElementById("state").textContent.includes("Paused"));
  });

  it("stores the main fuse, and works without storage", async () => {
    assert.ok(await page.locator("#fuse-told").isHidden());
    assert.deepEqual(await page.locator("#fuse option").allTextContents(),
      ["16", "20", "25", "32", "35", "40", "50", "63", "80"]);
    await page.selectOption("#fuse", "40");
    await page.reload();
    assert.equal(await page.locator("#fuse").inputValue(), "40");
    await page.addInitScript(() => Object.defineProperty(window, "localStorage", {
      get() { throw new DOMException("denied", "SecurityError"); } }));
    await page.reload();
    assert.equal(await page.locator("#fuse").inputValue(), "25");
    await page.selectOption("#fuse", "16");
    await stateHas("Measuring");
  });

  it("shows each problem in the journal's words while it lasts, and not after its end", async () => {
    const faults = spawn(process.env.PYTHON, [path.join(__dirname, "problems.py")],
      { cwd: ROOT, env: { ...process.env, PYTHONPATH: ROOT }, stdio: ["pipe", "pipe", "ignore"] });
    const lines = readline.createInterface({ input: faults.stdout })[Symbol.asyncIterator]();
    const answer = async () => JSON.parse((await lines.next()).value);
    const ask = (command) => faults.stdin.write(`${command}\n`) && answer();
    const other = await browser.newPage();
    const titleIs = (wanted) => other.waitForFunction((title) => document.title === title, `House <7>: ${wanted}`,
      { polling: 50, timeout: PATIENCE_MS });
    const { url, chapters } = await answer();
    await other.goto(url);
    await titleIs("Measuring, no problems");
    assert.ok(Object.keys(chapters).length >= 20);
    for (const [event, chapter] of Object.entries(chapters)) {
      const [reason, ...others] = await ask(`begin ${event}`);
      assert.deepEqual(others, [], event);
      const headline = reason[0].toUpperCase() + reason.slice(1);
      await titleIs(headline);
      assert.equal(await other.locator("#state.bad").textContent(), headline);
      assert.deepEqual(await other.locator("#problem-list dt").allTextContents(), [reason]);
      assert.match(await other.locator("#problem-list dd").textContent(),
        new RegExp(`^Since .*\\d:\\d.*\\. In the handbook: troubleshoot.md#${chapter}$`));
      assert.ok(await other.locator("#problems").isVisible());
      if (event === "adc-lost") {
        await other.evaluate(axe.source);
        const { violations } = await other.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map(({ id }) => id), []);
      }
      await ask("end");
      await titleIs("Measuring, no problems");
      assert.equal(await other.locator("#state.good").textContent(), "Measuring, no problems");
      assert.ok(await other.locator("#problems").isHidden());
      assert.equal(await other.locator("#problem-list").textContent(), "");
    }
    await other.close();
    faults.stdin.end();
  });

  it("causes no warnings, and no requests except to csp1d", () => {
    assert.deepEqual(problems, []);
    const { origin } = new URL(daemon.url);
    assert.ok(requests.length > 10);
    assert.deepEqual(requests.filter((url) => new URL(url).origin !== origin), []);
  });

  it("reports that csp1d does not answer, and recovers", async () => {
    await stop();
    await stateHas("No answer from csp1d since");
    assert.equal(await text("amperes-L1"), "— A");
    assert.match(await text("led-current"), /unknown/);
    assert.equal(await text("history-text"), "No reading.");
    assert.equal(await page.locator("#chart .wave").count(), 0);
    const labels = await page.locator("#chart text").allTextContents();
    assert.deepEqual(labels.filter((label) => label.includes(":")), [], "times of no history");
    const stalling = path.join(folder, "stalling.toml");
    fs.writeFileSync(stalling, "[[step]]\namperes = { L1 = 16, L2 = 10 }\n" +
      "[[step]]\nat_seconds = 8\nstall_seconds = 4\n" +
      "[[step]]\nat_seconds = 24\nshift_amperes = { L2 = -168 }\n");
    daemon = await start(new URL(daemon.url).host, stalling,
      'name = "House <7>"\nmain_fuse_amperes = 20\n');
    await stateHas("Measuring");
    await shown(() => document.getElementById("amperes-L1").textContent === "16.00 A");
    // The device knows its site and its main fuse.
    assert.ok(await page.locator("#fuse-choice").isHidden());
    assert.equal(await text("fuse-told"), "Main fuse: 20 A");
    assert.equal(await page.locator(".track").first().getAttribute("aria-valuemax"), "20");
    assert.equal(await page.title(), "House <7>: Measuring, no problems");
    assert.match(await page.locator("h1").textContent(), /^House <7> csp1d \d/);
    // The browser reports failed requests; the page adds nothing.
    assert.deepEqual(problems.filter((problem) => !problem.includes("net::ERR_")), []);
  });

  it("reports that the ADC delivers nothing, and shows no current", async () => {
    await stateHas("ADC stalled: present, but not delivering data; check adc.trigger");
    assert.match(await page.title(), /^House <7>: ADC stalled/);
    assert.match(await text("problem-list"), /^ADC stalled.*troubleshoot.md#no-current$/);
    assert.equal(await text("amperes-L1"), "— A");
    assert.match(await text("scale"), /No current reading/);
    assert.equal(await page.locator("#led-current.lit").count(), 0);
    // Soon after the end of the stall.
    await stateHas("Measuring, no problems");
    assert.equal(await page.title(), "House <7>: Measuring, no problems");
    await shown(() => document.getElementById("amperes-L1").textContent === "16.00 A");
  });

  it("names the failed input, and shows the rest of its waveform", async () => {
    await stateHas("L2: input saturated: current unknown, no telegrams sent; check the input wiring");
    await shown(() => document.getElementById("amperes-L1").textContent === "— A");
    assert.match(await text("rows"), /L2input failed: current unknown/);
    await shown(() => document.getElementById("legend").textContent.includes("L2, failed"));
    const heights = await page.locator("#scope .c-L2").evaluate((wave) =>
      wave.getAttribute("d").slice(1).split("L").map((point) => Number(point.split(" ")[1])));
    // The crests, above a line at the end of the range. Smaller is higher.
    const lowest = Math.max(...heights), highest = Math.min(...heights);
    assert.ok(lowest - highest > 50, `${highest} to ${lowest}`);
    assert.ok(heights.filter((height) => lowest - height < 4).length > heights.length / 2);
  });
});
