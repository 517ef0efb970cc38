// An OpenAI-compatible server: npm's aimock. Prints its address and what it tells, then serves
// until it is killed. Which answer it gives depends on the user's message, which may end in " #tag",
// so that a test can tell its requests from others. The secret is what it must never be told to a
// client, although this upstream repeats it in one of its errors.
//
// It cuts text where UTF-16 happens to be cut, so long stories have halves of characters in
// neighbouring chunks. What it can't do is done by tests/live/kit/proxy.py, between it and the service:
// bytes cut anywhere, and frames that are none.
// Usage: node upstream.mjs <secret>
import { LLMock } from "@copilotkit/aimock";

const [secret] = process.argv.slice(2);
const mock = new LLMock({ port: 0, metrics: true, chunkSize: 4, journalMaxEntries: 0 });
const story = "It was a bright cold day in April, and the clocks were striking thirteen. 你好 🌊";
// Each tag has a tale of its own: {} stands for the tag.
const tale = { text: "{} once upon a time, «ünïcödé» 你好 … ", times: 8 };
const error = (status, message, type, code, further = {}) => ({
  error: { message, type, code, param: null },
  status,
  ...further,
});
const on = (name, response, options) =>
  mock.onMessage(new RegExp(`^${name}( #\\S+)?$`), response, options);
const paced = (tps, ttft = 0) => ({ streamingProfile: { ttft, tps } });

on("story", { content: story });
on("slow story", { content: story.repeat(20) }, paced(20));
on("paced story", { content: story.repeat(4) }, paced(50));
on("steady story", { content: story.repeat(8) }, paced(20));
on("few words", { content: "few words, and far between" }, paced(3));
on(
  "tale",
  ({ messages }) => {
    const [, tag] = messages.at(-1).content.split(" #");
    return { content: tale.text.replaceAll("{}", tag).repeat(tale.times) };
  },
  { ...paced(10), chunkSize: 8 },
);
// A function, so that the journal does not repeat it.
on("huge", () => ({ content: "0123456789abcdef".repeat(65536) }), { chunkSize: 2 ** 21 });
on("reasoning", { content: story, reasoning: "Let me think about it." });
on("slow reasoning", { content: story, reasoning: story.repeat(20) }, paced(20));
on("tools", {
  toolCalls: [
    { id: "call_1", name: "weather", arguments: '{"city":"Zürich","unit":"°C"}' },
    { id: "call_2", name: "clock", arguments: "{}" },
  ],
});
on("too long", { content: story, finishReason: "length" });
on("filtered", { content: story, finishReason: "content_filter" });
on("counted", {
  content: story,
  usage: { prompt_tokens: 11, completion_tokens: 222, total_tokens: 233 },
});
on("truncated", { content: story }, { truncateAfterChunks: 4, ...paced(50) });
// Cut in the same moment as it is written, so that not even the headers arrive.
on("cut off", { content: story }, { truncateAfterChunks: 1 });
on("late", { content: story }, { streamingProfile: { ttft: 60000 } });
on("a little late", { content: story }, paced(1000, 1500));
on(
  "silent in the middle",
  { content: story },
  { recordedTimings: { ttftMs: 0, interChunkDelaysMs: [10, 10, 10, 10, 60000], totalDurationMs: 0 } },
);
// What the proxy alters: one frame in the middle.
on("marked", { content: "before, MARKED 1after it" }, { chunkSize: 8, ...paced(50) });
on("marked as an error", { content: "before, MARKED 3after it" }, { chunkSize: 8, ...paced(50) });
on("marked as no object", { content: "before, MARKED 4after it" }, { chunkSize: 8, ...paced(50) });
on("not a stream", { content: story }, { chaos: { malformedRate: 1 } });
on("limit", error(429, "Rate limit reached", "rate_limit_error", "rate_limit_exceeded"));
on(
  "limit for a while",
  error(429, "Rate limit reached", "rate_limit_error", "rate_limit_exceeded", { retryAfter: 7 }),
);
on("bad request", error(400, "Unknown model", "invalid_request_error", "model_not_found"));
on("broken", error(500, "The server had an error", "server_error", null));
on(
  "key refused",
  error(401, `Incorrect API key provided: ${secret}.`, "invalid_request_error", "invalid_api_key"),
);

await mock.start();
process.stdout.write(JSON.stringify({ url: mock.url, story, tale }) + "\n");
