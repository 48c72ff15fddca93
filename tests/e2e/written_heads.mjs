// Reads requests from a file with Node's parser (llhttp), and prints one JSON object for each. Requests follow each other
// on one connection until one of them leaves HTTP.
import fs from "node:fs";
import http from "node:http";
import readline from "node:readline";
import { duplexPair } from "node:stream";

let read = [];
let missing = 0;
let complete;

// Notes a request head. The returned function notes the size of its content.
function begin(request) {
  const fields = [];
  for (let index = 0; index < request.rawHeaders.length; index += 2) {
    fields.push(request.rawHeaders.slice(index, index + 2));
  }
  const entry = { method: request.method, target: request.url, fields };
  read.push(entry);
  return (content) => {
    entry.content = content;
    missing -= 1;
    if (missing === 0) complete();
  };
}

const server = http.createServer((request, response) => {
  const end = begin(request);
  let content = 0;
  request.on("data", (data) => (content += data.length));
  request.on("end", () => {
    response.end();
    end(content);
  });
});
server.on("upgrade", (request, socket, rest) => begin(request)(rest.length));
server.on("clientError", (error) => {
  console.error(error.code, error.rawPacket?.toString("latin1").slice(0, 2000));
  process.exit(1);
});

async function send(requests) {
  const [client, connection] = duplexPair();
  const done = new Promise((resolve) => (complete = resolve));
  [read, missing] = [[], requests.length];
  server.emit("connection", connection);
  client.resume();
  client.write(Buffer.concat(requests));
  await done;
  for (const entry of read) process.stdout.write(JSON.stringify(entry) + "\n");
  client.destroy();
  connection.destroy();
}

const [file] = process.argv.slice(2);
const descriptor = fs.openSync(file);
let batch = [];
for await (const line of readline.createInterface({ input: fs.createReadStream(`${file}.jsonl`) })) {
  const { bytes, fields } = JSON.parse(line);
  const request = Buffer.alloc(bytes);
  fs.readSync(descriptor, request);
  batch.push(request);
  if (batch.length === 100 || fields.some(([name]) => name === "upgrade")) {
    await send(batch);
    batch = [];
  }
}
if (batch.length > 0) await send(batch);
