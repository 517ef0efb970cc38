// Sends a message with the AI SDK's DefaultChatTransport, and reads the answer as its user
// interface does. Prints the last state of the message, or the error, as one JSON line.
// Usage: node ai.mjs <URL of the API> <text> <token>
import { DefaultChatTransport, readUIMessageStream } from "ai";

const [api, text, token] = process.argv.slice(2);
const transport = new DefaultChatTransport({
  api,
  headers: { Authorization: `Bearer ${token}` },
});

try {
  const stream = await transport.sendMessages({
    trigger: "submit-message",
    chatId: "chat",
    messages: [{ id: "1", role: "user", parts: [{ type: "text", text }] }],
  });
  let message = null;
  let failure = null;
  const onError = (error) => (failure = String(error.message ?? error));
  for await (const state of readUIMessageStream({ stream, onError })) message = state;
  process.stdout.write(JSON.stringify({ message, failure }) + "\n");
} catch (error) {
  process.stdout.write(JSON.stringify({ message: null, failure: error.message }) + "\n");
}
