// A WebSocket client: `ws`; `http2`, which is `ws` over a stream of HTTP/2 (RFC 8441); or `native`, which is as browsers
// have it and sends its token as a subprotocol.
//
//   node client.mjs ws|http2|native URL TOKEN STEP…
//
// Each step is done after the one before. What has happened is written as one line of JSON for each.

import assert from "node:assert";
import { once } from "node:events";
import { connect } from "node:http2";

import WS from "ws";

const [kind, url, token, ...steps] = process.argv.slice(2);
const tell = (what) => console.log(JSON.stringify(what));

const headers = { authorization: `Bearer ${token}`, "x-user-id": "mallory", x_user_id: "mallory" };

// What the library does not do itself.
async function overHttp2() {
  const { origin, pathname } = new URL(url.replace(/^ws/, "http"));
  const session = connect(origin);
  const [settings] = await once(session, "remoteSettings");
  assert(settings.enableConnectProtocol);
  const asked = { ":method": "CONNECT", ":protocol": "websocket", ":path": pathname, "sec-websocket-version": "13" };
  const stream = session.request({ ...asked, ...headers }, { endStream: false });
  const [answer] = await once(stream, "response");
  if (answer[":status"] !== 200) {
    tell({ open: `Unexpected server response: ${answer[":status"]}` });
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

async function answered(message) {
  const answer = new Promise((done) => socket.addEventListener("message", ({ data }) => done(data), { once: true }));
  socket.send(message);
  return answer;
}

const STEPS = {
  who: async () => tell({ headers: JSON.parse(await answered("who")) }),
  talk: async () => {
    const large = new Uint8Array(1024 * 1024).map((_, at) => at % 251);
    for (const text of ["", "žluťoučký 😀", "x".repeat(1024 * 1024)]) assert.equal(await answered(text), text);
    assert.deepEqual(new Uint8Array(await answered(large)), large);
    tell({ talked: true });
  },
  ping: async () => {
    const pong = once(socket, "pong");
    socket.ping("are you there");
    tell({ pong: (await pong)[0].toString() });
  },
  "ask to close": async () => {
    socket.send("close");
    tell(await closed);
  },
  close: async () => {
    socket.close(4002, "bye");
    tell(await closed);
  },
  // Longer than the token of the test lasts.
  pause: () => new Promise((done) => setTimeout(done, 13_000)),
  wait: async () => tell(await closed),
};

const open = await opened;
tell({ open, protocol: socket.protocol });
if (open === true) for (const step of steps) await STEPS[step]();
process.exit(0);
