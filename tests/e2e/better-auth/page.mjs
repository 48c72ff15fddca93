// The script of a page, bundled for browsers: the client of Better Auth, and what a page does with a token. Every
// answer that it gives can cross to Python as it is.

import { createAuthClient } from "better-auth/client";
import { jwtClient } from "better-auth/client/plugins";

function client(gate) {
  return createAuthClient({ baseURL: gate, plugins: [jwtClient()] });
}

function whole({ data, error }) {
  if (error) throw new Error(JSON.stringify(error));
  return data;
}

// Makes an account, signs in with it, and gives the user and two tokens: that of the client's plugin, and that which
// comes with the session, in a header that the page may read.
async function signIn(gate) {
  const account = { email: "ada@example.com", password: "correct horse battery staple" };
  const auth = client(gate);
  whole(await auth.signUp.email({ ...account, name: "Ada" }));
  whole(await auth.signOut());
  const { user } = whole(await auth.signIn.email(account));
  const { token } = whole(await auth.token());
  let beside = null;
  const onSuccess = ({ response }) => (beside = response.headers.get("set-auth-jwt"));
  const session = whole(await auth.getSession({ fetchOptions: { onSuccess } }));
  return { user: session.user.id, same: session.user.id === user.id, token, beside };
}

// What a page learns of an answer; or that it learns nothing.
async function ask(url, token, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.json) headers["Content-Type"] = "application/json";
  const body = options.json && JSON.stringify(options.json);
  try {
    const answer = await fetch(url, { ...options, headers, body });
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: JSON.parse((await answer.text()) || "null"),
    };
  } catch (error) {
    return { failed: error.name };
  }
}

// The answer to one message, or the code of the close.
function talk(url, token, message) {
  return new Promise((told) => {
    const socket = new WebSocket(url, ["bearer", token]);
    socket.onopen = () => socket.send(message);
    socket.onmessage = ({ data }) => {
      told({ protocol: socket.protocol, data });
      socket.close();
    };
    socket.onclose = ({ code }) => told({ closed: code });
  });
}

// The first event, or that there is none.
function listen(url) {
  return new Promise((told) => {
    const source = new EventSource(url);
    const end = (what) => {
      source.close();
      told(what);
    };
    source.onmessage = ({ data }) => end({ data });
    source.onerror = () => end({ failed: true });
  });
}

Object.assign(globalThis, { signIn, ask, talk, listen });
