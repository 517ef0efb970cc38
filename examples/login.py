"""A stream for each user of Flask-Login: only that user reads it, and signing out ends it.

    FLASK_SECRET_KEY=change-me gunicorn examples.login:app -c python:sseflask.gunicorn_conf -w 2

Open http://127.0.0.1:8000/ in two browsers, as ada (password ada-1) and as bob (bob-1).
Needs Flask-Login.
"""

from flask import Flask, abort, redirect, render_template_string, request
from flask.typing import ResponseReturnValue
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.security import check_password_hash, generate_password_hash

from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # other sites can't post the forms below
app.config.from_prefixed_env()
sse = SSE(app)
login_manager = LoginManager(app)


class User(UserMixin):
    def __init__(self, id: str, password: str) -> None:
        self.id = id
        self.password = generate_password_hash(password)

    @property
    def channel(self) -> str:
        return f"user.{self.id}"


USERS = {user.id: user for user in (User("ada", "ada-1"), User("bob", "bob-1"))}
login_manager.user_loader(USERS.get)


@app.post("/login")
def login() -> ResponseReturnValue:
    user = USERS.get(request.form["name"])
    if user is None or not check_password_hash(user.password, request.form["password"]):
        abort(401)
    login_user(user)
    return redirect("/")


@app.post("/logout")
@login_required
def logout() -> ResponseReturnValue:
    channel = current_user.channel
    logout_user()
    # An EventSource comes back once more, gets 401 without the cookie, and gives up.
    sse.close(channel)
    return redirect("/")


@app.get("/events")
@login_required
def events() -> EventSourceResponse:
    return sse.subscribe(current_user.channel)


@app.post("/messages")
@login_required
def message() -> ResponseReturnValue:
    to = USERS.get(request.form["to"]) or abort(404)
    sse.publish(to.channel, f"{current_user.id}: {request.form['text']}")
    return redirect("/")


@app.get("/")
def page() -> str:
    if not current_user.is_authenticated:
        return SIGN_IN
    # What has come before goes into the page, and the stream goes on from there.
    so_far = sse.history(current_user.channel, limit=1000)
    return render_template_string(MESSAGES, messages=so_far.events, cursor=so_far.cursor)


SIGN_IN = """<!doctype html>
<title>Sign in</title>
<form method="post" action="/login">
  <input name="name" aria-label="Name">
  <input name="password" type="password" aria-label="Password">
  <button>Sign in</button>
</form>
"""

MESSAGES = """<!doctype html>
<title>Messages of {{ current_user.id }}</title>
<form method="post" action="/logout"><button>Sign out</button></form>
<form method="post" action="/messages">
  <input name="to" aria-label="To">
  <input name="text" aria-label="Text">
  <button>Send</button>
</form>
<ul>{% for message in messages %}<li>{{ message.data }}</li>{% endfor %}</ul>
<script>
  new EventSource("/events?last_event_id={{ cursor }}").onmessage = ({ data }) => {
    const item = document.createElement("li");
    item.textContent = data;
    document.querySelector("ul").append(item);
  };
</script>
"""
