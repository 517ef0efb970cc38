// Reads streams one after another, over connections that are kept, and counts what fails.
// Usage: node reuse.mjs <URL> <events in each> <how many> <agent | fetch | openai>
import http from "node:http";

const [url, events, count, client] = process.argv.slice(2);
const errors = [];
const ports = new Set();
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

const byAgent = () =>
  new Promise((resolve, reject) => {
    const request = http.get(url, { agent }, (response) => {
      ports.add(response.socket.localPort);
      let text = "";
      response.on("data", (data) => (text += data));
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("error", reject);
  });
const byFetch = async () => (await fetch(url)).text();

for (let n = 0; n < Number(count) / 4; n++) {
  const texts = await Promise.allSettled(
    [0, 1, 2, 3].map(() => (client === "agent" ? byAgent() : byFetch())),
  );
  for (const { reason, value } of texts) {
    const found = value === undefined ? -1 : value.split("data: ").length - 1;
    if (found !== Number(events)) errors.push(String(reason?.cause ?? reason ?? value));
  }
}
agent.destroy();
console.log(JSON.stringify({ errors, connections: ports.size }));
