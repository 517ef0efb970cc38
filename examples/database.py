"""New rows of a table as events: each poll takes a connection of the pool, and gives it back.

    gunicorn examples.database:app -c python:sseflask.gunicorn_conf

    curl -N http://127.0.0.1:8000/orders/events     (in one terminal)
    curl http://127.0.0.1:8000/orders -d item=tea

Needs Flask-SQLAlchemy. Another database: FLASK_SQLALCHEMY_DATABASE_URI=postgresql://...
"""

import time
from collections.abc import Iterator

from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sseflask import SSE, Event, EventSourceResponse, last_event_id


class Base(DeclarativeBase):
    pass


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///orders.sqlite3"
app.config.from_prefixed_env()
db = SQLAlchemy(app, model_class=Base)
SSE(app)


class Order(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


with app.app_context():
    db.create_all()


@app.get("/orders")
def orders() -> ResponseReturnValue:
    return [{"id": each.id, "item": each.item} for each in db.session.scalars(select(Order))]


@app.post("/orders")
def order() -> ResponseReturnValue:
    new = Order(item=request.form["item"])
    db.session.add(new)
    db.session.commit()
    return {"id": new.id}, 201


@app.get("/orders/events")
def order_events() -> EventSourceResponse:
    start = min(last_event_id(type=int, default=0), 2**63 - 1)  # a client may send any number

    def events() -> Iterator[Event]:
        last = start
        while True:
            # Not db.session: that keeps its connection until the stream ends.
            with Session(db.engine) as session:
                query = select(Order).where(Order.id > last).order_by(Order.id).limit(100)
                found = session.scalars(query).all()
            for each in found:
                last = each.id
                yield Event({"item": each.item}, event="order", id=last)
            if not found:
                time.sleep(0.5)

    return EventSourceResponse(events())
