"""The methods of `sseflask.SSE` for runs: generators that are run once, and stored as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from flask import Flask, Response, request

from sseflask import run_responses
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.flask_context import current_request
from sseflask.run_arguments import OnDisconnect, Owner, check_number, subject_of, terms_of
from sseflask.run_responses import Sending, format_of, viewed_format
from sseflask.runs.item_run import ItemRun, RunHandle
from sseflask.runs.items import ITEMS
from sseflask.runs.kinds import ASKING_FORMATS, kind_of
from sseflask.runs.run_result import RunResult, RunState, events_of, result_of, run_state
from sseflask.runs.runs import Beginning, Runs
from sseflask.runs.source import RunSource, closing_unless_used
from sseflask.runs.successor import Resume, Successor
from sseflask.runs.writer import Terms
from sseflask.store.run_api import Run
from sseflask.transport.choose import begin_long
from sseflask.transport.failures import worker_full
from sseflask.web.idempotency import check_key, digest_of, scoped
from sseflask.web.rate_limits import client_network
from sseflask.web.refusals import is_event_source

__all__ = ["RunMethods"]

Items: TypeAlias = "Iterable[Any] | Callable[[RunHandle], Any] | Callable[[], Any] | RunSource"
"""What a run may be made of."""


class RunMethods:
    """Run generators, show runs, stop them.

    `run` and `attach` answer the current request. The others can be called from any thread and
    without a request: in a script, a task, ``flask shell``. All block the calling greenlet or
    thread only.
    """

    def run(
        self,
        items: Items,
        *,
        owner: Owner = None,
        account: str | None = None,
        idempotency_key: str | None = None,
        on_disconnect: OnDisconnect = "continue",
        format: str | None = None,
        max_bytes: float | None = None,
        max_seconds: float | None = None,
        keep: float | None = None,
        resume: Resume | None = None,
        heartbeat: float | None = None,
        first_byte: float | None = None,
        lifetime: float | None = None,
        expires_at: float | None = None,
        headers: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        reconnects: bool = True,
    ) -> Response:
        """Answer the current request with a run, which goes on without its client.

        The generator is advanced once, in a greenlet or thread of its own; what it yields is stored
        first, and then sent with ids. A client that comes back with ``Last-Event-ID`` (here or to
        `attach`) gets exactly what it has not had, from any worker; nothing is run again. The last
        event is ``done``, with ``{"status": "finished", "result": ...}``, or ``failure``; a client
        that has it gets 204. HEAD, and a browser's prefetch, run nothing.

        The generator has the view's contexts, as with ``stream_with_context``, but for what can't
        reach the client any more: changing the session and ``after_this_request`` raise. Its
        ``finally`` runs in any case but the death of its process.

        Args:
            items: an iterable of what `EventSourceResponse` takes; ids are replaced by the run's.
                Or a function that is a generator, returns an iterator, or emits items itself and
                returns the result; the `RunHandle` is given to one that needs an argument. Or a
                completion, such as of `openai_chunks`.
            owner: only the same owner can come back, attach, or stop it.
            account: whose running runs are counted against ``SSEFLASK_MAX_RUNS``; by default the
                owner's, and without one those of the client's address.
            idempotency_key: the same owner's same request with the same key finds the run that it
                has begun before, in the same view.
            on_disconnect: ``cancel`` the run when its last viewer has left, ``continue``, or the
                seconds that it goes on without viewers.
            format: of a completion: ``chunks``, ``text``, ``events`` or ``ui``.
            max_bytes: it fails if it becomes larger; by default ``SSEFLASK_MAX_RUN_BYTES``.
            max_seconds: it fails if it takes longer; by default ``SSEFLASK_MAX_RUN_SECONDS``.
            keep: seconds for which it is stored after its end; by default ``SSEFLASK_RUN_SECONDS``.
            resume: a function at the top level of a module, by which another worker goes on if
                this one dies (once), or is shut down. It takes the run's id and its last
                `RunEvent`, or ``None`` if there is none, and gives a generator, or a function that
                takes the `RunHandle`. Without it the run ends as ``interrupted``.
            heartbeat: as for `EventSourceResponse`; so are ``first_byte``, ``lifetime`` and
                ``expires_at``.
            headers: further response headers.
            last_event_id: the client's cursor, if neither the header nor the query has it.
            reconnects: whether the client comes back by itself if the server ends its stream. If
                not, such as OpenAI's clients, its ``Last-Event-ID`` does not count.

        Raises:
            Failure: 400 or 404, the client's ``Last-Event-ID`` is of no run that it may see; 409,
                the key belongs to another request; 429, too many runs of the account are running;
                503, the store can't do it now. Nothing was run.
            TypeError: this can't be a run.
            ValueError: a value that is not allowed.
            RuntimeError: this is not registered with the application, or there is no request.
        """
        source = _source(items)
        with closing_unless_used(source):
            sending = Sending(heartbeat, first_byte, lifetime, expires_at, headers)
            subject, chosen = subject_of(owner), format_of(kind_of(source.label), format)
            # A client that comes back needs nothing of what follows: after a deploy many do.
            cursor = run_responses.cursor_of_client(last_event_id) if reconnects else None
            if cursor is not None:
                run_id, _ = run_responses.read_cursor(cursor)
                run = self._runs().find(run_id, subject)
                if run is None:
                    raise run_responses.not_found(cursor[1])
                return self._show(run, format, cursor, sending)
            if request.method == "HEAD":
                return run_responses.head(chosen, sending)
            if run_responses.begins_nothing():
                # Not to be stored: the browser could use it when the page is really needed.
                return run_responses.nothing_left()
            if not begin_long(request.environ):
                with LOCK:
                    COUNTS.streams["run"].refused += 1
                raise worker_full("streams")  # before the generator begins, which could cost money
            # Or a stranger could begin any number of them, and leave.
            account = account or subject or f"address {client_network(request.remote_addr)}"
            runs = self._runs()
            terms = terms_of(runs.bounds, on_disconnect, max_bytes, max_seconds)
            beginning = self._beginning(source, subject, account, terms, keep, resume)
            if idempotency_key is not None:
                beginning = replace(
                    beginning,
                    key=scoped(subject, request.endpoint or "", check_key(idempotency_key)),
                    digest=source.digest or digest_of(current_request()),
                )
            started = runs.start(
                source.generate,
                beginning,
                chosen,
                # Neither would be JSON.
                announce=not chosen.document and is_event_source(request.environ),
                early=not chosen.document and sending.early,
                resumable=reconnects,
            )
            started.viewer.repeatable = idempotency_key is not None
            started.viewer.complete_headers = kind_of(source.label).completing(source.headers)
            return run_responses.stream(started.viewer, chosen, sending, repeated=started.repeated)

    def start(
        self,
        items: Items,
        *,
        owner: Owner = None,
        account: str | None = None,
        idempotency_key: str | None = None,
        on_disconnect: OnDisconnect = "continue",
        max_bytes: float | None = None,
        max_seconds: float | None = None,
        keep: float | None = None,
        resume: Resume | None = None,
    ) -> str:
        """Begin a run without a response: in a script, a task, ``flask shell``, or a view.

        Blocks until the run is stored, not for its generator. Anybody can `attach` to it, on any
        worker. A process that is no server ends when its runs have ended.

        Args:
            items: as for `run`; so are the others.
            idempotency_key: with the same key the owner finds the run that was begun before.
            on_disconnect: its first viewer has ten seconds to come.

        Returns:
            the run's id.

        Raises:
            Failure: 429 and 503 as for `run`.
            TypeError: this can't be a run.
            ValueError: a value that is not allowed.
            RuntimeError: this is not registered with the application.
        """
        source = _source(items)
        with closing_unless_used(source):
            subject, runs = subject_of(owner), self._runs()
            terms = terms_of(runs.bounds, on_disconnect, max_bytes, max_seconds)
            beginning = self._beginning(source, subject, account or subject, terms, keep, resume)
            if idempotency_key is not None:
                key = scoped(subject, "", check_key(idempotency_key))
                beginning = replace(beginning, key=key, digest=source.digest or b"")
            return runs.start_alone(source.generate, beginning).id

    def attach(
        self,
        run_id: str,
        *,
        owner: Owner = None,
        format: str | None = None,
        last_event_id: str | None = None,
        heartbeat: float | None = None,
        first_byte: float | None = None,
        lifetime: float | None = None,
        expires_at: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Answer the current request with a run: from its start, or from where the client is.

        Any number of clients may, while it goes on and after its end.

        Args:
            run_id: the run's id.
            owner: the run's.
            last_event_id: the client's cursor, if neither the header nor the query has it.

        For the others see `run`.

        Raises:
            Failure: 404, there is no such run, or it is another owner's; 400, the client's
                ``Last-Event-ID`` is not of this run; 503, the store can't be read now.
            ValueError: a value that is not allowed.
            RuntimeError: this is not registered with the application, or there is no request.
        """
        run = self._runs().find(str(run_id), subject_of(owner))
        cursor = run_responses.cursor_of_client(last_event_id)
        if run is None:
            if format in ASKING_FORMATS:
                return run_responses.nothing_left()
            raise run_responses.not_found(cursor[1] if cursor else None)
        sending = Sending(heartbeat, first_byte, lifetime, expires_at, headers)
        return self._show(run, format, cursor, sending)

    def stop(self, run_id: str, *, owner: Owner = None) -> RunState:
        """Stop a run, whichever process runs it; one that has ended stays as it is.

        Blocks until it is stored. The generator gets `gevent.GreenletExit` wherever it blocks;
        without gevent, GeneratorExit at its next item.

        Args:
            run_id: the run's id.
            owner: the run's.

        Returns:
            how it has ended: ``stopped``, or otherwise if that came first.

        Raises:
            Failure: 404, there is no such run, or it is another owner's; 503, the store can't do
                it now.
            RuntimeError: this is not registered with the application.
        """
        runs = self._runs()
        run = runs.find(str(run_id), subject_of(owner))
        outcome = None if run is None else runs.stop(run)
        if outcome is None:
            raise run_responses.not_found()
        return run_state(outcome)

    def result(self, run_id: str, *, owner: Owner = None, format: str | None = None) -> RunResult:
        """The state of a run, its outcome, and the events that there are so far.

        Blocks until they are read.

        Args:
            run_id: the run's id.
            owner: the run's.
            format: as for `run`.

        Raises:
            Failure: 404, there is no such run, or it is another owner's; 503, the store can't be
                read now.
            ValueError: the run has no such format.
            RuntimeError: this is not registered with the application.
        """
        runs = self._runs()
        run = runs.find(str(run_id), subject_of(owner))
        if run is None:
            raise run_responses.not_found()
        kind = kind_of(run.label)
        view = format_of(kind, format).view(run.id, run.label)
        events = events_of(run, view, runs.frames(run))
        outcome = kind.outcome_of(run) if run.outcome is not None else None
        return result_of(run, outcome, events)

    def _beginning(
        self,
        source: RunSource,
        subject: str,
        account: str,
        terms: Terms,
        keep: float | None,
        resume: Resume | None,
    ) -> Beginning:
        """What a run begins with, without a key; the source gets the contexts of this call."""
        check_number("keep", keep)
        app, successor = self._app(), b""
        if resume is not None:
            if source.label != ITEMS:
                raise TypeError("resume is for runs of items, not for completions")
            successor = Successor(resume, terms).encode(app.secret_key)
        source.within(app)
        return Beginning(subject, account, source.label, terms, keep=keep, successor=successor)

    def _show(
        self, run: Run, format: str | None, cursor: tuple[str, str] | None, sending: Sending
    ) -> Response:
        chosen = viewed_format(kind_of(run.label), format)
        if request.method == "HEAD":
            return run_responses.head(chosen, sending, run.id)
        after = run_responses.number_after(run, chosen, cursor)
        if after is None:
            return run_responses.nothing_left(run.id)
        viewer = self._runs().view(
            run,
            chosen,
            after,
            announce=not chosen.document and is_event_source(request.environ),
            early=not chosen.document and sending.early,
        )
        viewer.complete_headers = kind_of(run.label).completing({})
        # The run exists, whatever becomes of it: nothing is gained by holding the headers back.
        return run_responses.stream(viewer, chosen, replace(sending, first_byte=0))

    def _app(self) -> Flask:
        """The application of this call."""
        raise NotImplementedError

    def _runs(self) -> Runs:
        """Its runs."""
        raise NotImplementedError


def _source(items: Items) -> RunSource:
    return items if isinstance(items, RunSource) else ItemRun(items)
