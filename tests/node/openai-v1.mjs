// Makes requests with npm's openai, one after the other, and prints what became of each, one JSON
// line a request. A request has "chat" or "responses" (the user's message) or "models"; "stream"
// (true unless it says so), "key" (Idempotency-Key), "query", "retries" (0 unless it says so), and
// "abort_after" so many pieces.
// Usage: node openai-v1.mjs <base URL> <token> <JSON array of requests>
import OpenAI from "openai";

const [baseURL, apiKey, requests] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

async function make(request, result) {
  if (request.models) {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    result.text = found.join(" ");
    return;
  }
  const controller = new AbortController();
  const options = {
    signal: controller.signal,
    query: request.query,
    maxRetries: request.retries ?? 0,
    headers: request.key ? { "Idempotency-Key": request.key } : {},
  };
  const stream = request.stream ?? true;
  const promise = request.chat
    ? client.chat.completions.create(
        { model: "m", stream, messages: [{ role: "user", content: request.chat }] },
        options,
      )
    : client.responses.create({ model: "m", stream, input: request.responses }, options);
  const { data, response } = await promise.withResponse();
  result.run = response.headers.get("x-run-id");
  result.replayed = response.headers.get("idempotency-replayed");
  if (!stream) {
    result.text = request.chat ? data.choices[0].message.content : data.output_text;
    return;
  }
  let pieces = 0;
  for await (const event of data) {
    const piece = request.chat
      ? event.choices[0]?.delta.content
      : event.type === "response.output_text.delta" && event.delta;
    if (piece) {
      result.text += piece;
      pieces += 1;
    }
    if (pieces === request.abort_after) controller.abort();
    if (request.chat) result.finish = event.choices[0]?.finish_reason ?? result.finish;
    else result.finish = event.type;
  }
}

for (const request of JSON.parse(requests)) {
  const result = { text: "" };
  try {
    await make(request, result);
    result.end = "clean";
  } catch (error) {
    const { status, message, type, code } = error;
    Object.assign(result, { end: "error", name: error.constructor.name, status, message, type, code });
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
