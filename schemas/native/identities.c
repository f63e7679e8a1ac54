/* A memory of identities: 64-bit hashes, each with when its window is past retention and which event brought it last.

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

typedef struct {
    uint64_t hash;
    uint32_t ordinal; /* the event's number, its lowest 32 bits: ages are far below 2^32 */
    uint32_t expiry;  /* 1 + the position in the table of expiries */
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

/* What nothing can come before any more, and how old an identity may be. */
typedef struct {
    int64_t watermark, now, age_max;
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

/* Give the entry of a hash, or the empty one where it would stand. */
static inline entry_t *find(const bucket_t *bucket, uint64_t hash) {
    uint32_t slot = (uint32_t)hash & (bucket->size - 1);
    while (bucket->entries[slot].expiry != EMPTY && bucket->entries[slot].hash != hash)
        slot = (slot + 1) & (bucket->size - 1);
    return &bucket->entries[slot];
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
    return entry->expiry != EMPTY && is_seen(ids->expiries[entry->expiry - 1], entry->ordinal, horizon->watermark,
                                             horizon->now, horizon->age_max);
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
        *find(&fresh, bucket->entries[slot].hash) = bucket->entries[slot];
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
        *find(to, entry.hash) = entry;
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

/* Remember identities of events that counted, all until `expires_at`; of two with one hash the later event's stays.
   `ordinals` are the events' numbers, `watermark` what nothing can come before any more. Gives 0, or -1: no memory. */
EXPORT int64_t identities_add(identities_t *ids, const uint64_t *hashes, const int64_t *ordinals, int64_t n,
                              int64_t expires_at, int64_t watermark, int64_t age_max) {
    uint32_t expiry = number_expiry(ids, expires_at);
    if (!expiry) return -1;
    horizon_t horizon = {watermark, n ? ordinals[0] : 0, age_max};
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCHED < n) prefetch(ids, hashes[i + PREFETCHED]);
        bucket_t *bucket = make_room(ids, hashes[i], &horizon);
        if (!bucket) return -1;
        entry_t *entry = find(bucket, hashes[i]);
        uint32_t ordinal = (uint32_t)ordinals[i];
        if (entry->expiry == EMPTY)
            bucket->count++;
        else if ((int32_t)(ordinal - entry->ordinal) < 0)
            continue;
        *entry = (entry_t){hashes[i], ordinal, expiry};
    }
    return 0;
}

/* Tell which events, in the order of the log, are first occurrences; changes nothing. An event is a duplicate if the
   last one of its hash that counted, here or before, has not expired and is no more than `age_max` events old. */
EXPORT int64_t identities_find_new(const identities_t *ids, const uint64_t *hashes, const int64_t *expires_at,
                                   const int64_t *ordinals, const int64_t *watermark, int64_t n, int64_t age_max,
                                   uint8_t *is_new) {
    uint64_t size = SIZE_MIN;
    while (size < (uint64_t)n * 2) size *= 2;
    /* Which event here counted last, by hash: 1 + its position. */
    uint32_t *counted = calloc(size, sizeof(uint32_t));
    if (!counted) return -1;
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCHED < n) prefetch(ids, hashes[i + PREFETCHED]);
        uint64_t slot = hashes[i] & (size - 1);
        while (counted[slot] && hashes[counted[slot] - 1] != hashes[i]) slot = (slot + 1) & (size - 1);
        int seen = 0;
        if (counted[slot]) {
            int64_t last = counted[slot] - 1;
            seen = is_seen(expires_at[last], (uint32_t)ordinals[last], watermark[i], ordinals[i], age_max);
        } else {
            const bucket_t *bucket = bucket_of(ids, hashes[i]);
            horizon_t horizon = {watermark[i], ordinals[i], age_max};
            seen = bucket->entries && is_kept(ids, find(bucket, hashes[i]), &horizon);
        }
        is_new[i] = !seen;
        if (!seen) counted[slot] = (uint32_t)i + 1;
    }
    free(counted);
    return 0;
}

/* Leave out whatever cannot be seen any more, and give back the memory. Gives 0, or -1: no memory, nothing lost. */
EXPORT int64_t identities_forget(identities_t *ids, int64_t watermark, int64_t now, int64_t age_max) {
    horizon_t horizon = {watermark, now, age_max};
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
    uint32_t gone = 0;
    while (gone < ids->num_expiries && ids->expiries[gone] <= watermark) gone++;
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
