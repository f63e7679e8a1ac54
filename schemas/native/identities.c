/* A memory of identities: 64-bit hashes, each with when its window is past retention and which event brought it last.

   An event may count in two streams: as output of a model's version and, where it carries features, as input. Mostly it
   counts in both or in neither, so one entry stands for both, and is found by one search. Where an event counts in one
   alone, its entry says so; of each stream a hash has one entry, the last that counted.

   Extendible hashing (Fagin, Nievergelt, Pippenger, Strong 1979): a directory of buckets by the highest bits of a hash,
   each bucket a small table with open addressing. A full bucket leaves out what has expired; only if that does not help
   it grows, or splits in two. So nobody waits for a large table to be rebuilt, what is rebuilt lies in the processor's
   cache, and memory follows what can still be seen. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels.h"

#define SIZE_MIN 8
/* 32 KiB of entries. */
#define SIZE_MAX_OF_BUCKET 2048
/* Beyond it hashes have so much in common that a bucket grows instead. */
#define DEPTH_MAX 24
#define PREFETCHED 16
/* An entry that holds nothing. */
#define EMPTY 0
/* Streams of outputs, numbered from 1; 0 is no output. */
#define NUM_CODES 256
#define NUM_EXPIRIES_MAX ((1U << 23) - 2)

typedef struct {
    uint64_t hash;
    uint32_t ordinal;     /* the event's number, its lowest 32 bits: ages are far below 2^32 */
    uint32_t expiry : 23; /* 1 + the position in the table of expiries */
    uint32_t is_input : 1;
    uint32_t code : 8; /* the output's stream */
} entry_t;

typedef struct {
    entry_t *entries; /* null until something is remembered */
    uint32_t size, count;
    uint32_t depth; /* so many highest bits are common to all hashes here */
} bucket_t;

typedef struct {
    bucket_t **directory; /* 2^depth pointers; a bucket of less depth stands there several times */
    uint32_t depth;
    int64_t *expiries;
    uint32_t num_expiries, room;
} identities_t;

/* What nothing can come before any more, by stream with that of inputs first, and how old an identity may be. */
typedef struct {
    const int64_t *watermarks;
    int64_t now, age_max;
} horizon_t;

/* Full-sized buckets come from slabs in large pages, where the system has them: filling memory in small pages costs a
   fault for every 4 KiB. What is freed goes to whoever needs a bucket next. */
#define BUCKET_BYTES (SIZE_MAX_OF_BUCKET * sizeof(entry_t))
#define SLAB_BYTES ((uint64_t)1 << 21)

typedef union piece {
    union piece *next;
    uint8_t bytes[BUCKET_BYTES];
} piece_t;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static piece_t *pool;

static int add_slab(void) {
    void *slab = NULL;
    if (posix_memalign(&slab, SLAB_BYTES, SLAB_BYTES)) return -1;
#if defined(MADV_HUGEPAGE)
    madvise(slab, SLAB_BYTES, MADV_HUGEPAGE); /* advice only */
#endif
    for (piece_t *piece = slab; (uint8_t *)piece < (uint8_t *)slab + SLAB_BYTES; piece++) {
        piece->next = pool;
        pool = piece;
    }
    return 0;
}

/* Give so many empty entries, or null. */
static entry_t *allocate(uint32_t size) {
    if (size != SIZE_MAX_OF_BUCKET) return calloc(size, sizeof(entry_t));
    pthread_mutex_lock(&pool_lock);
    piece_t *piece = pool || add_slab() == 0 ? pool : NULL;
    if (piece) pool = piece->next;
    pthread_mutex_unlock(&pool_lock);
    return piece ? memset(piece, 0, BUCKET_BYTES) : NULL;
}

static void release(entry_t *entries, uint32_t size) {
    if (size != SIZE_MAX_OF_BUCKET) {
        free(entries);
        return;
    }
    piece_t *piece = (piece_t *)entries;
    pthread_mutex_lock(&pool_lock);
    piece->next = pool;
    pool = piece;
    pthread_mutex_unlock(&pool_lock);
}

