// The script of a page, bundled for browsers: the Better Auth client, and requests with a token. All return values are
// JSON, for Python.

import { createAuthClient } from "better-auth/client";
import { jwtClient } from "better-auth/client/plugins";

function client(gate) {
  return createAuthClient({ baseURL: gate, plugins: [jwtClient()] });
}

function unwrap({ data, error }) {
  if (error) throw new Error(JSON.stringify(error));
  return data;
}

// Creates an account, signs in, and returns the user and two tokens: one from the client plugin, and one from a response
// header of the session.
async function signIn(gate) {
  const account = { email: "ada@example.com", password: "correct horse battery staple" };
  const auth = client(gate);
  unwrap(await auth.signUp.email({ ...account, name: "Ada" }));
  unwrap(await auth.signOut());
  const { user } = unwrap(await auth.signIn.email(account));
  const { token } = unwrap(await auth.token());
  let headerToken = null;
  const onSuccess = ({ response }) => (headerToken = response.headers.get("set-auth-jwt"));
  const session = unwrap(await auth.getSession({ fetchOptions: { onSuccess } }));
  return { user: session.user.id, same: session.user.id === user.id, token, header_token: headerToken };
}

// Ends the session. Better Auth removes its cookies.
async function signOut(gate) {
  return unwrap(await client(gate).signOut());
}

// Sends a request, and returns the response as the page sees it, or the name of the error.
async function send(url, token, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.json) headers["Content-Type"] = "application/json";
  const body = options.json && JSON.stringify(options.json);
  try {
    const response = await fetch(url, { ...options, headers, body });
    return {
      status: response.status,
      headers: Object.fromEntries(response.headers),
      body: JSON.parse((await response.text()) || "null"),
    };
  } catch (error) {
    return { failed: error.name };
  }
}

// Sends one message over a WebSocket, and returns the reply or the close code.
function exchange(url, token, message) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, ["bearer", token]);
    socket.onopen = () => socket.send(message);
    socket.onmessage = ({ data }) => {
      resolve({ protocol: socket.protocol, data });
      socket.close();
    };
    socket.onclose = ({ code }) => resolve({ closed: code });
  });
}

// Returns the first event of a stream, or its failure.
function firstEvent(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const end = (result) => {
      source.close();
      resolve(result);
    };
    source.onmessage = ({ data }) => end({ data });
    source.onerror = () => end({ failed: true });
  });
}

Object.assign(globalThis, { signIn, signOut, send, exchange, firstEvent });
