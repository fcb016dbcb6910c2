/* The load generator: one thread, epoll, closed loop or a fixed rate, over loopback.
 *
 *   load FILE port connections seconds warm_s per_second requests_max first_s
 *
 * FILE holds the requests, sent in turn (made by traffic.py, little-endian):
 *   u32 length, u32 kind, u32 stamps, u32 advance; stamps x (u32 offset, u32 extra); the bytes.
 * kind 0  sent as it is
 *      1  at each offset 16 digits: microseconds at the time of sending
 *      2  at each offset 10 digits: first_s + n * advance + extra, n counts requests
 *      3  one block: at its offset `extra` 64-bit microseconds, moved on by (first_s + n * advance)
 *         seconds, and the CRC of the block, which begins 64 bytes before
 *
 * With a rate (per_second > 0) each request has a moment at which it is due, whether or not a
 * connection is free then, and its latency counts from that moment: a server that stalls cannot
 * hide it by keeping the generator waiting. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 20, EVENTS = 512, GRACE_S = 60, NAP_NS = 50000 };
typedef struct { uint32_t offset, extra; } Stamp;
typedef struct { uint32_t length, kind, stamps, advance; const Stamp *stamp; const char *bytes; } Request;
typedef struct {
    int fd, waits, asks_out;
    double due;
    char *out, *in;
    size_t out_at, out_end, in_end, in_max;
} Connection;

static Request *requests;
static size_t request_count, turn, longest;
static int epoll_fd, busy;
static long left, sent, failed, counted;
static double counting_from, ends, last, rate, next_due;
static int64_t first_s;
static char first_failure[512];
static uint32_t *latencies, crc_of[8][256]; /* latencies in units of 100 ns */
static size_t latency_max;

static void die(const char *what) { perror(what); exit(1); }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void *more(void *old, size_t bytes) {
    void *found = realloc(old, bytes);
    if (!found) die("memory");
    return found;
}

static void prepare_crc(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_of[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++)
            crc_of[t][i] = crc_of[0][crc_of[t - 1][i] & 255] ^ (crc_of[t - 1][i] >> 8);
}

static uint32_t crc32_more(uint32_t crc, const unsigned char *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) { /* eight bytes at a time: one would cost half a core */
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        a ^= crc;
        crc = crc_of[7][a & 255] ^ crc_of[6][a >> 8 & 255] ^ crc_of[5][a >> 16 & 255] ^ crc_of[4][a >> 24]
            ^ crc_of[3][b & 255] ^ crc_of[2][b >> 8 & 255] ^ crc_of[1][b >> 16 & 255] ^ crc_of[0][b >> 24];
    }
    for (; n; p++, n--) crc = crc_of[0][(crc ^ *p) & 255] ^ (crc >> 8);
    return crc;
}

static void digits(char *to, int count, int64_t value) {
    for (int i = count; i--; value /= 10) to[i] = '0' + value % 10;
}

static void stamp_block(char *block, int64_t seconds, uint32_t rows, size_t length) {
    unsigned char *raw = (unsigned char *)block;
    for (uint32_t i = 0; i < rows; i++) {
        int64_t t;
        memcpy(&t, raw + 64 + 8 * i, 8);
        t += seconds * 1000000;
        memcpy(raw + 64 + 8 * i, &t, 8);
    }
    uint32_t crc = ~crc32_more(crc32_more(~0u, raw, 60), raw + 64, length - 64);
    memcpy(raw + 60, &crc, 4);
}

static size_t make(char *out) {
    const Request *r = &requests[turn++ % request_count];
    int64_t seconds = first_s + (int64_t)(turn - 1) * r->advance;
    memcpy(out, r->bytes, r->length);
    if (r->kind == 1) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        for (uint32_t i = 0; i < r->stamps; i++)
            digits(out + r->stamp[i].offset, 16, t.tv_sec * 1000000LL + t.tv_nsec / 1000);
    } else if (r->kind == 2) {
        char text[10];
        for (uint32_t i = 0; i < r->stamps; i++) { /* most rows have the second of the row before */
            if (!i || r->stamp[i].extra != r->stamp[i - 1].extra) digits(text, 10, seconds + r->stamp[i].extra);
            memcpy(out + r->stamp[i].offset, text, 10);
        }
    } else if (r->kind == 3) {
        size_t begin = r->stamp[0].offset - 64;
        stamp_block(out + begin, seconds, r->stamp[0].extra, r->length - begin);
    }
    return r->length;
}

static void fail(const char *why, size_t length) {
    if (!failed++) snprintf(first_failure, sizeof first_failure, "%.*s", (int)(length < 400 ? length : 400), why);
}

static void watch(Connection *c, int out) {
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (c->asks_out != out && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e)) die("epoll_ctl");
    c->asks_out = out;
}

static void hang_up(Connection *c) {
    close(c->fd);
    c->fd = -1;
    if (c->waits) busy--;
    c->waits = 0;
}

static void push(Connection *c) {
    while (c->out_at < c->out_end) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_end - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (n < 0) { fail("the connection broke while sending", 34); hang_up(c); return; }
        c->out_at += n;
    }
    watch(c, c->out_at < c->out_end);
}

static void begin(Connection *c, double due) {
    left--;
    sent++;
    busy++;
    c->waits = 1;
    c->due = due;
    c->out_at = c->in_end = 0;
    c->out_end = make(c->out);
    push(c);
}