static inline bucket_t *bucket_of(const identities_t *ids, uint64_t hash) {
    return ids->directory[(hash >> 1) >> (63 - ids->depth)];
}

/* Give the first empty entry where one of a hash may stand. */
static inline entry_t *find_free(const bucket_t *bucket, uint64_t hash) {
    uint32_t slot = (uint32_t)hash & (bucket->size - 1);
    while (bucket->entries[slot].expiry != EMPTY) slot = (slot + 1) & (bucket->size - 1);
    return &bucket->entries[slot];
}

/* The entries of a hash in both streams that an event asks for; null where there is none. */
typedef struct {
    const entry_t *output, *input;
} found_t;

static inline found_t find(const bucket_t *bucket, uint64_t hash, uint32_t code) {
    found_t found = {NULL, NULL};
    if (!bucket->entries) return found;
    uint32_t slot = (uint32_t)hash & (bucket->size - 1);
    for (; bucket->entries[slot].expiry != EMPTY; slot = (slot + 1) & (bucket->size - 1)) {
        const entry_t *entry = &bucket->entries[slot];
        if (entry->hash != hash) continue;
        if (code && entry->code == code) found.output = entry;
        if (entry->is_input) found.input = entry;
    }
    return found;
}

static inline void prefetch(const identities_t *ids, uint64_t hash) {
    const bucket_t *bucket = bucket_of(ids, hash);
    if (bucket->entries) __builtin_prefetch(&bucket->entries[(uint32_t)hash & (bucket->size - 1)]);
}

/* Each bucket once, in the order of the directory. */
static inline uint64_t behind(const identities_t *ids, uint64_t index) {
    return index + ((uint64_t)1 << (ids->depth - ids->directory[index]->depth));
}

EXPORT identities_t *identities_create(void) {
    identities_t *ids = calloc(1, sizeof(identities_t));
    if (!ids) return NULL;
    ids->directory = calloc(1, sizeof(bucket_t *));
    bucket_t *first = calloc(1, sizeof(bucket_t));
    if (!ids->directory || !first) {
        free(first);
        free(ids->directory);
        free(ids);
        return NULL;
    }
    ids->directory[0] = first;
    return ids;
}

EXPORT void identities_free(identities_t *ids) {
    for (uint64_t i = 0, next; i < (uint64_t)1 << ids->depth; i = next) {
        bucket_t *bucket = ids->directory[i];
        next = behind(ids, i);
        release(bucket->entries, bucket->size);
        free(bucket);
    }
    free(ids->directory);
    free(ids->expiries);
    free(ids);
}

EXPORT int64_t identities_count(const identities_t *ids) {
    int64_t count = 0;
    for (uint64_t i = 0; i < (uint64_t)1 << ids->depth; i = behind(ids, i)) count += ids->directory[i]->count;
    return count;
}

/* True if an identity still counts as seen by an event of this number, before which time had come to `watermark`. */
static inline int is_seen(int64_t expires_at, uint32_t ordinal, int64_t watermark, int64_t now, int64_t age_max) {
    return expires_at > watermark && (int32_t)((uint32_t)now - ordinal) <= age_max;
}

static inline int is_kept(const identities_t *ids, const entry_t *entry, const horizon_t *horizon) {
    if (entry->expiry == EMPTY) return 0;
    int64_t expires_at = ids->expiries[entry->expiry - 1], now = horizon->now, age_max = horizon->age_max;
    return (entry->code && is_seen(expires_at, entry->ordinal, horizon->watermarks[entry->code], now, age_max)) ||
           (entry->is_input && is_seen(expires_at, entry->ordinal, horizon->watermarks[0], now, age_max));
}

static uint32_t count_kept(const identities_t *ids, const bucket_t *bucket, const horizon_t *horizon) {
    uint32_t kept = 0;
    for (uint32_t slot = 0; slot < bucket->size; slot++) kept += (uint32_t)is_kept(ids, &bucket->entries[slot], horizon);
    return kept;
}

