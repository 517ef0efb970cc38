import { curlOf } from "./curl.js";

const MOST = 500;
/** A blank line ends a frame, and a comment is none. */
const FRAMES = /:.*\n|[^]*?\n\n/gy;
const ENDS = { dropped: "the connection is dropped", cut: "the connection is cut", ended: "the response has ended" };

/** What goes over the connection of one panel, byte for byte, and whether it is open. */
export class Wire {
  #frames = document.getElementById("frames");
  #state = document.getElementById("state");
  #curl = document.getElementById("curl");
  #session;
  #onState;
  #drop = null;
  #shown = false;
  #rows = [];
  #unpainted = 0;
  #due = 0;
  #reported = ["closed", "not connected"];
  #command = "";
  #refused = "";
  #last = 0;

  /** `onState` is called with "open", "waiting", "shared" or "closed". */
  constructor(session, onState) {
    this.#session = session;
    this.#onState = onState;
  }

  /** Makes a request as `fetch` does, and shows what comes back. */
  fetch = async (request) => {
    await this.propose(request);
    this.#say("waiting", "connecting");
    const cursor = request.headers.get("Last-Event-ID");
    this.#add(`${request.method} ${new URL(request.url).pathname}${cursor ? `, after ${cursor}` : ""}`, "remark");
    let response;
    try {
      response = await fetch(request);
    } catch (error) {
      this.#add("no connection", "remark");
      this.#say("closed", "no connection");
      throw error;
    }
    this.#add(`${response.status} ${response.headers.get("Content-Type") ?? "without a body"}`, "remark");
    const refused = response.ok ? "" : `refused: ${response.status}`;
    this.#refused = refused;
    if (!response.body || response.status === 204) {
      this.#say("closed", refused || "nothing is left: 204");
      return response;
    }
    this.#say(refused ? "closed" : "open", refused || "open");
    return new Response(this.#tap(response.body, refused || "ended"), response);
  };

  /** The request that a shell would make for what is shown. */
  async propose(request) {
    this.#command = await curlOf(request, this.#session.signedIn);
    if (this.#shown) this.#curl.textContent = this.#command;
  }

  /** Cuts the connection, as a network would; its reader gets no notice. */
  drop() {
    this.#drop?.();
  }

  /** What happens between two connections. */
  waiting({ delay, cause }) {
    const why = cause?.code === "connection_lost" ? "connection lost" : cause?.message;
    this.#say("waiting", `reconnecting in ${(delay / 1000).toFixed(1)} s${why ? `: ${why}` : ""}`);
  }

  /** Another tab has the connection, and passes on what comes. */
  shared() {
    this.#say("shared", "another tab has the connection");
  }

  passed({ id, event, data }) {
    const type = event === "message" ? "" : `event: ${event}\n`;
    this.#add(`id: ${id}\n${type}${data.replaceAll(/^/gm, "data: ")}`, "frame");
  }

  /** Nothing follows. A refusal says more than that it is one. */
  ended(how) {
    this.#say("closed", how === "failure" ? this.#refused || "failed" : how);
  }

  /** This panel is the one that is looked at. */
  show() {
    this.#shown = true;
    this.#frames.replaceChildren();
    this.#unpainted = this.#rows.length;
    this.#paint();
    this.#curl.textContent = this.#command;
    this.#say(...this.#reported);
  }

  hide() {
    this.#shown = false;
  }

  #tap(body, ended) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    const end = (how) => {
      this.#drop = null;
      if (rest) this.#add(rest, "frame");
      rest = "";
      if (how in ENDS) this.#add(ENDS[how], "remark");
      this.#say("closed", how);
    };
    return new ReadableStream({
      start: (controller) => {
        this.#drop = () => {
          end("dropped");
          controller.error(new TypeError("the connection was dropped"));
          reader.cancel();
        };
      },
      pull: async (controller) => {
        let piece;
        try {
          piece = await reader.read();
        } catch (error) {
          end("cut");
          throw error;
        }
        if (piece.done) {
          if (!this.#drop) return;
          end(ended);
          controller.close();
          return;
        }
        rest += decoder.decode(piece.value, { stream: true });
        const frames = rest.match(FRAMES) ?? [];
        rest = rest.slice(frames.join("").length);
        for (const frame of frames) this.#add(frame, "frame");
        controller.enqueue(piece.value);
      },
      cancel: (reason) => {
        end("left");
        return reader.cancel(reason);
      },
    });
  }

  #add(text, kind) {
    const now = performance.now();
    this.#rows.push({ at: new Date(), gap: this.#last && now - this.#last, text: text.trimEnd(), kind });
    this.#last = now;
    if (this.#rows.length > MOST) this.#rows.shift();
    this.#unpainted = Math.min(this.#unpainted + 1, MOST);
    this.#paint();
  }

  // Once for each picture of the screen: a fast stream has thousands of frames a second.
  #paint() {
    if (this.#shown) this.#due ||= requestAnimationFrame(this.#draw);
  }

  #draw = () => {
    this.#due = 0;
    if (!this.#shown || !this.#unpainted) return;
    const frames = this.#frames;
    const following = frames.scrollHeight - frames.scrollTop - frames.clientHeight < 40;
    frames.append(...this.#rows.slice(-this.#unpainted).map(rowOf));
    this.#unpainted = 0;
    while (frames.childElementCount > MOST) frames.firstChild.remove();
    if (following) frames.scrollTop = frames.scrollHeight;
  };

  #say(state, text) {
    this.#reported = [state, text];
    this.#onState(state);
    if (!this.#shown) return;
    this.#state.dataset.state = state;
    this.#state.textContent = text;
  }
}

function rowOf({ at, gap, text, kind }) {
  const row = document.createElement("div");
  const time = document.createElement("time");
  const shown = document.createElement("pre");
  const clock = at.toTimeString().slice(0, 8);
  time.textContent = `${clock}.${String(at.getMilliseconds()).padStart(3, "0")} ${spelled(gap).padStart(8)}`;
  shown.className = kind;
  if (kind === "frame") shown.append(...coloured(text));
  else shown.textContent = text;
  row.append(time, shown);
  return row;
}

function* coloured(text) {
  for (const [at, part] of text.split(/^(:.*|(?:id|event|retry|data):)/m).entries()) {
    if (at % 2 === 0) yield part;
    else {
      const field = document.createElement("span");
      field.className = part.startsWith(":") ? "comment" : part.slice(0, -1);
      field.textContent = part;
      yield field;
    }
  }
}

function spelled(milliseconds) {
  return milliseconds < 9999 ? `+${Math.round(milliseconds)} ms` : `+${Math.round(milliseconds / 1000)} s`;
}
