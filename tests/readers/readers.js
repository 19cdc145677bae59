// SPDX-License-Identifier: Apache-2.0
// Readers from npm with csp1d's telegrams: all profiles, currents and signs, and streams in which a cut
// telegram is followed by whole ones. Run by tools/readers. (@athombv/dsmr-parser is not on npm.)
"use strict";
const { spawn, spawnSync } = require("node:child_process");
const assert = require("node:assert/strict");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const dsmrParser = require("dsmr-parser");

const ROOT = path.resolve(__dirname, "../..");
const OPTIONS = { cwd: ROOT, env: { ...process.env, PYTHONPATH: ROOT } };
const PATIENCE_MS = 20000, PAUSE_MS = 100;
const PROFILES = ["csp1", "smr5", "emucs"], VOLTS = 230;
const TELEGRAMS = JSON.parse(
  spawnSync(process.env.PYTHON, [path.join(__dirname, "telegrams.py")], OPTIONS).stdout);
const STREAMS = ["p1-reader", "smartmeter-obis"];

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const processes = [];

// A reader with a serial port of its own. Its readings are collected; `write` sends it bytes.
class Reader {
  constructor(name) {
    this.name = name;
    this.readings = [];
    this.errors = "";
    this.exited = false;
  }

  async open() {
    this.port = spawn(process.env.PYTHON, [path.join(__dirname, "feed.py")],
      { stdio: ["pipe", "pipe", "inherit"] });
    const device = await new Promise((resolve) => this.port.stdout.once("data", resolve));
    this.process = spawn(process.execPath,
      [path.join(__dirname, "print.js"), this.name, String(device).trim()]);
    processes.push(this.port, this.process);
    let rest = "";
    this.process.stdout.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      this.readings.push(...lines.filter((line) => line.startsWith("{")).map(JSON.parse));
    });
    this.process.stderr.on("data", (data) => { this.errors += data; });
    this.process.on("exit", () => { this.exited = true; });
    return this;
  }

  write(data) {
    this.port.stdin.write(data);
  }

  // Sends a telegram until the first reading: the reader needs time to open its port.
  async begin(telegram) {
    const end = Date.now() + PATIENCE_MS;
    while (!this.readings.length) {
      assert(Date.now() < end, this.errors);
      this.write(telegram);
      await sleep(PAUSE_MS);
    }
    await sleep(PAUSE_MS);
  }

  // The readings of whole telegrams that follow one another, as those of csp1d do.
  async read(...telegrams) {
    this.readings = [];
    for (const telegram of telegrams) {
      const before = this.readings.length, end = Date.now() + 1000;
      this.write(telegram);
      while (this.readings.length === before && Date.now() < end) await sleep(5);
      await sleep(PAUSE_MS);
    }
    return this.readings;
  }
}

// The reading of a telegram with these currents.
function wanted({ profile, amperes, export: exported }, reader) {
  const shown = amperes.map((value) => (exported === "zero" ? Math.max(value, 0) : Math.abs(value)));
  const hundredths = shown.map((value) => Math.floor(value * 100 + 0.5) / 100);
  const whole = shown.map((value) => Math.floor(value + 0.5));
  const exact = reader === "p1-reader" ? hundredths.map(Math.trunc) : hundredths;
  const hasPower = profile !== "csp1" || exported;
  const watts = (value) => Math.sign(value) * Math.min(Math.round(Math.abs(value) * VOLTS), 99999);
  return {
    amperes: profile === "emucs" ? exact : whole,
    kilowatts: amperes.map((value) => (hasPower ? watts(value) / 1000 : 0)),
  };
}

function same(reading, expected, message) {
  assert.deepEqual(reading?.amperes, expected.amperes, message);
  reading.kilowatts.forEach((value, i) =>
    assert(Math.abs(value - expected.kilowatts[i]) < 1e-9, message));
}

const find = (profile) => TELEGRAMS.find((telegram) => telegram.profile === profile &&
  telegram.export === "" && telegram.amperes[0] === 24.126);

after(() => processes.forEach((process_) => process_.kill()));

describe("dsmr-parser", () => {
  for (const profile of PROFILES) {
    it(`reads all currents and signs of ${profile}`, () => {
      const mine = TELEGRAMS.filter((telegram) => telegram.profile === profile);
      assert(mine.length > 15);
      for (const telegram of mine) {
        const { objects } = dsmrParser.parse(telegram.text);
        const of = (name) => ["L1", "L2", "L3"].map((phase) => objects[name.replace("*", phase)]);
        const minus = of("instantaneous active power * received");
        same({
          amperes: of("instantaneous current *"),
          kilowatts: of("instantaneous active power * delivered").map((x, i) => x - minus[i]),
        }, wanted(telegram), JSON.stringify(telegram));
      }
    });

    it(`rejects ${profile} when it is cut`, () => {
      const { text } = find(profile);
      for (let cut = 1; cut < text.length; cut++) {
        assert.throws(() => dsmrParser.parse(text.slice(0, cut)), /INVALID_TELEGRAM/);
        assert.throws(() => dsmrParser.parse(text.slice(0, cut) + text),
          /INVALID_TELEGRAM|CHECKSUM_MISMATCH/);
      }
    });
  }
});

for (const name of STREAMS) {
  describe(name, () => {
    for (const profile of PROFILES) {
      it(`reads all currents and signs of ${profile}`, async () => {
        const reader = await new Reader(name).open();
        const mine = TELEGRAMS.filter((telegram) => telegram.profile === profile);
        await reader.begin(mine[0].text);
        const readings = await reader.read(...mine.map(({ text }) => text));
        assert.equal(readings.length, mine.length, reader.errors);
        mine.forEach((telegram, i) =>
          same(readings[i], wanted(telegram, name), JSON.stringify(telegram)));
      });

      it(`reads no wrong current of ${profile} after one that was cut, and loses at most one`,
        async () => {
          const reader = await new Reader(name).open();
          const telegram = find(profile), { text } = telegram;
          await reader.begin(text);
          // In the header, in each kind of object, within a value of a current and in the checksum.
          const current = text.indexOf("31.7.0(") + 9;
          for (const cut of [2, 20, 100, 200, current, 500, text.length - 9, text.length - 4]) {
            reader.write(text.slice(0, cut));
            const readings = await reader.read(text, text, text);
            assert(readings.length >= 2, `cut at ${cut}: ${reader.errors}`);
            readings.forEach((reading) => same(reading, wanted(telegram, name), `cut at ${cut}`));
          }
        });
    }
  });
}

describe("p1-reader", () => {
  it("ends when a telegram is cut within its time and the next one follows at once", async () => {
    const reader = await new Reader("p1-reader").open(), { text } = find("smr5");
    await reader.begin(text);
    reader.write(text.slice(0, text.indexOf("0-0:1.0.0(") + 16) + text);
    const end = Date.now() + PATIENCE_MS;
    while (!reader.exited && Date.now() < end) await sleep(20);
    assert(reader.exited);
    assert.match(reader.errors, /RangeError: Invalid time value/);
  });
});
