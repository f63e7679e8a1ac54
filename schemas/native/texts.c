/* Columns of texts: slices of one buffer by start and length. */
#include <stdlib.h>

#include "kernels.h"

/* Longer texts are told apart by their bytes all the same; only the hash looks at their beginning alone. */
static inline uint64_t hash_beginning(const uint8_t *text, int32_t length) {
    size_t looked_at = length < HASHED_LENGTH_MAX ? (size_t)length : HASHED_LENGTH_MAX;
    return hash_text(text, looked_at, (uint64_t)length);
}

/* Two words of a text: up to 16 bytes they hold all of it, so that with its length they tell it from every other; of a
   longer one they are a hash. Nothing beyond the text is read. */
typedef struct {
    uint64_t first, last;
} words_t;

static inline words_t read_words(const uint8_t *text, int32_t length) {
    if (length > 16) return (words_t){hash_beginning(text, length), 0};
    if (length >= 8) return (words_t){read64(text), read64(text + length - 8)};
    if (length >= 4) return (words_t){read32(text), read32(text + length - 4)};
    if (length > 0) return (words_t){text[0] | (uint64_t)text[length >> 1] << 8, text[length - 1]};
    return (words_t){0, 0};
}

typedef struct {
    words_t words;
    int32_t length, code; /* -1: free */
} place_t;

static inline uint64_t hash_words(words_t words, int32_t length) {
    uint64_t a = words.first ^ 0x9E3779B97F4A7C15ULL, b = words.last ^ (0xE7037ED1A0B428DBULL + (uint64_t)length);
    unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t hash = ((uint64_t)product ^ (uint64_t)(product >> 64)) + a + b;
    return hash ^ hash >> 32;
}

static place_t *make_places(uint64_t size) {
    place_t *places = malloc(size * sizeof(place_t));
    if (places) memset(places, 0xff, size * sizeof(place_t));
    return places;
}

/* Give the table in twice the size, or null; the former one is freed either way. */
static place_t *grow_places(place_t *places, uint64_t size) {
    place_t *grown = make_places(2 * size);
    for (uint64_t i = 0; grown && i < size; i++) {
        if (places[i].code < 0) continue;
        uint64_t slot = hash_words(places[i].words, places[i].length) & (2 * size - 1);
        while (grown[slot].code >= 0) slot = (slot + 1) & (2 * size - 1);
        grown[slot] = places[i];
    }
    free(places);
    return grown;
}

/* Number texts in the order of their first appearance; a null gets -1. `first` is where each number first stands. */
EXPORT int64_t factorize_texts(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n,
                               int32_t *codes, int64_t *first) {
    uint64_t size = 64;
    int64_t num_distinct = 0;
    place_t *places = make_places(size);
    for (int64_t i = 0; places && i < n; i++) {
        if (length[i] < 0) {
            codes[i] = -1;
            continue;
        }
        const uint8_t *text = buffer + start[i];
        words_t words = read_words(text, length[i]);
        uint64_t slot = hash_words(words, length[i]) & (size - 1);
        place_t *place;
        for (; (place = &places[slot])->code >= 0; slot = (slot + 1) & (size - 1))
            if (place->words.first == words.first && place->words.last == words.last && place->length == length[i] &&
                (length[i] <= 16 || memcmp(buffer + start[first[place->code]], text, (size_t)length[i]) == 0))
                break;
        if (place->code < 0) {
            *place = (place_t){words, length[i], (int32_t)num_distinct};
            first[num_distinct++] = i;
        }
        codes[i] = place->code;
        if ((uint64_t)num_distinct * 2 > size) {
            places = grow_places(places, size);
            size *= 2;
        }
    }
    free(places);
    return places ? num_distinct : -1;
}

/* Copy texts one behind the other; `ends` begins with 0, and a null takes no room. */
EXPORT void gather_texts(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n,
                         const int64_t *ends, uint8_t *out) {
    for (int64_t i = 0; i < n; i++)
        if (length[i] > 0) memcpy(out + ends[i], buffer + start[i], (size_t)length[i]);
}
