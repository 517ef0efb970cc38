/* The physical limit: one thread, epoll and send(2), nothing between an event and the kernel.
 *
 * bare_c <port>
 *
 * /flood?count=               ready-made frames, as many bytes in a send as the kernel takes
 * /tick?rate=&count=          an event every 1/rate seconds, one send each
 * /counter?count=&interval=   the same with ids, the first one at once
 * /open                       one event, then silence
 * /relay                      the answer of the upstream at OPENAI_BASE_URL, byte for byte
 * /subscribe/<channel>        the events that are published, one send each
 * POST /publish/<channel>     the body is the data of an event
 * /healthz                    nothing, at once
 *
 * A connection serves one stream, or any number of other requests. A stream's next event is due one period after the round in
 * which it had the last, so the streams of one rate stay in the order in which they are due.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME 24 /* bytes of "data: flood 0000000000\n\n" */
#define BLOCK 2500 /* frames in a chunk of the flood; their numbers start again after BLOCKS */
#define BLOCKS 4
#define BLOCK_SIZE (6 + BLOCK * FRAME + 2)
#define UNSENT_MAX (1 << 20) /* a client this far behind is given up */
#define PUBLISHED_MAX (1 << 16) /* bytes of data in an event */

#define HEAD                                                                                      \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"           \
    "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
#define LAST_CHUNK "0\r\n\r\n"

enum kind {
    LISTENER,
    REQUEST,
    OPEN,
    FLOOD,
    TICK,
    SUBSCRIBER,
    RELAY,
    UPSTREAM_CONNECTING,
    UPSTREAM
};

TAILQ_HEAD(queue, connection);

struct connection {
    int fd;
    enum kind kind;
    uint32_t watched; /* what epoll looks for on the descriptor */
    bool closed, ending, with_id; /* ending: closed as soon as all is sent */
    char *unsent; /* what the kernel has not taken yet; the beginning of a request before that */
    size_t size;
    int64_t next, count; /* events sent and asked for; of a flood, bytes of whole blocks */
    int64_t due;
    struct rate *rate;
    struct channel *channel;
    struct connection *peer; /* the other side of a relay */
    TAILQ_ENTRY(connection) link; /* in a rate's queue, a channel's, or among the closed */
};

struct rate {
    int64_t period;
    struct queue waiting; /* the next one due first */
    struct rate *next;
};

struct channel {
    char name[64];
    struct queue subscribers;
    struct channel *next;
};

static int epoll;
static int64_t now;
static struct rate *rates;
static struct channel *channels;
static struct queue closed = TAILQ_HEAD_INITIALIZER(closed);
static struct sockaddr_in upstream = {.sin_family = AF_INET};
static char upstream_path[256];
static char blocks[BLOCKS * BLOCK_SIZE + 1];
static char scratch[1 << 16];

