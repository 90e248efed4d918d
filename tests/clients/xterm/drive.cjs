// Drives a terminal of the Sandbox API as a page with xterm.js does: @xterm/headless with addon-attach, as published.
// Usage: node drive.cjs FOLDER_OF_NODE_MODULES WS_URL ORIGIN; prints what it saw as JSON.
"use strict";
const { createRequire } = require("node:module");
const path = require("node:path");

const [folder, url, sandbox] = process.argv.slice(2);
const from = createRequire(path.join(folder, "package.json"));
const { Terminal } = from("@xterm/headless");
const { AttachAddon } = from("@xterm/addon-attach");
const WebSocket = from("ws");
globalThis.WebSocket = WebSocket; // the addon compares with its constants

const seen = { kinds: [] };

async function until(what, condition) {
  const end = Date.now() + 15000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited for ${what}; the screen says:\n${screen.text()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const screen = {
  lines() {
    const buffer = this.terminal.buffer.active;
    const found = [];
    for (let at = 0; at < buffer.length; at++) found.push(buffer.getLine(at).translateToString(true));
    return found;
  },
  text() {
    return this.terminal ? this.lines().join("\n").trimEnd() : "";
  },
};

async function open(query, cols, rows) {
  const terminal = new Terminal({ cols, rows, allowProposedApi: true });
  screen.terminal = terminal;
  const socket = new WebSocket(`${url}/sandboxes/${sandbox}/terminal?token=${encodeURIComponent(process.env.TOKEN)}${query}`);
  const send = socket.send.bind(socket);
  socket.send = (data, ...more) => {
    seen.kinds.push(typeof data === "string" ? "text" : "binary");
    return send(data, ...more);
  };
  const ended = new Promise((resolve) => socket.addEventListener("close", (event) => resolve(event)));
  terminal.loadAddon(new AttachAddon(socket)); // before it is open: what was there may come with the upgrade's answer
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", reject);
  });
  return { terminal, socket, ended };
}

function colour_of(word) {
  const buffer = screen.terminal.buffer.active;
  for (let at = 0; at < buffer.length; at++) {
    const line = buffer.getLine(at);
    if (line.translateToString(true) === word) return line.getCell(0).getFgColor();
  }
  return null;
}

async function main() {
  let { terminal, socket } = await open("&cols=90&rows=20", 90, 20);
  await until("a prompt", () => screen.text().endsWith("$"));
  terminal.input("kept=here; printf '\\033[31m%s\\033[0m\\n' re''d\r"); // as keys that were pressed
  await until("a coloured word", () => colour_of("red") !== null);
  seen.colour = colour_of("red");
  terminal.input("stty size\r");
  await until("its size", () => screen.lines().includes("20 90"));
  terminal.resize(70, 15);
  socket.send(JSON.stringify({ type: "resize", cols: terminal.cols, rows: terminal.rows }));
  terminal.input("until [ \"$(stty size)\" = '15 70' ]; do sleep 0.1; done; echo resi''zed\r");
  await until("the new size", () => screen.lines().includes("resized"));
  terminal.input("cat\r");
  terminal.input("grüße\x04");
  await until("what was typed", () => screen.text().includes("grüße"));
  terminal.input("\x03"); // Ctrl-C
  socket.terminate(); // the network goes away

  let ended;
  ({ terminal, socket, ended } = await open("", 70, 15));
  await until("what was there", () => screen.lines().includes("resized"));
  seen.colour_again = colour_of("red");
  terminal.input("echo still-$kept\r");
  await until("the same shell", () => screen.lines().includes("still-here"));
  terminal.input("exit 5\r");
  const event = await ended;
  seen.closed = [event.code, event.reason];
  seen.kinds = [...new Set(seen.kinds)];
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