/* Rebuild a bucket with this many places, without what cannot be seen any more. */
static int rebuild(const identities_t *ids, bucket_t *bucket, uint32_t size, const horizon_t *horizon) {
    bucket_t fresh = {allocate(size), size, 0, bucket->depth};
    if (!fresh.entries) return -1;
    for (uint32_t slot = 0; slot < bucket->size; slot++) {
        if (!is_kept(ids, &bucket->entries[slot], horizon)) continue;
        *find_free(&fresh, bucket->entries[slot].hash) = bucket->entries[slot];
        fresh.count++;
    }
    release(bucket->entries, bucket->size);
    *bucket = fresh;
    return 0;
}

static int double_directory(identities_t *ids) {
    uint64_t size = (uint64_t)1 << ids->depth;
    bucket_t **grown = malloc(2 * size * sizeof(bucket_t *));
    if (!grown) return -1;
    for (uint64_t i = 0; i < size; i++) grown[2 * i] = grown[2 * i + 1] = ids->directory[i];
    free(ids->directory);
    ids->directory = grown;
    ids->depth++;
    return 0;
}

/* Split the bucket of a hash in two by the next bit. */
static int split(identities_t *ids, bucket_t *bucket, uint64_t hash) {
    if (bucket->depth == ids->depth && double_directory(ids)) return -1;
    bucket_t *upper = calloc(1, sizeof(bucket_t));
    entry_t *low = allocate(bucket->size), *high = allocate(bucket->size);
    if (!upper || !low || !high) {
        free(upper);
        if (low) release(low, bucket->size);
        if (high) release(high, bucket->size);
        return -1;
    }
    bucket_t old = *bucket;
    *bucket = (bucket_t){low, old.size, 0, old.depth + 1};
    *upper = (bucket_t){high, old.size, 0, old.depth + 1};
    for (uint32_t slot = 0; slot < old.size; slot++) {
        entry_t entry = old.entries[slot];
        if (entry.expiry == EMPTY) continue;
        bucket_t *to = (entry.hash >> (63 - old.depth)) & 1 ? upper : bucket;
        *find_free(to, entry.hash) = entry;
        to->count++;
    }
    release(old.entries, old.size);
    /* Of the places that the bucket had in the directory the second half is the new one's. */
    uint64_t half = (uint64_t)1 << (ids->depth - old.depth - 1);
    uint64_t first = (((hash >> 1) >> (63 - ids->depth)) / (2 * half)) * 2 * half;
    for (uint64_t i = first + half; i < first + 2 * half; i++) ids->directory[i] = upper;
    return 0;
}

/* Give the bucket of a hash with room for one more; null if there is no memory. */
static bucket_t *make_room(identities_t *ids, uint64_t hash, const horizon_t *horizon) {
    bucket_t *bucket = bucket_of(ids, hash);
    if (!bucket->entries) {
        bucket->entries = allocate(SIZE_MIN);
        bucket->size = SIZE_MIN;
        return bucket->entries ? bucket : NULL;
    }
    /* Fuller, and a search would look at many places. */
    while (bucket->count * 8 >= bucket->size * 5) {
        /* Soon full again is not worth leaving out the expired. */
        int failed;
        if (count_kept(ids, bucket, horizon) * 2 < bucket->size)
            failed = rebuild(ids, bucket, bucket->size, horizon);
        else if (bucket->size < SIZE_MAX_OF_BUCKET || bucket->depth == DEPTH_MAX)
            failed = rebuild(ids, bucket, bucket->size * 2, horizon);
        else
            failed = split(ids, bucket, hash);
        if (failed) return NULL;
        bucket = bucket_of(ids, hash);
    }
    return bucket;
}

