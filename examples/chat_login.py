"""A chat for each user of Flask-Login: an answer goes on when its page is loaded again.

    OPENAI_API_KEY=sk-... FLASK_SECRET_KEY=change-me gunicorn examples.chat_login:app \
-c python:sseflask.gunicorn_conf -w 2

Open http://127.0.0.1:8000/ as ada (password ada-1) or bob (bob-1), and reload it in the middle.
Needs Flask-Login and openai.
"""

import os
from importlib.resources import files

from flask import Flask, Response, abort, redirect, request
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from openai import OpenAI
from werkzeug.security import check_password_hash, generate_password_hash

from sseflask import SSE, openai_chunks

app = Flask(__name__)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # other sites can't post the forms below
app.config.from_prefixed_env()
sse = SSE(app)
login_manager = LoginManager(app)
client = OpenAI()
MODEL = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
SCRIPT = files("sseflask") / "static" / "sse.js"


class User(UserMixin):
    def __init__(self, id: str, password: str) -> None:
        self.id = id
        self.password = generate_password_hash(password)


USERS = {user.id: user for user in (User("ada", "ada-1"), User("bob", "bob-1"))}
login_manager.user_loader(USERS.get)


@app.post("/login")
def login() -> ResponseReturnValue:
    user = USERS.get(request.form["name"])
    if user is None or not check_password_hash(user.password, request.form["password"]):
        abort(401)
    login_user(user)
    return redirect("/")


@app.post("/chat")
@login_required
def chat() -> Response:
    answer = openai_chunks(
        client, [{"role": "user", "content": request.form["message"]}], model=MODEL
    )
    return sse.run(
        answer,
        owner=current_user.id,
        idempotency_key=request.headers.get("Idempotency-Key"),
        on_disconnect=30,
        format="ui",
    )


@app.get("/chat/<run>")
@login_required
def attach(run: str) -> Response:
    """The answer from its start; 204 if it is another user's, or forgotten."""
    return sse.attach(run, owner=current_user.id, format="ui")


@app.delete("/chat/<run>")
@login_required
def stop(run: str) -> ResponseReturnValue:
    return {"state": sse.stop(run, owner=current_user.id)}


@app.get("/sse.js")
def sse_js() -> Response:
    return Response(SCRIPT.read_bytes(), mimetype="text/javascript")


@app.get("/")
def page() -> str:
    return CHAT if current_user.is_authenticated else SIGN_IN


SIGN_IN = """<!doctype html>
<title>Sign in</title>
<form method="post" action="/login">
  <input name="name" aria-label="Name">
  <input name="password" type="password" aria-label="Password">
  <button>Sign in</button>
</form>
"""

CHAT = """<!doctype html>
<title>Chat</title>
<form>
  <input name="message" aria-label="Message" autofocus>
  <button>Send</button> <button type="button">Stop</button>
</form>
<p></p>
<script type="module">
  import { stream } from "/sse.js";

  const form = document.querySelector("form");
  const answer = document.querySelector("p");
  let reading = new AbortController();

  function show(url, options = {}) {
    reading.abort();
    reading = new AbortController();
    stream(url, {
      ...options,
      signal: reading.signal,
      attach: (run) => `/chat/${run}`,
      onOpen: ({ headers }) => sessionStorage.setItem("run", headers.get("X-Run-Id")),
      onEvent: ({ data }) => {
        if (data === "[DONE]") return reading.abort();
        const part = JSON.parse(data);
        if (part.type === "start") answer.textContent = "";
        else if (part.type === "text-delta") answer.append(part.delta);
        else if (part.type === "error") answer.append(` (${part.errorText})`);
      },
      onFailure: ({ message }) => answer.append(` (${message})`),
    });
  }

  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    show("/chat", { method: "POST", body: new FormData(form) });
  });
  form.querySelector("[type=button]").addEventListener("click", () => {
    fetch(`/chat/${sessionStorage.getItem("run")}`, { method: "DELETE" });
  });
  if (sessionStorage.getItem("run")) show(`/chat/${sessionStorage.getItem("run")}`);
</script>
"""
