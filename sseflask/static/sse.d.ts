/** What a stream sends, as an EventSource would dispatch it. */
export interface StreamEvent {
  /** The last id that the stream has sent; empty before the first. */
  id: string;
  /** `message` where the stream names none. */
  event: string;
  data: string;
}

/** What is wrong: the server's own error, or that of the connection (`connection_lost`). */
export interface StreamError {
  message: string;
  code?: string | null;
  type?: string;
  param?: string | null;
  /** The HTTP status, if the answer was no stream. */
  status?: number;
}

/** Events that can't be had any more. */
export interface Gap {
  reason: "trimmed" | "epoch" | "unknown" | string;
  [more: string]: unknown;
}

export interface Retry {
  /** Milliseconds until the stream is opened again. */
  delay: number;
  /** Why it ended; `undefined` for an end without an error. */
  cause?: StreamError;
  /** Where it goes on. */
  lastEventId: string;
}

export interface StreamOptions {
  /** `GET` unless said. Any other gets an `Idempotency-Key`, so that opening it again starts nothing twice. */
  method?: string;
  body?: BodyInit | null;
  /** Or a function that is called each time the stream is opened, such as for a fresh token. */
  headers?: HeadersInit | (() => HeadersInit | undefined | Promise<HeadersInit | undefined>);
  credentials?: RequestCredentials;
  /**
   * Where the run of an id is read: the stream is opened again with a GET there, and the request
   * that has begun the run is not repeated. For streams that name their run in `X-Run-Id`.
   */
  attach?: (runId: string) => string | URL;
  /** Where to begin. */
  lastEventId?: string;
  /** Milliseconds before it is opened again, until the server says another time. 1,000 unless said. */
  retry?: number;
  /** The event after which the stream is over: `done` unless said, `null` for none. */
  done?: string | null;
  signal?: AbortSignal;
  /** What makes the requests in the place of the global `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
  /** The stream is open, each time. */
  onOpen?(response: Response): void;
  onEvent?(event: StreamEvent): void;
  /** Events are missing before the next one. */
  onGap?(gap: Gap): void;
  /** It is over: the data of the last event, `undefined` if there was none. */
  onDone?(data: unknown): void;
  /** It is over, and opening it again would not help. */
  onFailure?(error: StreamError): void;
  onRetry?(retry: Retry): void;
}

/**
 * Reads a stream of Server-Sent Events until it is over.
 *
 * After whatever passes (the network, 408, 425, 429 and 5xx, a body that is cut short, silence of a
 * minute where heartbeats are sent) it is opened again with `Last-Event-ID`.
 *
 * @returns how it ended. Rejects only with what a callback or the request's own parameters threw.
 */
export function stream(
  url: string | URL,
  options?: StreamOptions,
): Promise<"done" | "failure" | "aborted">;