static void *checked(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static int check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static int64_t clock_ns(void)
{
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return moment.tv_sec * INT64_C(1000000000) + moment.tv_nsec;
}

static void watch(struct connection *c, int operation, uint32_t watched)
{
    struct epoll_event event = {.events = watched, .data.ptr = c};
    if (operation == EPOLL_CTL_MOD && c->watched == watched)
        return;
    c->watched = watched;
    check(epoll_ctl(epoll, operation, c->fd, &event), "epoll_ctl");
}

static struct connection *add(int fd, enum kind kind, uint32_t watched)
{
    struct connection *c = checked(calloc(1, sizeof *c));
    c->fd = fd;
    c->kind = kind;
    watch(c, EPOLL_CTL_ADD, watched);
    return c;
}

/* The memory is freed after the round: epoll may have reported both sides of a relay in one. */
static void drop(struct connection *c)
{
    if (c->closed)
        return;
    c->closed = true;
    if (c->rate)
        TAILQ_REMOVE(&c->rate->waiting, c, link);
    if (c->channel)
        TAILQ_REMOVE(&c->channel->subscribers, c, link);
    TAILQ_INSERT_TAIL(&closed, c, link);
    close(c->fd);
    if (c->peer)
        drop(c->peer);
}

static void free_closed(void)
{
    struct connection *c;
    while ((c = TAILQ_FIRST(&closed))) {
        TAILQ_REMOVE(&closed, c, link);
        free(c->unsent);
        free(c);
    }
}

static void keep(struct connection *c, const char *data, size_t size)
{
    if (c->size + size > UNSENT_MAX) {
        drop(c);
        return;
    }
    c->unsent = checked(realloc(c->unsent, c->size + size));
    memcpy(c->unsent + c->size, data, size);
    c->size += size;
}

/* Gives how much the kernel took; where it refuses the connection is dropped. */
static size_t transmit(struct connection *c, const char *data, size_t size)
{
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        drop(c);
    return sent < 0 ? 0 : (size_t)sent;
}

static void put(struct connection *c, const char *data, size_t size)
{
    size_t sent = c->size ? 0 : transmit(c, data, size);
    if (!c->closed && sent < size) {
        keep(c, data + sent, size - sent);
        if (c->closed)
            return;
        watch(c, EPOLL_CTL_MOD, c->watched | EPOLLOUT);
        if (c->peer) /* the upstream has to wait, or what the client does not read piles up here */
            watch(c->peer, EPOLL_CTL_MOD, 0);
    } else if (c->ending) {
        drop(c);
    }
}

static void send_unsent(struct connection *c)
{
    size_t sent = transmit(c, c->unsent, c->size);
    c->size -= sent;
    memmove(c->unsent, c->unsent + sent, c->size);
    if (c->closed || c->size)
        return;
    if (c->ending) {
        drop(c);
        return;
    }
    if (c->kind != FLOOD)
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP);
    if (c->peer)
        watch(c->peer, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP);
}

static void flood(struct connection *c, int64_t frames)
{
    size_t whole = (size_t)frames / BLOCK * BLOCK_SIZE, left = (size_t)frames % BLOCK;
    size_t at = (size_t)c->next % (BLOCKS * BLOCK_SIZE);
    size_t ready = BLOCKS * BLOCK_SIZE - at;
    if ((size_t)c->next < whole) {
        size_t rest = whole - (size_t)c->next;
        c->next += (int64_t)transmit(c, blocks + at, ready < rest ? ready : rest);
        return;
    }
    int size = left ? sprintf(scratch, "%zx\r\n", left * FRAME) : 0;
    memcpy(scratch + size, blocks + at + 6, left * FRAME);
    size += (int)(left * FRAME);
    size += sprintf(scratch + size, "%s" LAST_CHUNK, left ? "\r\n" : "");
    c->ending = true;
    put(c, scratch, (size_t)size);
}

static void tick(struct connection *c, struct rate *rate)
{
    char event[64], chunk[96];
    int length = sprintf(event, "data: %ld\n\n", (long)c->next);
    if (c->with_id)
        length = sprintf(event, "id: %ld\ndata: %ld\n\n", (long)c->next, (long)c->next);
    c->ending = ++c->next >= c->count;
    int size = sprintf(chunk, "%x\r\n%s\r\n%s", length, event, c->ending ? LAST_CHUNK : "");
    c->rate = c->ending ? NULL : rate;
    if (c->rate) {
        c->due = now + rate->period;
        TAILQ_INSERT_TAIL(&rate->waiting, c, link);
    }
    put(c, chunk, (size_t)size);
}

/* Sends what is due; gives the milliseconds until something is, -1 where nothing waits. */
static int send_due(void)
{
    int64_t next = INT64_MAX;
    for (struct rate *rate = rates; rate; rate = rate->next) {
        struct connection *c;
        while ((c = TAILQ_FIRST(&rate->waiting)) && c->due <= now) {
            TAILQ_REMOVE(&rate->waiting, c, link);
            tick(c, rate);
        }
        if (c && c->due < next)
            next = c->due;
    }
    return next == INT64_MAX ? -1 : (int)((next - now + 999999) / 1000000);
}

static struct rate *rate_of(double seconds)
{
    int64_t period = (int64_t)(seconds * 1e9);
    struct rate *rate = rates;
    while (rate && rate->period != period)
        rate = rate->next;
    if (!rate) {
        rate = checked(malloc(sizeof *rate));
        rate->period = period;
        TAILQ_INIT(&rate->waiting);
        rate->next = rates;
        rates = rate;
    }
    return rate;
}

