"""What a chain of LangChain says, as a run: its client may come back, to any worker.

    OPENAI_API_KEY=sk-... gunicorn examples.langchain_stream:app \
-c python:sseflask.gunicorn_conf -w 2

Open http://127.0.0.1:8000/. Needs langchain-openai.
"""

import os

from flask import Flask, Response, request
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from sseflask import SSE, text_chunks

app = Flask(__name__)
sse = SSE(app)
MODEL = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
prompt = ChatPromptTemplate.from_messages(
    [("system", "Answer in one sentence."), ("human", "{question}")]
)
chain = prompt | ChatOpenAI(model=MODEL) | StrOutputParser()


@app.get("/answers")
def answers() -> Response:
    texts = chain.stream({"question": request.args["question"]})
    return sse.run(text_chunks(texts), on_disconnect=30, format="text")


@app.delete("/answers/<run>")
def stop(run: str) -> dict[str, str]:
    return {"state": sse.stop(run)}


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Answers</title>
<form><input name="question" aria-label="Question"> <button>Ask</button></form>
<p></p>
<script>
  const form = document.querySelector("form");
  const answer = document.querySelector("p");
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    answer.textContent = "";
    // It comes back by itself, with the id of the last event: nothing is asked twice.
    const source = new EventSource(`/answers?${new URLSearchParams(new FormData(form))}`);
    source.onmessage = ({ data }) => answer.append(data);
    source.addEventListener("done", () => source.close());
    source.addEventListener("failure", () => source.close());
  });
</script>
"""
