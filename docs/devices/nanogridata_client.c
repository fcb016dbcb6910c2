/* Sends pressure readings to an Ocean Core box as Nanogridata frames, and loses none.
 *
 * One file of C99. Everything up to "The rim" needs nothing but a C compiler: no heap, no files, no
 * sockets, no clock. To use it in firmware keep that part and replace the rim: your network's
 * send and receive, your clock, your way of keeping the secret.
 *
 *     cc -std=c99 -Wall -Wextra -o nanogridata_client nanogridata_client.c
 *     ./nanogridata_client 192.168.1.20 5678 press-07 esp32.key 100
 *
 * sends 100 readings as device press-07, signed with the secret in esp32.key (hex or raw). Without a
 * secret (`-`) frames go at level 0: a checksum against accidents, no protection against forgery.
 *
 * How nothing is lost: the device asks for acknowledgements, keeps each frame until it is
 * acknowledged, and after a lost connection sends the same bytes again. The box knows frames that it
 * has already and answers "duplicate", which is as good as "stored".
 */

#define _POSIX_C_SOURCE 200112L

#include <stdint.h>
#include <stddef.h>
#include <string.h>

/* ------------------------------------------------------------------ SHA-256 (FIPS 180-4) ---- */

typedef struct {
    uint32_t state[8];
    uint64_t length;      /* bytes taken so far */
    uint8_t block[64];    /* what is not worked in yet */
} sha256_t;

static const uint32_t SHA256_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate_right(uint32_t word, unsigned bits)
{
    return (word >> bits) | (word << (32 - bits));
}

static void put32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void sha256_begin(sha256_t *hash)
{
    static const uint32_t start[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(hash->state, start, sizeof start);
    hash->length = 0;
}

static void sha256_work_in(sha256_t *hash)
{
    uint32_t w[64], v[8];
    int i;
    for (i = 0; i < 16; i++)
        w[i] = get32(hash->block + 4 * i);
    for (; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7]
             + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ (a >> 3))
             + (rotate_right(b, 17) ^ rotate_right(b, 19) ^ (b >> 10));
    }
    memcpy(v, hash->state, sizeof v);
    for (i = 0; i < 64; i++) {
        uint32_t s1 = rotate_right(v[4], 6) ^ rotate_right(v[4], 11) ^ rotate_right(v[4], 25);
        uint32_t chosen = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t one = v[7] + s1 + chosen + SHA256_K[i] + w[i];
        uint32_t s0 = rotate_right(v[0], 2) ^ rotate_right(v[0], 13) ^ rotate_right(v[0], 22);
        uint32_t most = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += one;
        v[0] = one + s0 + most;
    }
    for (i = 0; i < 8; i++)
        hash->state[i] += v[i];
}

static void sha256_add(sha256_t *hash, const uint8_t *data, size_t size)
{
    while (size-- > 0) {
        hash->block[hash->length++ % 64] = *data++;
        if (hash->length % 64 == 0)
            sha256_work_in(hash);
    }
}

static void sha256_end(sha256_t *hash, uint8_t digest[32])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = hash->length * 8;
    size_t used = (size_t)(hash->length % 64);
    uint8_t length[8];
    int i;
    put32(length, (uint32_t)(bits >> 32));
    put32(length + 4, (uint32_t)bits);
    sha256_add(hash, padding, used < 56 ? 56 - used : 120 - used);
    sha256_add(hash, length, 8);
    for (i = 0; i < 8; i++)
        put32(digest + 4 * i, hash->state[i]);
}

