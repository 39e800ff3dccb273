/* compact.c: every CHUNK rows are kept column by column: either the distinct values, by their bits,
 * and for each row the number of its own in as many bits as such a number needs; or, where few
 * repeat, the values as they are. The rows since the last full chunk wait as they came.
 *
 * Each chunk has its own values: what changes slowly (an item's click rate) repeats within a chunk
 * and not beyond, and a chunk is never looked at again once it is written. Deliberately nothing
 * that must be read from its beginning, as runs or differences: training reads a list here, a list
 * there. */
#include "moe/data/compact.h"
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include "base/heap.h"

enum { CHUNK = 16384, SLOTS = 2 * CHUNK, RAW = 32 };

struct stream {
    uint32_t at;   /* of the chunk's bytes: where the values stand, the rows' numbers behind them */
    uint16_t n;    /* distinct values */
    uint16_t bits; /* of a row's number, 0 with one value; RAW: the values are the rows' */
};
struct chunk {
    struct stream *columns; /* [columns] and the bytes behind, one block */
    uint8_t *bytes;
};
struct moe_compact {
    int columns, n_chunks, cap, n_tail;
    struct chunk *chunks; /* [n_chunks] */
    float *tail;          /* [CHUNK x columns] the first n_tail of them */
    size_t bytes;
    /* scratch of a column that is being written */
    uint32_t *values;  /* [CHUNK] distinct */
    uint16_t *numbers; /* [CHUNK] of the rows */
    uint16_t *slots;   /* [SLOTS] 1 + number of a value, by its hash; 0: none */
    uint8_t *out;
    size_t out_n;
};

struct moe_compact *moe_compact_new(int columns) {
    struct moe_compact *c = HEAP_NEW(struct moe_compact);
    c->columns = columns;
    c->tail = HEAP_ARRAY(float, (size_t)CHUNK *(size_t)columns + 1);
    c->values = HEAP_ARRAY(uint32_t, CHUNK);
    c->numbers = HEAP_ARRAY(uint16_t, CHUNK);
    c->slots = HEAP_ARRAY(uint16_t, SLOTS);
    return c;
}

