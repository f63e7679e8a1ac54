/* Takes JSON events apart into columns: one pass over the text of a batch, without an object for anything.

   What it takes is the usual event: an object of scalars, some of its fields (the maps) objects of scalars themselves.
   A value that is nested otherwise is checked, and left as a slice of the text. Whatever else there is makes a message
   unusual, which leaves no trace in the columns; that it is one is no judgement, another reader looks at it. What is
   taken is exactly what a strict JSON reader gives. */
#include <stdlib.h>

#include "columns.h"
#include "decimals.h"
#include "kernels.h"
#include "strings.h"

enum { NO_MEMORY = -1, WRONG_NUMBER = -2, IS_FULL = -3 };

/* Deeper values make a message unusual. */
#define DEPTH_MAX 32

static inline const uint8_t *skip_space(const uint8_t *p) {
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return p;
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
        if (found >= 0) finish_columns(&s);
    }
    free(s.columns);
    free(s.table);
    return found;
}
