// Reads a stream with npm's openai and prints each chunk, then how it ended, one JSON line each.
// Usage: node openai.mjs <base URL> <path> <JSON body> <token>
import OpenAI from "openai";

const [baseURL, path, body, token] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const client = new OpenAI({ baseURL, apiKey: token, maxRetries: 0 });

try {
  for await (const chunk of await client.post(path, { body: JSON.parse(body), stream: true })) {
    print({ chunk });
  }
  print({ end: "clean" });
} catch (error) {
  const { status, message, type, param, code } = error;
  print({ end: "error", name: error.constructor.name, status, message, type, param, code });
}
