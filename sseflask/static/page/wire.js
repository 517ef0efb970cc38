/** What goes over the connection of one panel, byte for byte, and whether it is open. */
export class Wire {
  #frames = document.getElementById("frames");
  #state = document.getElementById("state");
  #curl = document.getElementById("curl");
  #drop = null;
  #shown = false;
  #kept = [];
  #told = ["closed", ""];
  #command = "curl -N";
  #last = 0;

  /** Makes a request as `fetch` does, and shows what comes back. */
  fetch = async (request) => {
    this.#command = await curlOf(request.clone());
    this.#say("waiting", "connecting");
    const cursor = request.headers.get("Last-Event-ID");
    this.#add(`${request.method} ${new URL(request.url).pathname}${cursor ? `, after ${cursor}` : ""}`, "remark");
    let response;
    try {
      response = await fetch(request);
    } catch (error) {
      this.#say("closed", "no connection");
      throw error;
    }
    this.#add(`${response.status} ${response.headers.get("Content-Type") ?? "without a body"}`, "remark");
    if (!response.body || response.status === 204) {
      this.#say("closed", `closed: ${response.status}`);
      return response;
    }
    this.#say("open", "open");
    return new Response(this.#tap(response.body), response);
  };

  /** Cuts the connection, as a network would; what reads it is not told. */
  drop() {
    this.#drop?.();
  }

  /** What happens between two connections. */
  waiting({ delay, cause }) {
    this.#say("waiting", `opened again in ${(delay / 1000).toFixed(1)} s${cause ? `: ${cause.message}` : ""}`);
  }

  ended(how) {
    this.#say("closed", how);
  }

  /** This panel is the one that is looked at. */
  show() {
    this.#shown = true;
    this.#frames.replaceChildren(...this.#kept);
    this.#frames.scrollTop = this.#frames.scrollHeight;
    this.#curl.textContent = this.#command;
    this.#say(...this.#told);
  }

  hide() {
    this.#shown = false;
  }

  #tap(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    const end = (how) => {
      this.#drop = null;
      if (rest) this.#add(rest, "frame");
      rest = "";
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
          end("ended");
          controller.close();
          return;
        }
        // A blank line ends a frame, and a comment is none.
        const frames = (rest + decoder.decode(piece.value, { stream: true })).split(/(?<=\n\n)|(?<=^:.*\n)/m);
        rest = /\n\n$|^:.*\n$/.test(frames.at(-1)) ? "" : frames.pop();
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
    const row = document.createElement("div");
    const time = document.createElement("time");
    const shown = document.createElement("pre");
    time.textContent = `${new Date().toTimeString().slice(0, 8)} ${gap(this.#last && now - this.#last)}`;
    shown.className = kind;
    shown.textContent = text.trimEnd();
    row.append(time, shown);
    this.#last = now;
    this.#kept.push(row);
    if (this.#kept.length > 500) this.#kept.shift().remove();
    if (!this.#shown) return;
    this.#frames.append(row);
    this.#frames.scrollTop = this.#frames.scrollHeight;
    this.#curl.textContent = this.#command;
  }

  #say(state, text) {
    this.#told = [state, text];
    if (!this.#shown) return;
    this.#state.dataset.state = state;
    this.#state.textContent = text || state;
  }
}

function gap(milliseconds) {
  return milliseconds < 9999 ? `+${Math.round(milliseconds)}ms` : `+${Math.round(milliseconds / 1000)}s`;
}

/** The same request from a shell. */
async function curlOf(request) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const parts = ["curl -N"];
  if (request.method !== "GET" && request.method !== "POST") parts.push(`-X ${request.method}`);
  const id = request.headers.get("Last-Event-ID");
  if (id) parts.push(`-H ${quoted(`Last-Event-ID: ${id}`)}`);
  const body = request.method === "GET" ? "" : await request.text();
  if (body) parts.push(`-H 'Content-Type: application/json' -d ${quoted(body)}`);
  return [...parts, quoted(request.url)].join(" ");
}
