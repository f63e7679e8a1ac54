/* Strings of JSON: where they end, whether they are valid UTF-8, and their escapes resolved. Included by json.c alone.

   A byte below 0x20 ends every loop here: there is one behind each message, and none is allowed within a string. */
#ifndef DRIFTLOOP_STRINGS_H
#define DRIFTLOOP_STRINGS_H

#include "kernels.h"

#define EACH_BYTE 0x0101010101010101ULL

/* Give the first byte at or behind p that is a quote, a backslash, below 0x20 or above 0x7F; 8 bytes at a time. */
static inline const uint8_t *skip_plain(const uint8_t *p) {
    for (;; p += 8) {
        uint64_t x = read64(p);
        uint64_t quote = x ^ (EACH_BYTE * '"'), backslash = x ^ (EACH_BYTE * '\\');
        /* The lowest byte that is marked is marked right; above it borrows may lie. */
        uint64_t marked = (((quote - EACH_BYTE) & ~quote) | ((backslash - EACH_BYTE) & ~backslash) |
                           ((x - EACH_BYTE * 0x20) & ~x) | x) & (EACH_BYTE * 0x80);
        if (marked) return p + (__builtin_ctzll(marked) >> 3);
    }
}

/* Give the length of the character of several bytes at p, 0 if it is none: no surrogates, nothing overlong. */
static inline int measure_character(const uint8_t *p) {
    uint8_t first = p[0], second, low = 0x80, high = 0xBF;
    if (first < 0xC2 || first > 0xF4) return 0;
    second = p[1];
    if (first < 0xE0) return (second & 0xC0) == 0x80 ? 2 : 0;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
    if (second < low || second > high || (p[2] & 0xC0) != 0x80) return 0;
    if (first < 0xF0) return 3;
    return (p[3] & 0xC0) == 0x80 ? 4 : 0;
}

/* Read the four hexadecimal digits at p; -1 if they are none. */
static inline int32_t read_hex(const uint8_t *p) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], letter = c | 0x20;
        if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
        else if (letter >= 'a' && letter <= 'f') value = value * 16 + (letter - 'a' + 10);
        else return -1;
    }
    return value;
}

/* Read the character behind `\u` at *at and move behind it; -1 if it is none, or half of a pair alone. */
static inline int32_t read_escaped(const uint8_t **at) {
    const uint8_t *p = *at;
    int32_t character = read_hex(p);
    if (character < 0) return -1;
    p += 4;
    if (character >= 0xD800 && character <= 0xDFFF) {
        if (character > 0xDBFF || p[0] != '\\' || p[1] != 'u') return -1;
        int32_t second = read_hex(p + 2);
        if (second < 0xDC00 || second > 0xDFFF) return -1;
        character = 0x10000 + ((character - 0xD800) << 10) + (second - 0xDC00);
        p += 6;
    }
    *at = p;
    return character;
}

static inline uint8_t *write_character(uint8_t *to, int32_t c) {
    if (c < 0x80) {
        *to++ = (uint8_t)c;
    } else if (c < 0x800) {
        *to++ = (uint8_t)(0xC0 | (c >> 6));
        *to++ = (uint8_t)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *to++ = (uint8_t)(0xE0 | (c >> 12));
        *to++ = (uint8_t)(0x80 | ((c >> 6) & 0x3F));
        *to++ = (uint8_t)(0x80 | (c & 0x3F));
    } else {
        *to++ = (uint8_t)(0xF0 | (c >> 18));
        *to++ = (uint8_t)(0x80 | ((c >> 12) & 0x3F));
        *to++ = (uint8_t)(0x80 | ((c >> 6) & 0x3F));
        *to++ = (uint8_t)(0x80 | (c & 0x3F));
    }
    return to;
}

/* What a single letter behind a backslash means; 0 if nothing. */
static inline uint8_t unescape(uint8_t letter) {
    switch (letter) {
    case '"': case '\\': case '/': return letter;
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return 0;
    }
}

/* Read the string whose opening quote is before `text`; give what is behind its closing quote, NULL if it is none.
   With `resolve`, escapes are resolved in place (that is never longer) and *length is what is left. */
static inline const uint8_t *read_string(uint8_t *text, int resolve, int64_t *length) {
    const uint8_t *p = skip_plain(text);
    if (*p == '"') { /* nearly always */
        *length = p - text;
        return p + 1;
    }
    uint8_t *to = (uint8_t *)p;
    const uint8_t *plain = p; /* what is not copied yet begins here */
    for (;;) {
        p = skip_plain(p);
        while (*p >= 0x80) {
            int size = measure_character(p);
            if (size == 0) return NULL;
            p += size;
        }
        if (*p == '"' || *p == '\\') {
            if (resolve && to != plain) memmove(to, plain, (size_t)(p - plain));
            to += p - plain;
            if (*p == '"') break;
            const uint8_t *escape = p + 1;
            int32_t character;
            if (*escape == 'u') {
                escape++;
                character = read_escaped(&escape);
                /* A zero byte written here would end the message, if the rest of it is unusual. */
                if (character < 0 || (resolve && character == 0)) return NULL;
            } else {
                character = unescape(*escape++);
                if (character == 0) return NULL;
            }
            if (resolve) to = write_character(to, character);
            p = plain = escape;
        } else if (*p < 0x20) {
            return NULL;
        }
    }
    *length = to - text;
    return p + 1;
}

#endif
