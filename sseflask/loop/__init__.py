"""Threads, greenlets and the event loop: one rule for which code runs where.

1. Under gevent the main thread runs the event loop (gevent's hub) and the greenlets of requests.
   Subscribers are served there. Elsewhere each request has a thread, and there is no event loop.
2. What could hold the event loop up (SQLite, files) runs in a native thread: one for each store.
   Such a thread may block. It calls nothing of gevent, and no code of others but by rule 3. What
   waits for a network only, such as a store on Redis, has no native thread: greenlets of the main
   thread do it. Their sockets belong to its loop.
3. A native thread hands results and news over by `EventLoop.call_soon_threadsafe`. A function that
   is called in the event loop neither blocks nor switches. Without gevent it is called at once.
4. A greenlet may switch wherever it blocks or gives way (`TimeSlice`, `yield_to_loop`). It waits
   for a native thread with `wait_for_callback` or `wait_for_event`, never with a native lock.
5. What may switch but must not overlap, such as writing to many sockets, is a job of one greenlet:
   `SerialExecutor`.
6. A native lock (`native.lock`, `native.rlock`) is held for a few statements that neither block nor
   switch, by whatever thread. A lock of `threading` may be held while its owner blocks.
7. Other threads, such as gevent's pool, may use everything public: their calls wait by rule 4.
"""