/* Give 1 + the position of an expiry, adding it if it is new; 0 if there is no memory. Few are in use at a time. */
static uint32_t number_expiry(identities_t *ids, int64_t expires_at) {
    for (uint32_t i = ids->num_expiries; i > 0; i--)
        if (ids->expiries[i - 1] == expires_at) return i;
    if (ids->num_expiries == NUM_EXPIRIES_MAX) return 0;
    if (ids->num_expiries == ids->room) {
        uint32_t room = ids->room ? ids->room * 2 : 16;
        int64_t *grown = realloc(ids->expiries, room * sizeof(int64_t));
        if (!grown) return 0;
        ids->expiries = grown;
        ids->room = room;
    }
    ids->expiries[ids->num_expiries++] = expires_at;
    return ids->num_expiries;
}

/* Put an event in its place among the entries of its hash: of each stream the later event's stays. */
static void put(bucket_t *bucket, entry_t entry) {
    entry_t *spare = NULL;
    uint32_t slot = (uint32_t)entry.hash & (bucket->size - 1);
    for (; bucket->entries[slot].expiry != EMPTY; slot = (slot + 1) & (bucket->size - 1)) {
        entry_t *known = &bucket->entries[slot];
        if (known->hash != entry.hash) continue;
        int is_older = (int32_t)(entry.ordinal - known->ordinal) < 0;
        if (known->is_input && entry.is_input) (is_older ? &entry : known)->is_input = 0;
        if (known->code && known->code == entry.code) (is_older ? &entry : known)->code = 0;
        if (!known->is_input && !known->code) spare = known;
    }
    if (!entry.is_input && !entry.code) return;
    if (!spare) {
        spare = &bucket->entries[slot];
        bucket->count++;
    }
    *spare = entry;
}

/* Remember identities of events that counted, all until `expires_at`, as outputs of stream `code` (0: of none) and as
   inputs or not. `ordinals` are the events' numbers, `watermarks` [NUM_CODES] what nothing can come before any more, by
   stream with that of inputs first. Gives 0, or -1: no memory. */
EXPORT int64_t identities_add(identities_t *ids, const uint64_t *hashes, const int64_t *ordinals, int64_t n,
                              int64_t expires_at, int64_t code, int64_t is_input, const int64_t *watermarks,
                              int64_t age_max) {
    uint32_t expiry = number_expiry(ids, expires_at);
    if (!expiry) return -1;
    horizon_t horizon = {watermarks, n ? ordinals[0] : 0, age_max};
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCHED < n) prefetch(ids, hashes[i + PREFETCHED]);
        bucket_t *bucket = make_room(ids, hashes[i], &horizon);
        if (!bucket) return -1;
        put(bucket, (entry_t){hashes[i], (uint32_t)ordinals[i], expiry, is_input != 0, (uint32_t)code});
    }
    return 0;
}

/* Events in the order of the log, each with what had passed before it in both of its streams. An event asks about
   output `code` (0: about none), and about inputs where `asks_input` is set. */
typedef struct {
    const uint64_t *hashes;
    const int64_t *expires_at, *ordinals;
    const uint8_t *code;
    const int64_t *watermark;
    const uint8_t *asks_input;
    const int64_t *input_watermark;
} events_t;

/* True if what counted last in a stream still counts as seen: the event at position `here`, or else the entry. */
static inline int is_repeated(const identities_t *ids, const events_t *events, int64_t here, const entry_t *entry,
                              int64_t watermark, int64_t now, int64_t age_max) {
    if (here >= 0)
        return is_seen(events->expires_at[here], (uint32_t)events->ordinals[here], watermark, now, age_max);
    return entry && is_seen(ids->expiries[entry->expiry - 1], entry->ordinal, watermark, now, age_max);
}

/* Tell which events are first occurrences as output and as input; changes nothing. An event is a duplicate if the last
   one of its hash that counted in the stream, here or before, has not expired and is no more than `age_max` events old.
   What was not asked for is no first occurrence. */
