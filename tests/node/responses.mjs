// Streams a response with the AI SDK's provider for OpenAI, stops its run (DELETE) at the first
// piece of text if it is to, and prints its text and its errors as one JSON line.
//
// Usage: node responses.mjs <the service's address> <text> <token> [stop]
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";

const [url, prompt, apiKey, stop] = process.argv.slice(2);
let run = null;
const provider = createOpenAI({
  baseURL: `${url}/v1`,
  apiKey,
  fetch: async (address, init) => {
    const response = await fetch(address, init);
    run = response.headers.get("x-run-id");
    return response;
  },
});

const result = { text: "", errors: [], reasons: [] };
const { fullStream } = streamText({
  model: provider.responses("m"),
  prompt,
  maxRetries: 0,
  onError: () => {},
});
for await (const part of fullStream) {
  if (part.type === "text-delta") {
    if (stop && !result.text) {
      const headers = { Authorization: `Bearer ${apiKey}` };
      await fetch(`${url}/runs/${run}`, { method: "DELETE", headers });
    }
    result.text += part.text;
  }
  if (part.type === "error") result.errors.push(part.error.message ?? part.error);
  if (part.type === "finish") result.reasons.push(part.finishReason);
}
process.stdout.write(JSON.stringify(result) + "\n");
