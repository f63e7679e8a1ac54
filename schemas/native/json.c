/* Takes JSON events apart into columns: one pass over the text of a batch, without an object for anything.

   What it takes is the usual event: an object of scalars, some of its fields (the maps) objects of scalars themselves.
   A value that is nested otherwise is checked, and left as a slice of the text. Whatever else there is makes a message
   unusual, which leaves no trace in the columns; that it is one is no judgement, another reader looks at it. What is
   taken is exactly what a strict JSON reader gives. */
#include <stdlib.h>

#include "decimals.h"
#include "kernels.h"
#include "strings.h"

/* What stands in a cell; `schemas.shredded` has the same list. */
enum { MISSING, IS_NULL, IS_FALSE, IS_TRUE, IS_WHOLE, IS_FRACTIONAL, IS_TEXT, IS_OTHER, IS_MAP };

/* `buffer` has n messages, each followed by a zero byte, up to `end`; behind that, 128 bytes more can be read.
   Columns have n cells each and lie `stride` cells apart; the first `num_maps` are the maps, whose keys the caller has
   put behind `end`. Keys and texts are places in the buffer. */
typedef struct {
    uint8_t *buffer;
    int64_t end, n, stride, capacity, num_maps;
    int64_t stops_when_full; /* instead of taking messages for unusual that would need more columns than `capacity` */
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

enum { NO_MEMORY = -1, WRONG_NUMBER = -2, IS_FULL = -3 };

/* Longer keys are found by their hash each time: a comparison may read as far beyond a message's end. */
#define GUESSED_LENGTH_MAX 64
/* Deeper values make a message unusual. */
#define DEPTH_MAX 32

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

static inline const uint8_t *skip_space(const uint8_t *p) {
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return p;
}

static inline uint64_t hash_key(const uint8_t *key, int64_t length, int32_t owner) {
    size_t looked_at = length < HASHED_LENGTH_MAX ? (size_t)length : HASHED_LENGTH_MAX;
    return hash_text(key, looked_at, (uint64_t)length + ((uint64_t)(uint32_t)owner << 32));
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
    uint64_t slot = hash_key(key, length, owner) & s->table_mask;
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

/* Check a nested value and give what is behind it, NULL if it is no JSON. */
static const uint8_t *skip_value(const uint8_t *p, int depth, const uint64_t *powers) {
    int64_t length;
    double number;
    switch (*p) {
    case '"':
        return read_string((uint8_t *)p + 1, 0, &length);
    case 't':
        return read32(p) == read32((const uint8_t *)"true") ? p + 4 : NULL;
    case 'f':
        return read32(p + 1) == read32((const uint8_t *)"alse") ? p + 5 : NULL;
    case 'n':
        return read32(p) == read32((const uint8_t *)"null") ? p + 4 : NULL;
    case '[':
    case '{': {
        uint8_t closing = *p == '[' ? ']' : '}';
        if (depth == 0) return NULL;
        p = skip_space(p + 1);
        if (*p == closing) return p + 1;
        for (;;) {
            if (closing == '}') {
                if (*p != '"' || !(p = read_string((uint8_t *)p + 1, 0, &length))) return NULL;
                p = skip_space(p);
                if (*p++ != ':') return NULL;
                p = skip_space(p);
            }
            p = skip_value(p, depth - 1, powers);
            if (!p) return NULL;
            p = skip_space(p);
            if (*p == closing) return p + 1;
            if (*p++ != ',') return NULL;
            p = skip_space(p);
        }
    }
    default:
        return read_number(&p, powers, &number) == NO_NUMBER ? NULL : p;
    }
}

static const uint8_t *read_members(Shredder *s, const uint8_t *p, int32_t owner, int64_t row);

/* Read one value into a column's cell; give what is behind it, NULL if it makes the message unusual. */
static inline const uint8_t *read_value(Shredder *s, const uint8_t *p, int32_t index, int64_t row) {
    Column *column = &s->columns[index];
    int64_t begin = p - s->job->buffer, length;
    const uint8_t *start = p;
    double number = __builtin_nan("");
    uint8_t kind;
    switch (*p) {
    case '"':
        p = read_string((uint8_t *)p + 1, 1, &length);
        if (!p) return NULL;
        begin++;
        memcpy(&number, &begin, 8);
        column->lengths[row] = (int32_t)length;
        kind = IS_TEXT;
        break;
    case 't':
        if (read32(p) != read32((const uint8_t *)"true")) return NULL;
        kind = IS_TRUE;
        number = 1.0;
        p += 4;
        break;
    case 'f':
        if (read32(p + 1) != read32((const uint8_t *)"alse")) return NULL;
        kind = IS_FALSE;
        number = 0.0;
        p += 5;
        break;
    case 'n':
        if (read32(p) != read32((const uint8_t *)"null")) return NULL;
        kind = IS_NULL;
        column->lengths[row] = NULL_LENGTH;
        p += 4;
        break;
    case '{':
        if (index < s->job->num_maps) {
            kind = IS_MAP;
            column->lengths[row] = NULL_LENGTH;
            p = read_members(s, p, index, row);
            if (!p) return NULL;
            break;
        }
        /* fall through */
    case '[':
        p = skip_value(p, DEPTH_MAX, s->job->powers);
        if (!p) return NULL;
        kind = IS_OTHER;
        memcpy(&number, &begin, 8);
        column->lengths[row] = (int32_t)(p - start);
        break;
    default: {
        NumberForm form = read_number(&p, s->job->powers, &number);
        if (form == NO_NUMBER) return NULL;
        kind = form == WHOLE ? IS_WHOLE : IS_FRACTIONAL;
        if (form == BEYOND) {
            kind = IS_OTHER;
            memcpy(&number, &begin, 8);
            column->lengths[row] = (int32_t)(p - start);
        }
    }
    }
    column->slots[row] = number;
    column->tags[row] = kind;
    column->kinds |= 1u << kind;
    return p;
}

/* Read an object of the event's own fields, or of a map's; give what is behind it, NULL if it is unusual. */
static const uint8_t *read_members(Shredder *s, const uint8_t *p, int32_t owner, int64_t row) {
    /* Events mostly have their keys in the order of the one before. */
    int32_t *guess = owner < 0 ? &s->first : &s->columns[owner].first;
    p = skip_space(p + 1);
    if (*p == '}') return p + 1;
    for (;;) {
        int32_t index = *guess;
        if (*p != '"') return NULL;
        if (index >= 0 && is_key(&s->columns[index], p + 1)) {
            p += s->columns[index].key_length + 2;
        } else {
            uint8_t *key = (uint8_t *)p + 1;
            int64_t length;
            p = read_string(key, 1, &length);
            if (!p || (index = find_column(s, key, length, owner)) < 0) return NULL;
            *guess = index;
        }
        Column *column = &s->columns[index];
        guess = &column->next;
        if (*p != ':') p = skip_space(p);
        if (*p++ != ':') return NULL;
        p = skip_space(p);
        if (column->filled != row) {
            if (column->filled > row) return NULL; /* the key came twice */
            fill_missing(column, row);
        }
        column->filled = row + 1;
        p = read_value(s, p, index, row);
        if (!p) return NULL;
        p = skip_space(p);
        if (*p == '}') return p + 1;
        if (*p++ != ',') return NULL;
        p = skip_space(p);
    }
}

/* Give where the message ends if it is usual, NULL if not. */
static const uint8_t *read_event(Shredder *s, const uint8_t *p, int64_t row) {
    p = skip_space(p);
    if (*p == '{' && (p = read_members(s, p, -1, row)) && *(p = skip_space(p)) == 0) return p;
    for (int64_t index = 0; index < s->num_columns; index++)
        if (s->columns[index].filled > row) s->columns[index].filled = row;
    s->has_rolled_back = 1;
    return NULL;
}

/* Read all messages; there are more or less than n where one has a zero byte within, or is empty. */
static int64_t read_events(Shredder *s) {
    Job *job = s->job;
    const uint8_t *p = job->buffer, *end = job->buffer + job->end;
    for (int64_t row = 0; row < job->n; row++) {
        if (p >= end) return WRONG_NUMBER;
        job->start[row] = p - job->buffer;
        const uint8_t *behind = read_event(s, p, row);
        job->is_usual[row] = behind != NULL;
        if (s->is_full && job->stops_when_full) return IS_FULL;
        if (!behind) behind = memchr(p, 0, (size_t)(end - p));
        p = behind + 1;
    }
    job->start[job->n] = p - job->buffer;
    return p == end ? s->num_columns : WRONG_NUMBER;
}

static void finish(Shredder *s) {
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

/* Give the number of columns, or why there are none. `capacity` is below 2^20. */
EXPORT int64_t shred_json(Job *job) {
    uint64_t table_size = 64;
    while (table_size < 2 * (uint64_t)job->capacity) table_size *= 2;
    Shredder s = {.job = job, .table_mask = table_size - 1, .first = -1};
    s.columns = malloc((size_t)job->capacity * sizeof(Column));
    s.table = malloc(table_size * sizeof(int32_t));
    int64_t found = NO_MEMORY;
    if (s.columns && s.table) {
        memset(s.table, 0xff, table_size * sizeof(int32_t));
        for (int64_t map = 0; map < job->num_maps; map++)
            find_column(&s, job->buffer + job->key_start[map], job->key_length[map], -1);
        found = read_events(&s);
        if (found >= 0) finish(&s);
    }
    free(s.columns);
    free(s.table);
    return found;
}
