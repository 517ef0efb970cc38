// An OpenAI-compatible server: npm's aimock. Prints its address, then serves until it is killed.
// Which answer it gives depends on the user's message; the secret is what it must never be told
// to a client, although this upstream repeats it in one of its errors.
// Usage: node upstream.mjs <secret>
import { LLMock } from "@copilotkit/aimock";

const [secret] = process.argv.slice(2);
const mock = new LLMock({ port: 0, metrics: true, chunkSize: 4, journalMaxEntries: 0 });
const story = "It was a bright cold day in April, and the clocks were striking thirteen. 你好 🌊";
const error = (status, message, type, code) => ({
  error: { message, type, code, param: null },
  status,
});

mock.onMessage(/^story$/, { content: story });
mock.onMessage(/^slow story$/, { content: story.repeat(20) }, { streamingProfile: { ttft: 0, tps: 20 } });
mock.onMessage(/^reasoning$/, { content: story, reasoning: "Let me think about it." });
mock.onMessage(
  /^truncated$/,
  { content: story },
  { truncateAfterChunks: 4, streamingProfile: { ttft: 0, tps: 50 } },
);
// Cut in the same moment as it is written, so that not even the headers arrive.
mock.onMessage(/^cut off$/, { content: story }, { truncateAfterChunks: 1 });
mock.onMessage(/^late$/, { content: story }, { streamingProfile: { ttft: 60000 } });
mock.onMessage(/^a little late$/, { content: story }, { streamingProfile: { ttft: 1500, tps: 1000 } });
mock.onMessage(/^limit$/, error(429, "Rate limit reached", "rate_limit_error", "rate_limit_exceeded"));
mock.onMessage(/^bad request$/, error(400, "Unknown model", "invalid_request_error", "model_not_found"));
mock.onMessage(/^broken$/, error(500, "The server had an error", "server_error", null));
mock.onMessage(
  /^key refused$/,
  error(401, `Incorrect API key provided: ${secret}.`, "invalid_request_error", "invalid_api_key"),
);

await mock.start();
process.stdout.write(JSON.stringify({ url: mock.url, story }) + "\n");
