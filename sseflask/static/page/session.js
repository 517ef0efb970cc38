import { ofBrowser, PLACE } from "./storage.js";

const KEPT = `${PLACE} sseflask.session`;

/** Trades a token for a cookie that scripts can't read, and says whose it is, in all tabs of the browser. */
export class Session {
  #box;
  #form;
  #listeners = [];
  #shown = "";
  #timer = 0;

  constructor(box) {
    this.#box = box;
    this.#form = box.querySelector("form");
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.signedIn) this.#signOut();
      else this.#signIn();
    });
    addEventListener("storage", ({ key }) => key === KEPT && this.#changed());
    this.#show();
  }

  get signedIn() {
    return this.#subject !== "";
  }

  /** `listener` is called with "in" (perhaps as somebody else), "out" or "expired". */
  onChange(listener) {
    this.#listeners.push(listener);
  }

  /** What a refusal means to the person who sees it. Opens the form where a token would help. */
  explain({ status, code, message }, right) {
    if (status !== 401) return message;
    // The cookie has gone, or is no good, before its time.
    if (this.signedIn) this.#forget("expired");
    this.#box.open = true;
    const why = code === "token_expired" ? "Your session has ended." : "This needs a token.";
    return `${why} Sign in with one that the server's operator makes: sseflask token ${right}`;
  }

  get #subject() {
    const { sub, exp } = ofBrowser.get(KEPT) ?? {};
    return exp * 1000 > Date.now() ? sub : "";
  }

  #show() {
    const { exp } = ofBrowser.get(KEPT) ?? {};
    const subject = this.#subject;
    this.#shown = subject;
    this.#box.querySelector("summary").textContent = subject ? `Signed in as ${subject}` : "Sign in";
    this.#form.querySelector("button").textContent = subject ? "Sign out" : "Sign in";
    for (const each of this.#form.querySelectorAll("[data-signed-out]")) each.hidden = Boolean(subject);
    this.#form.elements.token.required = !subject;
    this.#say(subject ? `until ${new Date(exp * 1000).toLocaleString()}` : "");
    clearTimeout(this.#timer);
    // A timer holds 24 days; a session that lasts longer is looked at again then.
    if (subject) this.#timer = setTimeout(() => this.#changed("expired"), Math.min(exp * 1000 - Date.now() + 50, 2 ** 31 - 1));
  }

  #changed(ended = "out") {
    const before = this.#shown;
    this.#show();
    if (this.#shown === before) return;
    for (const listener of this.#listeners) listener(this.#shown ? "in" : ended);
  }

  async #signIn() {
    const token = this.#form.elements.token.value.trim();
    if (!/^[\w.~+/=-]+$/.test(token)) return this.#say("That is no token: one begins with eyJ and has no spaces.");
    const response = await this.#ask("POST", { Authorization: `Bearer ${token}` });
    if (!response) return;
    this.#form.elements.token.value = "";
    ofBrowser.set(KEPT, claims(token));
    this.#close();
    this.#changed();
  }

  async #signOut() {
    if (!(await this.#ask("DELETE", {}))) return;
    this.#close();
    this.#forget("out");
  }

  #close() {
    this.#box.open = false;
    this.#box.querySelector("summary").focus();
  }

  #forget(how) {
    ofBrowser.remove(KEPT);
    this.#changed(how);
  }

  async #ask(method, headers) {
    let response;
    try {
      response = await fetch("session", { method, headers });
    } catch {
      this.#say("The service can't be reached.");
      return null;
    }
    if (response.ok) return response;
    this.#say(await messageOf(response));
    return null;
  }

  #say(text) {
    document.getElementById("who").textContent = text;
  }
}

/** The reason why a request was refused, in the words of the server or a proxy. */
export async function messageOf(response) {
  return (await errorOf(response)).message;
}

export async function errorOf(response) {
  const { status } = response;
  const text = await response.text();
  const json = response.headers.get("Content-Type")?.startsWith("application/json");
  return { status, ...(json ? JSON.parse(text).error : { message: `The server answered ${status}.` }) };
}

/** What a token says of itself; the server has checked it. */
function claims(token) {
  const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  const { sub, exp } = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  return { sub, exp };
}