/* HMAC-SHA256 (RFC 2104): SHA-256((key ^ 5c..) || SHA-256((key ^ 36..) || data)). */
static void hmac_sha256(const uint8_t *secret, size_t secret_size,
                        const uint8_t *data, size_t size, uint8_t mac[32])
{
    sha256_t hash;
    uint8_t pad[64] = {0};
    int i;
    if (secret_size > sizeof pad) {
        sha256_begin(&hash);
        sha256_add(&hash, secret, secret_size);
        sha256_end(&hash, pad);
    } else {
        memcpy(pad, secret, secret_size);
    }
    for (i = 0; i < 64; i++)
        pad[i] ^= 0x36;
    sha256_begin(&hash);
    sha256_add(&hash, pad, sizeof pad);
    sha256_add(&hash, data, size);
    sha256_end(&hash, mac);
    for (i = 0; i < 64; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    sha256_begin(&hash);
    sha256_add(&hash, pad, sizeof pad);
    sha256_add(&hash, mac, 32);
    sha256_end(&hash, mac);
}

/* ------------------------------------------------------------------------- a frame ---------- */

enum {
    HEADER_BYTES = 14,
    NAME_BYTES_MAX = 64,
    CHECK_BYTES_MAX = 16,
    /* Header, two names with their lengths, time, pressure, check value. */
    FRAME_BYTES_MAX = HEADER_BYTES + 2 * (1 + NAME_BYTES_MAX) + 4 + 4 + CHECK_BYTES_MAX,
    MODEL_PRESSURE = 0x10,
    TELEMETRY = 1
};

typedef struct {
    const char *device_id;  /* 1 to 64 bytes of UTF-8 */
    const char *lab_id;     /* 0 to 64 */
    const uint8_t *secret;  /* NULL: level 0 */
    size_t secret_size;     /* 32 or more */
} device_t;

typedef struct {
    uint8_t bytes[FRAME_BYTES_MAX];
    size_t size;
    size_t check_at;        /* where the check value begins */
} frame_t;

/* CRC-16/IBM-3740, also called CCITT-FALSE. */
static uint16_t crc16(const uint8_t *data, size_t size)
{
    uint16_t crc = 0xFFFF;
    int bit;
    while (size-- > 0) {
        crc ^= (uint16_t)(*data++ << 8);
        for (bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t size = strlen(text);
    *at++ = (uint8_t)size;
    memcpy(at, text, size);
    return at + size;
}

/* Makes a frame. `now` (when it is made) and `measured` are seconds since 1970 UTC. Returns 0, or -1
 * for names that do not fit.
 *
 * Two frames that are equal in every byte count as one, sent twice. So a device that measures more
 * than once a second lets `measured` differ, or sends CBOR with several entries. */
static int make_pressure_frame(frame_t *frame, const device_t *device,
                               uint32_t now, uint32_t measured, uint32_t pascal)
{
    uint8_t *head = frame->bytes, *at = head + HEADER_BYTES;
    size_t name_size = strlen(device->device_id);
    if (name_size < 1 || name_size > NAME_BYTES_MAX || strlen(device->lab_id) > NAME_BYTES_MAX)
        return -1;
    at = put_text(at, device->device_id);
    at = put_text(at, device->lab_id);
    put32(at, measured);
    put32(at + 4, pascal);
    frame->check_at = (size_t)(at + 8 - head);

    put16(head, 0xC153);                                   /* magic */
    head[2] = 1;                                           /* version */
    head[3] = MODEL_PRESSURE;
    head[4] = TELEMETRY;
    head[5] = device->secret != NULL ? 1 : 0;              /* security level */
    put16(head + 6, (uint16_t)(frame->check_at - HEADER_BYTES));
    put32(head + 8, now);
    put16(head + 12, 0);                                   /* reserved */

    if (device->secret == NULL) {
        put16(head + frame->check_at, crc16(head, frame->check_at));
        frame->size = frame->check_at + 2;
    } else {
        uint8_t mac[32];
        hmac_sha256(device->secret, device->secret_size, head, frame->check_at, mac);
        memcpy(head + frame->check_at, mac, 16);           /* level 1 sends half of it */
        frame->size = frame->check_at + 16;
    }
    return 0;
}

/* ------------------------------------------------------------- what is under way ------------ */

/* Frames wait here, oldest first, until they are acknowledged. A device with flash keeps them there
 * and survives its own power cut, too. Frames older than an hour are refused by a box with default
 * settings (E_STALE): make them anew, with the time of now in the header and the old time inside. */
enum { WINDOW = 32, RECORD_BYTES = 12 };

static const uint8_t ASK[4] = {0xC1, 'A', 'C', 'K'};

typedef struct {
    frame_t frames[WINDOW];
    unsigned first, count;          /* a ring */
    uint8_t record[RECORD_BYTES];   /* an answer of which only a part has come */
    unsigned record_size;
    unsigned long stored, duplicates, refused;
    unsigned later_s;               /* the box asks to wait so long; 0: it does not */
    unsigned last_error;            /* its number for the last refused frame */
} window_t;

static frame_t *window_at(window_t *window, unsigned number)
{
    return &window->frames[(window->first + number) % WINDOW];
}

/* Returns the next free frame to be filled, NULL while all are under way. */
static frame_t *window_next(window_t *window)
{
    return window->count < WINDOW ? window_at(window, window->count) : NULL;
}

static void window_forget_oldest(window_t *window)
{
    window->first = (window->first + 1) % WINDOW;
    window->count--;
}

/* Takes one answer of 12 bytes:
 *   C1 41 | status | error | header time of the frame (4) | first 2 of its check value | wait (2) */
static int take_record(window_t *window, const uint8_t *record)
{
    const frame_t *oldest = window_at(window, 0);
    if (record[0] != 0xC1 || record[1] != 0x41)
        return -1;                              /* no acknowledgement: connect anew */
    if (window->count == 0 || memcmp(record + 4, oldest->bytes + 8, 4) != 0
        || memcmp(record + 8, oldest->bytes + oldest->check_at, 2) != 0)
        return 0;                               /* about bytes in between: not about a frame */
    switch (record[2]) {
    case 0:
        window->stored++;
        break;
    case 1:
        window->duplicates++;                   /* it was stored before: as good */
        break;
    case 2:
        window->refused++;                      /* sent again unchanged it will be refused again */
        window->last_error = record[3];
        break;
    default:
        /* Not now. All that is behind it is sent again with it, so that the order stays. */
        window->later_s = (unsigned)record[10] << 8 | record[11];
        if (window->later_s == 0)
            window->later_s = 1;
        return 1;
    }
    window_forget_oldest(window);
    return 0;
}

/* Takes what came from the box, in whatever pieces. Returns 0; 1 if it is to be left alone for
 * `later_s` seconds; -1 if this is no acknowledgement. After 1 and -1 connect anew. */
static int window_answers(window_t *window, const uint8_t *data, size_t size)
{
    while (size-- > 0) {
        window->record[window->record_size++] = *data++;
        if (window->record_size == RECORD_BYTES) {
            int result = take_record(window, window->record);
            window->record_size = 0;
            if (result != 0)
                return result;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------------- the rim ---------- */

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { ANSWER_WITHIN_S = 15, SEND_WITHIN_S = 15, PAUSE_MAX_MS = 2000, SECRET_BYTES_MAX = 1024 };

static int connect_to(const char *host, const char *port)
{
    struct addrinfo wanted, *found, *one;
    struct timeval patience = {SEND_WITHIN_S, 0};
    int handle = -1;
    memset(&wanted, 0, sizeof wanted);
    wanted.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &wanted, &found) != 0)
        return -1;
    for (one = found; one != NULL && handle < 0; one = one->ai_next) {
        handle = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (handle >= 0 && connect(handle, one->ai_addr, one->ai_addrlen) != 0) {
            close(handle);
            handle = -1;
        }
    }
    freeaddrinfo(found);
    if (handle >= 0)
        setsockopt(handle, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return handle;
}

static int send_all(int handle, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(handle, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* Waits for answers, at most `seconds`. Returns how many bytes came, 0 for none in time, -1 if the
 * connection is lost. */
static int receive_some(int handle, uint8_t *data, size_t size, int seconds)
{
    struct timeval patience;
    fd_set readable;
    ssize_t came;
    patience.tv_sec = seconds;
    patience.tv_usec = 0;
    FD_ZERO(&readable);
    FD_SET(handle, &readable);
    if (select(handle + 1, &readable, NULL, NULL, &patience) <= 0)
        return 0;
    came = recv(handle, data, size, 0);
    return came > 0 ? (int)came : -1;
}

static void pause_ms(unsigned milliseconds)
{
    struct timeval pause;
    pause.tv_sec = milliseconds / 1000;
    pause.tv_usec = (long)(milliseconds % 1000) * 1000;
    select(0, NULL, NULL, NULL, &pause);
}

/* Reads a secret, hex or raw, and returns its size; 0 if there is none that will do. */
static size_t read_secret(const char *path, uint8_t secret[SECRET_BYTES_MAX])
{
    uint8_t text[2 * SECRET_BYTES_MAX + 2];
    size_t size, digits = 0, i;
    int is_hex = 1;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    size = fread(text, 1, sizeof text, file);
    fclose(file);
    for (i = 0; i < size && is_hex; i++) {
        if (strchr("0123456789abcdefABCDEF", text[i]) != NULL && text[i] != 0)
            text[digits++] = text[i];           /* behind i or at it: what was read is not needed */
        else if (strchr(" \t\r\n", text[i]) == NULL || text[i] == 0)
            is_hex = 0;
    }
    if (is_hex && digits % 2 != 0)
        return 0;                               /* a digit was lost on the way */
    if (is_hex && digits % 2 == 0 && digits / 2 <= SECRET_BYTES_MAX) {
        for (i = 0; i < digits / 2; i++) {
            char pair[3] = {0, 0, 0};
            memcpy(pair, text + 2 * i, 2);
            secret[i] = (uint8_t)strtoul(pair, NULL, 16);
        }
        size = digits / 2;
    } else {
        /* Raw: read once more, since collecting digits has moved some. */
        file = fopen(path, "rb");
        if (file == NULL)
            return 0;
        size = fread(secret, 1, SECRET_BYTES_MAX, file);
        fclose(file);
    }
    return size >= 32 ? size : 0;
}

/* A stand-in for the sensor: around normal pressure, another value each time. */
static uint32_t measure(unsigned long number)
{
    return (uint32_t)(101325 + (number * 37) % 1000);
}

/* Connects, asks for acknowledgements, and sends again what was not answered. */
static int begin_connection(window_t *window, const char *host, const char *port)
{
    unsigned number;
    int handle = connect_to(host, port);
    if (handle < 0)
        return -1;
    window->record_size = 0;
    if (send_all(handle, ASK, sizeof ASK) != 0) {
        close(handle);
        return -1;
    }
    for (number = 0; number < window->count; number++) {
        const frame_t *frame = window_at(window, number);
        if (send_all(handle, frame->bytes, frame->size) != 0) {
            close(handle);
            return -1;
        }
    }
    return handle;
}

/* Sends until all is answered or the connection is lost. Returns 0 when all is answered, -1 when it
 * is lost, 1 when the box asked to wait. */
static int use_connection(window_t *window, int handle, const device_t *device,
                          unsigned long readings, unsigned long *made, uint32_t first_measured)
{
    uint8_t answers[WINDOW * RECORD_BYTES];
    while (*made < readings || window->count > 0) {
        frame_t *frame;
        int came, result;
        while (*made < readings && (frame = window_next(window)) != NULL) {
            uint32_t now = (uint32_t)time(NULL);
            /* One reading a second, up to now: this example has collected them. */
            make_pressure_frame(frame, device, now, first_measured + (uint32_t)*made,
                                measure(*made));
            window->count++;
            (*made)++;
            if (send_all(handle, frame->bytes, frame->size) != 0)
                return -1;
        }
        came = receive_some(handle, answers, sizeof answers, ANSWER_WITHIN_S);
        if (came <= 0)
            return -1;
        result = window_answers(window, answers, (size_t)came);
        if (result != 0)
            return result;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static window_t window;
    static uint8_t secret[SECRET_BYTES_MAX];
    device_t device = {NULL, "lab-1", NULL, 0};
    unsigned long readings, made = 0, connections = 0;
    unsigned pause = 50;
    int is_told = 0;
    uint32_t first_measured;
    frame_t trial;

    if (argc != 6) {
        fprintf(stderr, "usage: %s HOST PORT DEVICE-ID SECRET-FILE|- READINGS\n", argv[0]);
        return 2;
    }
    device.device_id = argv[3];
    if (strcmp(argv[4], "-") != 0) {
        device.secret_size = read_secret(argv[4], secret);
        device.secret = secret;
        if (device.secret_size == 0) {
            fprintf(stderr, "%s: no secret of 32 bytes or more, hex or raw\n", argv[4]);
            return 2;
        }
    }
    readings = strtoul(argv[5], NULL, 10);
    first_measured = (uint32_t)time(NULL) - (uint32_t)readings;
    if (make_pressure_frame(&trial, &device, 0, 0, 0) != 0) {
        fprintf(stderr, "%s: a device id has 1 to %d bytes\n", argv[3], (int)NAME_BYTES_MAX);
        return 2;
    }
    while (made < readings || window.count > 0) {
        unsigned long answered = window.stored + window.duplicates + window.refused;
        int handle = begin_connection(&window, argv[1], argv[2]), result = -1;
        if (handle < 0 && !is_told) {
            fprintf(stderr, "waiting for %s:%s\n", argv[1], argv[2]);
            is_told = 1;                        /* once for each time that it is away */
        }
        if (handle >= 0) {
            connections++;
            is_told = 0;
            result = use_connection(&window, handle, &device, readings, &made, first_measured);
            close(handle);
        }
        if (window.stored + window.duplicates + window.refused > answered)
            pause = 50;                         /* it worked for a while */
        if (result > 0)
            pause_ms(1000 * window.later_s);
        if (result < 0) {
            pause_ms(pause);
            pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
        }
    }
    printf("%lu stored, %lu duplicates, %lu refused, %lu connections\n",
           window.stored, window.duplicates, window.refused, connections);
    if (window.refused > 0)
        printf("last error: number %u of the table in nanogridata.md, section 7\n",
               window.last_error);
    return window.refused > 0 ? 1 : 0;
}
