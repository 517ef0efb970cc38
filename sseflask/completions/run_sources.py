"""Completions for `sse.run` and `sse.start`: of an application's own client, or of any text.

They need the extra ``sseflask[openai]``, which is imported when they are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sseflask.runs.source import RunSource

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.responses import ResponseInputParam

__all__ = ["openai_chunks", "openai_response", "text_chunks"]


def openai_chunks(
    client: OpenAI, messages: Iterable[ChatCompletionMessageParam], **parameters: Any
) -> RunSource:
    """A chat completion of your own client, to be run by `sse.run` or `sse.start`.

    It can be viewed in each format: ``chunks``, ``text``, ``events``, ``ui``. Nothing is sent to
    the upstream before the run begins. When the run is stopped, or is cancelled as its client has
    left, the upstream's response is closed: under gevent at once, elsewhere with its next piece.

    An error of the upstream becomes the run's failure, with the upstream's status if nothing came
    before, and without the client's key. The client's own retries and timeouts hold; its read
    timeout is how long the upstream may be silent.

    Args:
        client: ``OpenAI`` or ``AzureOpenAI`` of the package ``openai``. Runs may share it.
        messages: the conversation.
        parameters: what ``client.chat.completions.create`` takes too, such as ``model``. The usage
            is asked for unless ``stream_options`` are given.

    Raises:
        TypeError: the client is asynchronous or of another kind, or its method does not take these
            parameters.
        ModuleNotFoundError: the extra is not installed.
    """
    return _of_client("chat", client, {"messages": list(messages), **parameters})


def openai_response(
    client: OpenAI, input: str | ResponseInputParam | None = None, **parameters: Any
) -> RunSource:
    """A response of OpenAI's Responses API; otherwise as `openai_chunks`.

    Args:
        input: what the model is asked; ``None`` if the ``prompt`` of the parameters says it.
        parameters: what ``client.responses.create`` takes too.
    """
    given = {} if input is None else {"input": input}
    return _of_client("responses", client, {**given, **parameters})


def text_chunks(texts: Iterable[str], *, model: str = "text") -> RunSource:
    """Any text that comes piece by piece, as a chat completion for `sse.run` or `sse.start`.

    It can be viewed in each format. The generator has the view's contexts, and its end, as that of
    a run of items; its pieces count as the tokens of the usage.

    Args:
        texts: an iterable of pieces, such as a generator around another library's stream.
        model: what the chunks call the model.

    Raises:
        TypeError: this is no synchronous iterable of texts.
        ModuleNotFoundError: the extra is not installed.
    """
    try:
        from sseflask.completions.text_run import TextRun
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return TextRun(texts, model)


def _of_client(label: str, client: OpenAI, parameters: dict[str, Any]) -> RunSource:
    try:
        from sseflask.completions.client_completion import ClientCompletion
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return ClientCompletion(label, client, parameters)


def _not_installed(error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"completions need {error.name}: pip install 'sseflask[openai]'", name=error.name
    )
