// Gives what the AI SDK itself would send to an OpenAI-compatible server for messages of its user
// interface: convertToModelMessages, then its provider for such servers. Prints a JSON
// list with the messages of each conversation.
//
// Usage: node convert.mjs <JSON list of conversations>
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { convertToModelMessages, generateText } from "ai";

let sent = null;
async function fetch(_address, init) {
  sent = JSON.parse(init.body).messages;
  const message = { role: "assistant", content: "ok" };
  return Response.json({ choices: [{ index: 0, message, finish_reason: "stop" }] });
}
const provider = createOpenAICompatible({
  name: "server",
  baseURL: "http://server/v1",
  fetch,
  supportedUrls: () => ({ "image/*": [/.*/] }),
});

const told = [];
for (const conversation of JSON.parse(process.argv[2])) {
  const messages = await convertToModelMessages(conversation, { ignoreIncompleteToolCalls: true });
  await generateText({ model: provider("model"), messages, allowSystemInMessages: true });
  told.push(sent);
}
process.stdout.write(JSON.stringify(told) + "\n");