static struct channel *channel_of(const char *name)
{
    struct channel *channel = channels;
    while (channel && strcmp(channel->name, name))
        channel = channel->next;
    if (!channel) {
        channel = checked(calloc(1, sizeof *channel));
        strncpy(channel->name, name, sizeof channel->name - 1);
        TAILQ_INIT(&channel->subscribers);
        channel->next = channels;
        channels = channel;
    }
    return channel;
}

static void publish(struct channel *channel, const char *data, size_t length)
{
    char chunk[PUBLISHED_MAX + 64];
    int size = sprintf(chunk, "%zx\r\ndata: %.*s\n\n\r\n", length + 8, (int)length, data);
    struct connection *c = TAILQ_FIRST(&channel->subscribers), *next;
    for (; c; c = next) {
        next = TAILQ_NEXT(c, link); /* one that is given up leaves the queue */
        put(c, chunk, (size_t)size);
    }
}

static void answer(struct connection *c, const char *status)
{
    int size = sprintf(scratch, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status);
    if (transmit(c, scratch, (size_t)size) < (size_t)size)
        drop(c);
}

static void refuse(struct connection *c, const char *status)
{
    int size = sprintf(
        scratch, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status);
    c->ending = true;
    put(c, scratch, (size_t)size);
}

static void no_upstream(struct connection *c)
{
    struct connection *client = c->peer;
    c->peer = client->peer = NULL;
    drop(c);
    refuse(client, "502 Bad Gateway");
}

static void call_upstream(struct connection *c)
{
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    int result = connect(fd, (struct sockaddr *)&upstream, sizeof upstream);
    bool failed = result < 0 && errno != EINPROGRESS;
    c->kind = RELAY;
    c->peer = add(fd, UPSTREAM_CONNECTING, EPOLLOUT);
    c->peer->peer = c;
    if (failed)
        no_upstream(c->peer);
}

static void ask_upstream(struct connection *c)
{
    static const char question[] = "{\"model\":\"scripted\",\"stream\":true,\"messages\":"
                                   "[{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0\xe5\xa5\xbd\"}]}";
    int size = sprintf(scratch,
                       "POST %s/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                       "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       upstream_path, ntohs(upstream.sin_port), sizeof question - 1, question);
    c->kind = UPSTREAM;
    watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP);
    /* A new connection takes these few bytes at once, or it has failed. */
    if (transmit(c, scratch, (size_t)size) < (size_t)size)
        drop(c);
}

static bool is(const char *target, const char *path)
{
    size_t length = strlen(path);
    return !strncmp(target, path, length) && (target[length] == '?' || !target[length]);
}

static double query(const char *target, const char *name)
{
    const char *found = strstr(target, name);
    return found ? atof(found + strlen(name)) : 0;
}

static void subscribe(struct connection *c, const char *name)
{
    c->kind = SUBSCRIBER;
    c->channel = channel_of(name);
    TAILQ_INSERT_TAIL(&c->channel->subscribers, c, link);
    put(c, HEAD, sizeof HEAD - 1);
}

static void take_publication(struct connection *c, const char *name, const char *data, size_t size)
{
    if (size > PUBLISHED_MAX) {
        refuse(c, "413 Content Too Large");
        return;
    }
    publish(channel_of(name), data, size);
    answer(c, "201 Created");
}

static const char *after(const char *target, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(target, prefix, length) ? NULL : target + length;
}

