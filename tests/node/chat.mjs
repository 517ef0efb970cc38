// A chat of the AI SDK (AbstractChat with DefaultChatTransport, what useChat is made of), that may
// lose its connection and resume. Prints one JSON line when it is over.
//
// Usage: node chat.mjs <JSON>, with
//   url     the service's address          token   what it is to be given
//   text    the message to send; none: it only resumes
//   query   further parameters of /sse/openai_out
//   run     the run that it resumes; otherwise the one that X-Run-Id has named
//   stop    "chat" (its own stop button) or "run" (DELETE) once there are so many characters of text
//   after   how many
//   resume  how often it resumes afterwards
//   fresh   whether a chat of its own does so, as after a reload: with the messages that there are
import { AbstractChat, DefaultChatTransport } from "ai";

import { State } from "./chat-state.mjs";

const config = JSON.parse(process.argv[2]);
const headers = { Authorization: `Bearer ${config.token}` };
const result = { requests: [], parts: [], errors: [], finishes: [], resumed: [] };
let run = config.run ?? null;

async function notingFetch(address, init) {
  const response = await fetch(address, init);
  run = response.headers.get("x-run-id") ?? run;
  const { pathname } = new URL(address);
  result.requests.push({ method: init.method, path: pathname.split("/")[1], status: response.status });
  return response;
}

class Transport extends DefaultChatTransport {
  processResponseStream(body) {
    const noted = [];
    result.parts.push(noted);
    return super.processResponseStream(body).pipeThrough(
      new TransformStream({
        transform(part, controller) {
          noted.push(part);
          controller.enqueue(part);
        },
      }),
    );
  }
}

class Chat extends AbstractChat {
  constructor(messages) {
    super({
      id: "chat",
      state: new State(messages, changed),
      transport: new Transport({
        api: `${config.url}/sse/openai_out?${new URLSearchParams({ format: "ui", ...config.query })}`,
        headers,
        fetch: notingFetch,
        prepareReconnectToStreamRequest: () => ({ api: `${config.url}/runs/${run}?format=ui` }),
      }),
      onError: (error) => result.errors.push(error.message),
      onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
        result.finishes.push({ isAbort, isDisconnect, isError, finishReason }),
    });
  }
}

const textOf = (message) =>
  (message?.parts ?? []).filter((part) => part.type === "text").map((part) => part.text).join("");
let stopped = false;

function changed() {
  if (stopped || !config.stop || chat?.lastMessage?.role !== "assistant") return;
  if (textOf(chat.lastMessage).length < config.after) return;
  stopped = true;
  if (config.stop === "chat") chat.stop();
  else fetch(`${config.url}/runs/${run}`, { method: "DELETE", headers });
}

let chat = new Chat(config.messages ?? []);
if (config.text !== undefined) await chat.sendMessage({ text: config.text });
result.before = { messages: chat.messages, status: chat.status };
for (let time = 0; time < (config.resume ?? 0); time++) {
  if (config.fresh) chat = new Chat(chat.messages);
  await chat.resumeStream();
  result.resumed.push({ status: chat.status, text: textOf(chat.lastMessage) });
}
Object.assign(result, { run, status: chat.status, messages: chat.messages });
result.texts = chat.messages.filter((each) => each.role === "assistant").map(textOf);
process.stdout.write(JSON.stringify(result) + "\n");
