/* The columns that JSON is taken apart into, and how they are found by their keys. Included by json.c alone. */
#ifndef DRIFTLOOP_COLUMNS_H
#define DRIFTLOOP_COLUMNS_H

#include "kernels.h"

/* What stands in a cell; `schemas.shredded` has the same list. */
enum { MISSING, IS_NULL, IS_FALSE, IS_TRUE, IS_WHOLE, IS_FRACTIONAL, IS_TEXT, IS_OTHER, IS_MAP };

/* `buffer` has n messages, each followed by a zero byte, up to `end`; behind that, 128 bytes more can be read.
   Columns have n cells each and lie `stride` cells apart; the first `num_maps` are the maps, whose keys the caller has
   put behind `end`. Keys and texts are places in the buffer. */
typedef struct {
    uint8_t *buffer;
    int64_t end, n, stride, capacity, num_maps;
    int64_t stops_when_full; /* instead of taking messages for unusual that would need more columns than `capacity` */
    uint64_t seed;           /* unknown to those who send keys, so that they cannot make all hashes alike */
    const uint64_t *powers;
    int64_t *start;     /* of each message, and of what would follow the last one */
    uint8_t *tags;      /* a cell's kind */
    double *slots;      /* its number (booleans 0 and 1, NaN if it is none), or an int64: where its text begins */
    int32_t *lengths;   /* of its text in bytes; NULL_LENGTH where it is missing or null, undefined for numbers */
    int64_t *key_start;
    int32_t *key_length;
    int32_t *owner;     /* the map that a column belongs to, -1 for fields of the event itself */
    uint32_t *kinds;    /* bit i is set if a cell is of kind i */
    uint8_t *is_usual;  /* of each message */
} Job;

/* Longer keys are found by their hash each time: a comparison may read as far beyond a message's end. */
#define GUESSED_LENGTH_MAX 64

typedef struct {
    uint64_t word[2], mask[2]; /* the key with its closing quote, up to 16 bytes of it */
    const uint8_t *key;
    int32_t key_length, owner;
    int32_t next;  /* the column that came after this one last time, and that came first in this map; -1: none */
    int32_t first;
    int64_t filled; /* cells below are written */
    uint8_t *tags;
    double *slots;
    int32_t *lengths;
    uint32_t kinds;
} Column;

typedef struct {
    Job *job;
    Column *columns;
    int32_t *table; /* open addressing by hash_key; -1: free */
    uint64_t table_mask;
    int64_t num_columns;
    int32_t first;
    int has_rolled_back, is_full;
} Shredder;

static inline uint64_t hash_key(const Shredder *s, const uint8_t *key, int64_t length, int32_t owner) {
    size_t looked_at = length < HASHED_LENGTH_MAX ? (size_t)length : HASHED_LENGTH_MAX;
    return hash_text(key, looked_at, s->job->seed + (uint64_t)length + ((uint64_t)(uint32_t)owner << 32));
}

static void prepare_guess(Column *column) {
    uint8_t start[16] = {0}, mask[16] = {0};
    for (int32_t i = 0; i <= column->key_length && i < 16; i++) {
        start[i] = i < column->key_length ? column->key[i] : '"';
        mask[i] = 0xFF;
    }
    memcpy(column->word, start, 16);
    memcpy(column->mask, mask, 16);
}

/* Tell whether the key at p, behind its opening quote, is that of the column. No key of a column has to be escaped. */
static inline int is_key(const Column *column, const uint8_t *p) {
    uint64_t differs = ((read64(p) ^ column->word[0]) & column->mask[0]) |
                       ((read64(p + 8) ^ column->word[1]) & column->mask[1]);
    if (differs) return 0;
    int32_t length = column->key_length;
    if (length < 16) return 1;
    return length <= GUESSED_LENGTH_MAX && p[length] == '"' && memcmp(p + 16, column->key + 16, (size_t)length - 16) == 0;
}

static int32_t add_column(Shredder *s, const uint8_t *key, int64_t length, int32_t owner, uint64_t slot) {
    Job *job = s->job;
    if (s->num_columns == job->capacity) {
        s->is_full = 1;
        return -1;
    }
    for (int64_t i = 0; i < length; i++)
        if (key[i] == '"' || key[i] == '\\' || key[i] < 0x20) return -1;
    int32_t index = (int32_t)s->num_columns++;
    Column *column = &s->columns[index];
    column->key = key;
    column->key_length = (int32_t)length;
    column->owner = owner;
    column->next = column->first = -1;
    column->filled = 0;
    column->kinds = 0;
    column->tags = job->tags + index * job->stride;
    column->slots = job->slots + index * job->stride;
    column->lengths = job->lengths + index * job->stride;
    prepare_guess(column);
    job->key_start[index] = key - job->buffer;
    job->key_length[index] = (int32_t)length;
    job->owner[index] = owner;
    s->table[slot] = index;
    return index;
}

/* Give the column of a key, a new one if need be; -1 if it can have none. */
static int32_t find_column(Shredder *s, const uint8_t *key, int64_t length, int32_t owner) {
    uint64_t slot = hash_key(s, key, length, owner) & s->table_mask;
    for (; s->table[slot] >= 0; slot = (slot + 1) & s->table_mask) {
        const Column *column = &s->columns[s->table[slot]];
        if (column->owner == owner && column->key_length == length && memcmp(column->key, key, (size_t)length) == 0)
            return s->table[slot];
    }
    return add_column(s, key, length, owner, slot);
}

static void fill_missing(Column *column, int64_t until) {
    double nothing = __builtin_nan("");
    memset(column->tags + column->filled, MISSING, (size_t)(until - column->filled));
    for (int64_t row = column->filled; row < until; row++) column->slots[row] = nothing;
    for (int64_t row = column->filled; row < until; row++) column->lengths[row] = NULL_LENGTH;
    column->filled = until;
    column->kinds |= 1u << MISSING;
}

/* Fill up all columns, and say what they hold. */
static void finish_columns(Shredder *s) {
    for (int64_t index = 0; index < s->num_columns; index++) {
        Column *column = &s->columns[index];
        if (s->has_rolled_back) {
            column->kinds = 0;
            for (int64_t row = 0; row < column->filled; row++) column->kinds |= 1u << column->tags[row];
        }
        /* Of a column without a single value nothing is written. */
        if (column->kinds & ~(1u << MISSING)) {
            if (column->filled < s->job->n) fill_missing(column, s->job->n);
        } else {
            column->kinds = 0;
        }
        s->job->kinds[index] = column->kinds;
    }
}

#endif
