// A page with useChat({ id, messages, resume: true }) of the AI SDK, from its load to its end: the
// same AbstractChat and DefaultChatTransport, with the addresses that they have by themselves.
// Prints one JSON line: the requests, and the chat's messages, status and error.
//
// Usage: node use-chat.mjs <URL of the application> <JSON>, with
//   id     the chat's                  text   a message to send, once the page has resumed
//   leave  the page ends when the answer has so many characters
//   stop   so does the answer: stopped by DELETE
import { AbstractChat, DefaultChatTransport } from "ai";

import { State } from "./chat-state.mjs";

const [url, json] = process.argv.slice(2);
const config = JSON.parse(json);
const api = `${url}/api/chat`;
const requests = [];

async function noting(address, init) {
  const response = await fetch(address, init);
  requests.push([init.method, new URL(address).pathname, response.status]);
  return response;
}

class Chat extends AbstractChat {
  constructor(messages) {
    const transport = new DefaultChatTransport({ api, fetch: noting });
    super({ id: config.id, state: new State(messages, changed), transport });
  }
}

let stopped = false;

function changed() {
  const last = chat.lastMessage;
  const length = last?.role === "assistant" && last.parts.findLast((part) => part.text)?.text.length;
  if (config.leave && length >= config.leave) report(); // as a page that is closed
  if (config.stop && length >= config.stop && !stopped) {
    stopped = true;
    fetch(`${api}/${config.id}/stream`, { method: "DELETE" });
  }
}

function report() {
  const { messages, status, error } = chat;
  console.log(JSON.stringify({ requests, messages, status, error: error?.message ?? null }));
  process.exit();
}

const chat = new Chat(await (await fetch(`${api}/${config.id}`)).json());
await chat.resumeStream(); // what resume: true does when the page is mounted
if (config.text) await chat.sendMessage({ text: config.text });
report();