/* Returns the length of the whole answer, 0 while it is not there, or -1 if it cannot be read. */
static ssize_t answer_length(const Connection *c) {
    const char *end = memmem(c->in, c->in_end, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = end + 4 - c->in;
    if (!memcmp(c->in + 9, "204", 3)) return head;
    for (const char *line = memchr(c->in, '\n', head); line && line + 1 < end; line = memchr(line + 1, '\n', end - line))
        if (!strncasecmp(line + 1, "content-length:", 15)) {
            size_t whole = head + strtoul(line + 16, NULL, 10);
            return c->in_end >= whole ? (ssize_t)whole : 0;
        }
    return -1;
}

static void record(double now, double due) {
    if (now < counting_from || now > ends) return;
    if ((size_t)counted == latency_max) latencies = more(latencies, 4 * (latency_max = 2 * latency_max + 65536));
    latencies[counted++] = (now - due) * 1e7;
    last = now;
}

static void receive(Connection *c) {
    if (c->in_end + 65536 > c->in_max) c->in = more(c->in, c->in_max = 2 * c->in_max + 65536);
    ssize_t n = recv(c->fd, c->in + c->in_end, c->in_max - c->in_end - 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 || c->in_end > ANSWER_MAX) {
        if (c->waits) fail("the connection was closed before the answer came", 48);
        hang_up(c);
        return;
    }
    c->in_end += n;
    c->in[c->in_end] = 0;
    ssize_t whole = c->waits ? answer_length(c) : -1;
    if (!whole) return;
    if (whole < 0) { fail(c->in, c->in_end); hang_up(c); return; }
    double now = now_s();
    c->waits = 0;
    busy--;
    if (c->in[9] == '2') record(now, c->due);
    else fail(c->in, whole);
    if (rate <= 0 && left > 0 && now < ends) begin(c, now);
}

/* Sends what is due on connections that are free; returns nanoseconds until it should look again. */
static long send_due(Connection *all, int count, double now) {
    static int at;
    for (int seen = 0; next_due <= now && next_due < ends && left > 0 && seen < count; at = (at + 1) % count) {
        if (all[at].fd < 0 || all[at].waits) { seen++; continue; }
        seen = 0;
        begin(&all[at], next_due);
        next_due += 1 / rate;
    }
    double wait = (next_due - now) * 1e9;
    return wait < NAP_NS ? NAP_NS : wait > 1e7 ? 10000000 : (long)wait;
}

static void load_requests(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info)) die(path);
    char *all = more(NULL, info.st_size);
    for (ssize_t at = 0, n; at < info.st_size; at += n)
        if ((n = read(fd, all + at, info.st_size - at)) <= 0) die(path);
    close(fd);
    for (char *p = all; p < all + info.st_size;) {
        requests = more(requests, sizeof *requests * (request_count + 1));
        Request *r = &requests[request_count++];
        memcpy(r, p, 16);
        r->stamp = (const Stamp *)(p + 16);
        r->bytes = p + 16 + 8 * (size_t)r->stamps;
        p = (char *)r->bytes + (r->length + 7) / 8 * 8; /* padded, so that stamps stay aligned */
        if (r->length > longest) longest = r->length;
    }
}

static void connect_one(Connection *c, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->out = more(NULL, longest);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
}

static int wait_events(struct epoll_event *events, long ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    int n = syscall(SYS_epoll_pwait2, epoll_fd, events, EVENTS, &t, NULL, 0);
    if (n < 0 && errno == ENOSYS) n = epoll_wait(epoll_fd, events, EVENTS, (ns + 999999) / 1000000);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    return n < 0 ? 0 : n;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double at_share(double share) {
    return counted ? latencies[(size_t)((counted - 1) * share)] / 1e4 : 0;
}

static void report(double seconds) {
    qsort(latencies, counted, sizeof *latencies, by_size);
    printf("{\"requests\":%ld,\"sent\":%ld,\"seconds\":%.6f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f,"
           "\"failed\":%ld,\"first_failure\":\"", counted, sent, seconds, at_share(0.5), at_share(0.99), at_share(1), failed);
    for (const char *p = first_failure; *p; p++)
        if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else if (*p >= 32 && *p < 127) putchar(*p);
        else putchar(' ');
    printf("\"}\n");
}

int main(int argc, char **argv) {
    if (argc != 9) { fprintf(stderr, "load FILE port connections seconds warm_s per_second requests_max first_s\n"); return 2; }
    int count = atoi(argv[3]), gone = 0;
    double seconds = atof(argv[4]), warm = atof(argv[5]);
    rate = atof(argv[6]);
    left = atol(argv[7]);
    first_s = atoll(argv[8]);
    load_requests(argv[1]);
    prepare_crc();
    prctl(PR_SET_TIMERSLACK, 1);
    epoll_fd = epoll_create1(0);
    Connection *all = calloc(count, sizeof *all);
    if (!all || !request_count || epoll_fd < 0) die("start");
    for (int i = 0; i < count; i++) connect_one(&all[i], atoi(argv[2]));
    next_due = now_s();
    counting_from = last = next_due + warm;
    ends = counting_from + seconds;
    for (int i = 0; rate <= 0 && i < count && left > 0; i++) begin(&all[i], now_s());
    struct epoll_event events[EVENTS];
    for (double now = now_s(); now < ends + GRACE_S; now = now_s()) {
        long nap = rate > 0 && now < ends ? send_due(all, count, now) : 10000000;
        if (!busy && (now >= ends || left <= 0 || rate <= 0)) break;
        int n = wait_events(events, nap);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (c->fd >= 0 && events[i].events & EPOLLOUT) push(c);
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
    }
    for (int i = 0; i < count; i++) gone += all[i].waits;
    if (gone) fail("no answer within a minute", 25), failed += gone - 1;
    report((left <= 0 ? last : ends) - counting_from);
    return 0;
}