EXPORT int64_t identities_find_new(const identities_t *ids, const events_t *events, int64_t n, int64_t age_max,
                                   uint8_t *is_new, uint8_t *is_new_input) {
    uint64_t size = SIZE_MIN;
    while (size < (uint64_t)n * 2) size *= 2;
    /* Which events here counted, by hash: 1 + their positions. */
    uint32_t *counted = calloc(size, sizeof(uint32_t));
    if (!counted) return -1;
    const uint64_t *hashes = events->hashes;
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCHED < n) prefetch(ids, hashes[i + PREFETCHED]);
        uint64_t home = hashes[i] & (size - 1), slot = home;
        uint8_t code = events->code[i];
        int64_t output = -1, input = -1;
        for (; counted[slot]; slot = (slot + 1) & (size - 1)) {
            int64_t known = counted[slot] - 1;
            if (hashes[known] != hashes[i]) continue;
            if (is_new[known] && events->code[known] == code && known > output) output = known;
            if (is_new_input[known] && known > input) input = known;
        }
        found_t found = {NULL, NULL};
        if (output < 0 || input < 0) found = find(bucket_of(ids, hashes[i]), hashes[i], code);
        int64_t now = events->ordinals[i];
        is_new[i] = code && !is_repeated(ids, events, output, found.output, events->watermark[i], now, age_max);
        is_new_input[i] = events->asks_input[i] &&
                          !is_repeated(ids, events, input, found.input, events->input_watermark[i], now, age_max);
        if (!is_new[i] && !is_new_input[i]) continue;
        /* An event that this one stands for in all that it counted as makes room, so that no search gets longer. */
        if (output >= 0 || input >= 0) {
            for (slot = home; counted[slot]; slot = (slot + 1) & (size - 1)) {
                int64_t known = counted[slot] - 1;
                if (hashes[known] == hashes[i] && (!is_new[known] || (is_new[i] && events->code[known] == code)) &&
                    (!is_new_input[known] || is_new_input[i]))
                    break;
            }
        }
        counted[slot] = (uint32_t)i + 1;
    }
    free(counted);
    return 0;
}

/* Leave out whatever cannot be seen any more, and give back the memory. Gives 0, or -1: no memory, nothing lost. */
EXPORT int64_t identities_forget(identities_t *ids, const int64_t *watermarks, int64_t now, int64_t age_max) {
    horizon_t horizon = {watermarks, now, age_max};
    uint64_t num_places = (uint64_t)1 << ids->depth;
    for (uint64_t i = 0; i < num_places; i = behind(ids, i)) {
        bucket_t *bucket = ids->directory[i];
        if (!bucket->entries) continue;
        uint32_t kept = count_kept(ids, bucket, &horizon);
        if (kept == bucket->count) continue;
        uint32_t size = SIZE_MIN;
        while (kept * 2 >= size) size *= 2;
        if (size > bucket->size) size = bucket->size;
        if (rebuild(ids, bucket, size, &horizon)) return -1;
    }
    /* Expiries that nobody points to are taken off the front; positions count from the front, so all move. */
    uint32_t gone = ids->num_expiries;
    for (uint64_t i = 0; i < num_places; i = behind(ids, i)) {
        const bucket_t *bucket = ids->directory[i];
        for (uint32_t slot = 0; slot < bucket->size; slot++)
            if (bucket->entries[slot].expiry != EMPTY && bucket->entries[slot].expiry - 1 < gone)
                gone = bucket->entries[slot].expiry - 1;
    }
    if (!gone) return 0;
    memmove(ids->expiries, ids->expiries + gone, (ids->num_expiries - gone) * sizeof(int64_t));
    ids->num_expiries -= gone;
    for (uint64_t i = 0; i < num_places; i = behind(ids, i)) {
        bucket_t *bucket = ids->directory[i];
        for (uint32_t slot = 0; slot < bucket->size; slot++)
            if (bucket->entries[slot].expiry != EMPTY) bucket->entries[slot].expiry -= gone;
    }
    return 0;
}
