// SPDX-License-Identifier: Apache-2.0
// Prints what a reader gets from a serial port, a line of JSON per telegram: print.js READER PORT.
"use strict";
const [reader, port] = process.argv.slice(2);

const print = (amperes, kilowatts) => console.log(JSON.stringify({ amperes, kilowatts }));
const PHASES = ["L1", "L2", "L3"];

if (reader === "p1-reader") {
  const P1Reader = require("p1-reader");
  new P1Reader({ port, baudRate: 115200, parity: "none", dataBits: 8, stopBits: 1 })
    .on("reading", ({ electricity: { instantaneous: { current, power } } }) => print(
      PHASES.map((phase) => current[phase].reading),
      PHASES.map((phase) => power.positive[phase].reading - power.negative[phase].reading)))
    .on("error", (error) => console.error(error));
} else {
  const obis = require("smartmeter-obis");
  const value = (result, code) => Object.entries(result)
    .find(([id]) => id.startsWith(`1-0:${code}`))?.[1].getValue(0).value ?? null;
  obis.init({
    protocol: "D0Protocol", transport: "SerialResponseTransport", transportSerialPort: port,
    transportSerialBaudrate: 115200, requestInterval: 0, logger: () => {},
  }, (error, result) => {
    if (error) console.error(error.message);
    else print(
      [3, 5, 7].map((tens) => value(result, `${tens}1.7.0`)),
      [2, 4, 6].map((tens) => value(result, `${tens}1.7.0`) - value(result, `${tens}2.7.0`)));
  }).process();
}