void moe_compact_free(struct moe_compact *c) {
    if (!c)
        return;
    for (int i = 0; i < c->n_chunks; i++)
        heap_free(c->chunks[i].columns);
    void *all[] = {c->chunks, c->tail, c->values, c->numbers, c->slots, c->out, c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

size_t moe_compact_bytes(const struct moe_compact *c) {
    return c->bytes + (size_t)c->n_tail * (size_t)c->columns * sizeof(float);
}

/* ---- writing ---- */

static uint32_t bits_at(const struct moe_compact *c, int row, int column) {
    uint32_t bits;
    memcpy(&bits, &c->tail[(size_t)row * (size_t)c->columns + (size_t)column], sizeof bits);
    return bits;
}

/* Numbers the column's values as they come; how many there are, or 0: too many to gain by it. */
static int number_values(struct moe_compact *c, int column) {
    int n = 0;
    memset(c->slots, 0, SLOTS * sizeof *c->slots);
    for (int r = 0; r < CHUNK; r++) {
        const uint32_t bits = bits_at(c, r, column);
        uint32_t slot = (bits * 2654435761u) >> 17; /* 15 bits: SLOTS */
        while (c->slots[slot] && c->values[c->slots[slot] - 1] != bits)
            slot = (slot + 1) % SLOTS;
        if (!c->slots[slot]) {
            if (n == CHUNK / 4)
                return 0;
            c->values[n++] = bits;
            c->slots[slot] = (uint16_t)n;
        }
        c->numbers[r] = (uint16_t)(c->slots[slot] - 1);
    }
    return n;
}

static void *put(struct moe_compact *c, const void *from, size_t n) {
    uint8_t *to = c->out + c->out_n;
    if (from)
        memcpy(to, from, n);
    else
        memset(to, 0, n);
    c->out_n += n;
    return to;
}

/* Least number first, in runs of `bits`, from the low end of each byte. */
static void put_numbers(struct moe_compact *c, int bits) {
    uint8_t *to = put(c, NULL, (size_t)CHUNK * (size_t)bits / 8);
    uint64_t waiting = 0;
    int n = 0;
    for (int r = 0; r < CHUNK; r++) {
        waiting |= (uint64_t)c->numbers[r] << n;
        for (n += bits; n >= 8; n -= 8, waiting >>= 8)
            *to++ = (uint8_t)waiting;
    }
}

static struct stream put_column(struct moe_compact *c, int column) {
    const int n = number_values(c, column);
    struct stream s = {.at = (uint32_t)c->out_n, .n = (uint16_t)n};
    if (n == 0) {
        s.bits = RAW;
        for (int r = 0; r < CHUNK; r++) {
            const uint32_t bits = bits_at(c, r, column);
            put(c, &bits, sizeof bits);
        }
        return s;
    }
    while (1 << s.bits < n)
        s.bits++;
    put(c, c->values, (size_t)n * sizeof *c->values);
    put_numbers(c, s.bits);
    return s;
}

/* The tail becomes a chunk. */
static void close_chunk(struct moe_compact *c) {
    const size_t head = (size_t)c->columns * sizeof(struct stream);
    if (c->n_chunks == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 16;
        c->chunks = heap_grow(c->chunks, (size_t)c->cap * sizeof *c->chunks);
    }
    if (!c->out) /* a byte more than all values as they are: what is read ends within it */
        c->out = heap_alloc(head + (size_t)CHUNK * (size_t)c->columns * sizeof(float) + 4);
    struct stream *streams = (struct stream *)(void *)c->out;
    c->out_n = head;
    for (int k = 0; k < c->columns; k++)
        streams[k] = put_column(c, k);
    put(c, NULL, 4); /* a number is read as four bytes */
    struct chunk *to = &c->chunks[c->n_chunks++];
    to->columns = memcpy(heap_alloc(c->out_n), c->out, c->out_n);
    to->bytes = (uint8_t *)to->columns;
    c->bytes += c->out_n;
    c->n_tail = 0;
}

void moe_compact_add(struct moe_compact *c, const float *rows, int n) {
    while (n > 0) {
        const int room = CHUNK - c->n_tail, take = n < room ? n : room;
        const size_t columns = (size_t)c->columns, floats = (size_t)take * columns;
        if (floats)
            memcpy(c->tail + (size_t)c->n_tail * columns, rows, floats * sizeof *rows);
        c->n_tail += take;
        n -= take;
        rows += floats;
        if (c->n_tail == CHUNK)
            close_chunk(c);
    }
}

/* ---- reading ---- */

/* Rows [row, row + n) of one column of a chunk, `step` floats apart. */
static void read_column(const uint8_t *bytes, struct stream s, int row, int n, int step,
                        float *out) {
    const uint8_t *values = bytes + s.at, *numbers = values + (size_t)s.n * sizeof(float);
    if (s.bits == RAW) {
        for (int r = 0; r < n; r++)
            memcpy(out + (size_t)r * (size_t)step, values + (size_t)(row + r) * sizeof *out,
                   sizeof *out);
        return;
    }
    const uint32_t mask = (1u << s.bits) - 1;
    size_t bit = (size_t)row * s.bits;
    for (int r = 0; r < n; r++, bit += s.bits) {
        uint32_t word;
        memcpy(&word, numbers + bit / 8, sizeof word);
        memcpy(out + (size_t)r * (size_t)step,
               values + (size_t)((word >> bit % 8) & mask) * sizeof *out, sizeof *out);
    }
}

void moe_compact_read(const struct moe_compact *c, int row, int n, int column, int width,
                      float *out) {
    assert(row + n <= c->n_chunks * CHUNK + c->n_tail && column + width <= c->columns);
    while (n > 0 && width > 0) {
        const int chunk = row / CHUNK, at = row % CHUNK, take = n < CHUNK - at ? n : CHUNK - at;
        for (int r = 0; r < take && chunk == c->n_chunks; r++)
            memcpy(out + (size_t)r * (size_t)width,
                   c->tail + (size_t)(at + r) * (size_t)c->columns + (size_t)column,
                   (size_t)width * sizeof *out);
        for (int k = 0; k < width && chunk < c->n_chunks; k++)
            read_column(c->chunks[chunk].bytes, c->chunks[chunk].columns[column + k], at, take,
                        width, out + k);
        row += take;
        n -= take;
        out += (size_t)take * (size_t)width;
    }
}
