/* Columns of texts: slices of one buffer by start and length. */
#include <stdlib.h>

#include "kernels.h"

/* Longer texts are told apart by their bytes all the same; only the hash looks at their beginning alone. */
static inline uint64_t hash_beginning(const uint8_t *text, int32_t length) {
    size_t looked_at = length < HASHED_LENGTH_MAX ? (size_t)length : HASHED_LENGTH_MAX;
    return hash_text(text, looked_at, (uint64_t)length);
}

/* Number texts in the order of their first appearance; a null gets -1. `first` is where each number first stands. */
EXPORT int64_t factorize_texts(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n,
                               int32_t *codes, int64_t *first) {
    uint64_t size = 64;
    int64_t num_distinct = 0;
    int32_t *table = malloc(size * sizeof(int32_t));
    uint64_t *hashes = malloc(size * sizeof(uint64_t));
    if (!table || !hashes) goto no_memory;
    memset(table, 0xff, size * sizeof(int32_t));
    for (int64_t i = 0; i < n; i++) {
        if (length[i] < 0) {
            codes[i] = -1;
            continue;
        }
        const uint8_t *text = buffer + start[i];
        /* The text before is often the same. */
        if (i > 0 && length[i] == length[i - 1] && memcmp(text, buffer + start[i - 1], (size_t)length[i]) == 0) {
            codes[i] = codes[i - 1];
            continue;
        }
        uint64_t hash = hash_beginning(text, length[i]);
        uint64_t slot = hash & (size - 1);
        int32_t code;
        while ((code = table[slot]) >= 0) {
            int64_t known = first[code];
            if (hashes[slot] == hash && length[known] == length[i] &&
                memcmp(buffer + start[known], text, (size_t)length[i]) == 0)
                break;
            slot = (slot + 1) & (size - 1);
        }
        if (code < 0) {
            code = (int32_t)num_distinct;
            first[num_distinct++] = i;
            table[slot] = code;
            hashes[slot] = hash;
            if ((uint64_t)num_distinct * 2 > size) {
                uint64_t grown = size * 4;
                int32_t *new_table = malloc(grown * sizeof(int32_t));
                uint64_t *new_hashes = malloc(grown * sizeof(uint64_t));
                if (!new_table || !new_hashes) {
                    free(new_table);
                    free(new_hashes);
                    goto no_memory;
                }
                memset(new_table, 0xff, grown * sizeof(int32_t));
                for (uint64_t old = 0; old < size; old++) {
                    if (table[old] < 0) continue;
                    uint64_t to = hashes[old] & (grown - 1);
                    while (new_table[to] >= 0) to = (to + 1) & (grown - 1);
                    new_table[to] = table[old];
                    new_hashes[to] = hashes[old];
                }
                free(table);
                free(hashes);
                table = new_table;
                hashes = new_hashes;
                size = grown;
            }
        }
        codes[i] = code;
    }
    free(table);
    free(hashes);
    return num_distinct;
no_memory:
    free(table);
    free(hashes);
    return -1;
}

/* Copy texts one behind the other; `ends` begins with 0, and a null takes no room. */
EXPORT void gather_texts(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n,
                         const int64_t *ends, uint8_t *out) {
    for (int64_t i = 0; i < n; i++)
        if (length[i] > 0) memcpy(out + ends[i], buffer + start[i], (size_t)length[i]);
}