static void respond(struct connection *c, char *request, const char *body, size_t size)
{
    bool post = !strncmp(request, "POST ", 5);
    char *target = post || !strncmp(request, "GET ", 4) ? strtok(request + 4 + post, " \r") : "";
    const char *channel = after(target, post ? "/publish/" : "/subscribe/");
    bool counter = is(target, "/counter");
    double seconds = counter ? query(target, "interval=") : 1 / query(target, "rate=");
    c->count = (int64_t)query(target, "count=");
    if (post && channel) {
        take_publication(c, channel, body, size);
    } else if (post) {
        refuse(c, "404 Not Found");
    } else if (channel) {
        subscribe(c, channel);
    } else if (is(target, "/healthz")) {
        answer(c, "200 OK");
    } else if (is(target, "/relay")) {
        call_upstream(c);
    } else if (is(target, "/open")) {
        c->kind = OPEN;
        put(c, HEAD "9\r\ndata: 0\n\n\r\n", sizeof HEAD "9\r\ndata: 0\n\n\r\n" - 1);
    } else if (is(target, "/flood") && c->count >= 0) {
        c->kind = FLOOD;
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
        put(c, HEAD, sizeof HEAD - 1);
    } else if ((counter || is(target, "/tick")) && c->count > 0 && seconds > 0 && seconds < 1e6) {
        c->kind = TICK;
        c->with_id = counter;
        put(c, HEAD, sizeof HEAD - 1);
        if (c->closed)
            return;
        if (counter) {
            tick(c, rate_of(seconds));
        } else {
            c->rate = rate_of(seconds);
            c->due = now + c->rate->period;
            TAILQ_INSERT_TAIL(&c->rate->waiting, c, link);
        }
    } else {
        refuse(c, "404 Not Found");
    }
}

static void read_request(struct connection *c, const char *data, size_t size)
{
    keep(c, data, size);
    keep(c, "", 1);
    if (c->closed)
        return;
    c->size--;
    char *request = c->unsent;
    char *body = strstr(request, "\r\n\r\n");
    if (!body)
        return;
    body += 4;
    const char *field = strcasestr(request, "\r\nContent-Length:");
    size_t length = field && field < body ? strtoul(field + 17, NULL, 10) : 0;
    if (c->size - (size_t)(body - request) < length)
        return;
    c->unsent = NULL;
    c->size = 0;
    respond(c, request, body, length);
    free(request);
}

static void receive(struct connection *c)
{
    ssize_t size = recv(c->fd, scratch, sizeof scratch, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0)
        drop(c);
    else if (c->kind == REQUEST)
        read_request(c, scratch, (size_t)size);
    else if (c->kind == UPSTREAM)
        put(c->peer, scratch, (size_t)size);
    /* Else a client goes on talking: nobody listens. */
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        add(fd, REQUEST, EPOLLIN | EPOLLRDHUP);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        check(fd, "accept4");
}

static void handle(struct connection *c, uint32_t events)
{
    if (c->closed)
        return;
    if (c->kind == LISTENER)
        accept_all(c->fd);
    else if (c->kind == UPSTREAM_CONNECTING && events & EPOLLERR)
        no_upstream(c);
    else if (events & (EPOLLERR | EPOLLHUP))
        drop(c);
    else if (c->kind == UPSTREAM_CONNECTING)
        ask_upstream(c);
    else if (events & (EPOLLIN | EPOLLRDHUP))
        receive(c);
    else if (c->size)
        send_unsent(c);
    else if (c->kind == FLOOD)
        flood(c, c->count);
}

static void make_blocks(void)
{
    char *at = blocks;
    for (int frame = 0; frame < BLOCKS * BLOCK; frame++) {
        if (frame % BLOCK == 0)
            at += sprintf(at, "%x\r\n", BLOCK * FRAME);
        at += sprintf(at, "data: flood %010d\n\n", frame);
        if (frame % BLOCK == BLOCK - 1)
            at += sprintf(at, "\r\n");
    }
}

static void find_upstream(void)
{
    const char *url = getenv("OPENAI_BASE_URL");
    unsigned short port;
    if (!url)
        return;
    if (sscanf(url, "http://127.0.0.1:%hu%255s", &port, upstream_path) < 1) {
        fprintf(stderr, "OPENAI_BASE_URL: http://127.0.0.1:<port> is all that is understood\n");
        exit(1);
    }
    upstream.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    upstream.sin_port = htons(port);
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    check(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(fd, 4096), "listen");
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[512];
    if (argc != 2) {
        fprintf(stderr, "bare_c <port>\n");
        return 2;
    }
    make_blocks();
    find_upstream();
    epoll = check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    add(listen_on(atoi(argv[1])), LISTENER, EPOLLIN);
    for (;;) {
        now = clock_ns();
        int wait = send_due();
        free_closed();
        int count = epoll_wait(epoll, events, 512, wait);
        if (errno != EINTR)
            check(count, "epoll_wait");
        now = clock_ns();
        for (int index = 0; index < count; index++)
            handle(events[index].data.ptr, events[index].events);
        free_closed();
    }
}
