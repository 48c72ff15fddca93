#!/usr/bin/env node
// Starts the binary of this platform's package, with the same arguments, streams and exit code.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `@claimgate/${process.platform}-${process.arch}`;
let binary;
try {
  binary = require.resolve(`${name}/bin/claimgate`);
} catch {
  console.error(
    `claimgate: the package ${name} is not installed: either there is none for ${process.platform} on ${process.arch} ` +
      "(supported: linux-x64 and linux-arm64), or npm was told to leave out optional dependencies.",
  );
  process.exit(1);
}

const child = spawn(binary, process.argv.slice(2), { stdio: "inherit" });

// A terminal signals the whole process group, and a supervisor only this process: pass on what arrives here, and let the
// binary decide when to end.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => child.kill(signal));
}

child.on("error", (error) => {
  console.error(`claimgate: failed to start ${binary}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  process.exit(signal === null ? code : 128 + constants.signals[signal]);
});
