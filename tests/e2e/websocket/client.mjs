// A WebSocket client: `ws`; `http2`, which is `ws` over an HTTP/2 stream (RFC 8441); or `native`, the browser API, which
// sends the token as a subprotocol.
//
//   node client.mjs ws|http2|native URL TOKEN STEP…
//
// Runs the steps in order, and writes the result of each as one line of JSON.

import assert from "node:assert";
import { once } from "node:events";
import { connect } from "node:http2";

import WS from "ws";

const [kind, url, token, ...steps] = process.argv.slice(2);
const report = (result) => console.log(JSON.stringify(result));

const headers = { authorization: `Bearer ${token}`, "x-user-id": "mallory", x_user_id: "mallory" };

// Extended CONNECT, which `ws` does not implement.
async function overHttp2() {
  const { origin, pathname } = new URL(url.replace(/^ws/, "http"));
  const session = connect(origin);
  const [settings] = await once(session, "remoteSettings");
  assert(settings.enableConnectProtocol);
  const connectHeaders = {
    ":method": "CONNECT", ":protocol": "websocket", ":path": pathname, "sec-websocket-version": "13",
  };
  const stream = session.request({ ...connectHeaders, ...headers }, { endStream: false });
  const [response] = await once(stream, "response");
  if (response[":status"] !== 200) {
    report({ open: `Unexpected server response: ${response[":status"]}` });
    process.exit(0);
  }
  const socket = new WS(null, undefined, { closeTimeout: 30_000 });
  socket._isServer = false;
  setImmediate(() => socket.setSocket(stream, Buffer.alloc(0), {}));
  return socket;
}

const KINDS = {
  ws: () => new WS(url, { headers }),
  http2: overHttp2,
  native: () => new WebSocket(url, ["bearer", token]),
};

const socket = await KINDS[kind]();
socket.binaryType = "arraybuffer";

const closed = new Promise((done) => {
  socket.addEventListener("close", ({ code, reason }) => done({ closed: code, reason }));
});
const opened = new Promise((done) => {
  socket.addEventListener("open", () => done(true));
  socket.addEventListener("error", ({ message }) => done(message ?? "failed"));
});

async function exchange(message) {
  const reply = new Promise((done) => socket.addEventListener("message", ({ data }) => done(data), { once: true }));
  socket.send(message);
  return reply;
}

const STEPS = {
  headers: async () => report({ headers: JSON.parse(await exchange("headers")) }),
  echo: async () => {
    const large = new Uint8Array(1024 * 1024).map((_, at) => at % 251);
    for (const text of ["", "žluťoučký 😀", "x".repeat(1024 * 1024)]) assert.equal(await exchange(text), text);
    assert.deepEqual(new Uint8Array(await exchange(large)), large);
    report({ echoed: true });
  },
  ping: async () => {
    const pong = once(socket, "pong");
    socket.ping("are you there");
    report({ pong: (await pong)[0].toString() });
  },
  "request close": async () => {
    socket.send("close");
    report(await closed);
  },
  close: async () => {
    socket.close(4002, "bye");
    report(await closed);
  },
  // Longer than SHORT_LIFETIME of the tests.
  pause: () => new Promise((done) => setTimeout(done, 13_000)),
  wait: async () => report(await closed),
};

const open = await opened;
report({ open, protocol: socket.protocol });
if (open === true) for (const step of steps) await STEPS[step]();
process.exit(0);
