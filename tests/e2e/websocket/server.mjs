// A WebSocket server on a free port of 127.0.0.1. It echoes every message, except `headers`, to which it replies with the
// request headers as JSON, and `close`, on which it closes. It writes a line about the end of each socket.

import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () => {
  console.log(`listening on port ${server.address().port}`);
});

server.on("connection", (socket, request) => {
  const user = request.headers["x-user-id"];
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? undefined : data.toString();
    if (text === "headers") socket.send(JSON.stringify(request.headers));
    else if (text === "close") socket.close(4001, "enough");
    else socket.send(data, { binary: isBinary });
  });
  socket.on("close", (code, reason) => console.log(`${user} closed ${code} ${reason}`));
  socket.on("error", (error) => console.log(`${user} failed ${error.code}`));
});
