/* A memory of identities: 64-bit hashes, each with when its window is past retention and which event brought it last.

   Hash tables with open addressing, in shards, so that growing one holds nobody up for long. What has expired is left out
   when a shard is full, and only if that does not help it grows: memory follows what can still be seen. */
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"

#define NUM_SHARDS 16
#define SIZE_MIN 8
#define PREFETCHED 32
/* An entry that holds nothing. */
#define EMPTY 0

typedef struct {
    uint64_t hash;
    uint32_t ordinal; /* the event's number, its lowest 32 bits: ages are far below 2^32 */
    uint32_t expiry;  /* 1 + the position in the table of expiries */
} entry_t;

typedef struct {
    uint64_t size, count;
    entry_t *entries;
} shard_t;

typedef struct {
    shard_t shards[NUM_SHARDS];
    int64_t *expiries;
    uint32_t num_expiries, room;
} identities_t;

/* Large tables lie in large pages where the system has them: filling one touches every page, and each costs a fault. */
#define LARGE_PAGE ((uint64_t)1 << 21)

static entry_t *allocate(uint64_t size) {
    uint64_t num_bytes = size * sizeof(entry_t);
    if (num_bytes < LARGE_PAGE) return calloc(size, sizeof(entry_t));
    void *entries = NULL;
    if (posix_memalign(&entries, LARGE_PAGE, num_bytes)) return NULL;
#if defined(__linux__)
    madvise(entries, num_bytes, MADV_HUGEPAGE); /* advice only */
#endif
    return memset(entries, 0, num_bytes);
}

static inline shard_t *shard_of(const identities_t *ids, uint64_t hash) {
    return (shard_t *)&ids->shards[hash >> 60];
}

/* Give the entry of a hash, or the empty one where it would stand. */
static inline entry_t *find(const shard_t *shard, uint64_t hash) {
    uint64_t slot = hash & (shard->size - 1);
    while (shard->entries[slot].expiry != EMPTY && shard->entries[slot].hash != hash)
        slot = (slot + 1) & (shard->size - 1);
    return &shard->entries[slot];
}

EXPORT identities_t *identities_create(void) {
    return calloc(1, sizeof(identities_t));
}

EXPORT void identities_free(identities_t *ids) {
    for (int i = 0; i < NUM_SHARDS; i++) free(ids->shards[i].entries);
    free(ids->expiries);
    free(ids);
}

EXPORT int64_t identities_count(const identities_t *ids) {
    uint64_t count = 0;
    for (int i = 0; i < NUM_SHARDS; i++) count += ids->shards[i].count;
    return (int64_t)count;
}

/* True if an identity still counts as seen by an event of this number, before which time had come to `watermark`. */
static inline int is_seen(int64_t expires_at, uint32_t ordinal, int64_t watermark, int64_t now, int64_t age_max) {
    return expires_at > watermark && (int32_t)((uint32_t)now - ordinal) <= age_max;
}

static uint64_t count_seen(const identities_t *ids, const shard_t *shard, int64_t watermark, int64_t now,
                           int64_t age_max) {
    uint64_t seen = 0;
    for (uint64_t slot = 0; slot < shard->size; slot++) {
        const entry_t *entry = &shard->entries[slot];
        seen += entry->expiry != EMPTY &&
                is_seen(ids->expiries[entry->expiry - 1], entry->ordinal, watermark, now, age_max);
    }
    return seen;
}

/* Rebuild a shard with this many places, without what cannot be seen any more. */
static int rebuild(const identities_t *ids, shard_t *shard, uint64_t size, int64_t watermark, int64_t now,
                   int64_t age_max) {
    shard_t fresh = {size, 0, allocate(size)};
    if (!fresh.entries) return -1;
    for (uint64_t i = 0; i < shard->size; i++) {
        entry_t entry = shard->entries[i];
        if (entry.expiry == EMPTY) continue;
        if (!is_seen(ids->expiries[entry.expiry - 1], entry.ordinal, watermark, now, age_max)) continue;
        *find(&fresh, entry.hash) = entry;
        fresh.count++;
    }
    free(shard->entries);
    *shard = fresh;
    return 0;
}

static int make_room(const identities_t *ids, shard_t *shard, int64_t watermark, int64_t now, int64_t age_max) {
    if (!shard->entries) {
        shard->entries = allocate(SIZE_MIN);
        shard->size = SIZE_MIN;
        return shard->entries ? 0 : -1;
    }
    /* Fuller, and a search would look at many places. */
    if (shard->count * 8 < shard->size * 5) return 0;
    /* What is left when the expired are left out decides whether it grows: soon full again is not worth it. */
    uint64_t kept = count_seen(ids, shard, watermark, now, age_max);
    return rebuild(ids, shard, kept * 2 < shard->size ? shard->size : shard->size * 2, watermark, now, age_max);
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

/* Remember identities of events that counted; of two with one hash the later event's stays. `ordinals` are the events'
   numbers, `watermark` and `now` what nothing can come before any more. Gives 0, or -1: no memory. */
EXPORT int64_t identities_add(identities_t *ids, const uint64_t *hashes, const int64_t *expires_at,
                              const int64_t *ordinals, int64_t n, int64_t watermark, int64_t now, int64_t age_max) {
    uint32_t expiry = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCHED < n) {
            const shard_t *ahead = shard_of(ids, hashes[i + PREFETCHED]);
            if (ahead->entries) __builtin_prefetch(&ahead->entries[hashes[i + PREFETCHED] & (ahead->size - 1)], 1);
        }
        shard_t *shard = shard_of(ids, hashes[i]);
        if (make_room(ids, shard, watermark, now, age_max)) return -1;
        if (i == 0 || expires_at[i] != expires_at[i - 1]) {
            expiry = number_expiry(ids, expires_at[i]);
            if (!expiry) return -1;
        }
        entry_t *entry = find(shard, hashes[i]);
        uint32_t ordinal = (uint32_t)ordinals[i];
        if (entry->expiry == EMPTY)
            shard->count++;
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
        if (i + PREFETCHED < n) {
            const shard_t *ahead = shard_of(ids, hashes[i + PREFETCHED]);
            if (ahead->entries) __builtin_prefetch(&ahead->entries[hashes[i + PREFETCHED] & (ahead->size - 1)]);
        }
        uint64_t slot = hashes[i] & (size - 1);
        while (counted[slot] && hashes[counted[slot] - 1] != hashes[i]) slot = (slot + 1) & (size - 1);
        int seen = 0;
        if (counted[slot]) {
            int64_t last = counted[slot] - 1;
            seen = is_seen(expires_at[last], (uint32_t)ordinals[last], watermark[i], ordinals[i], age_max);
        } else {
            const shard_t *shard = shard_of(ids, hashes[i]);
            if (shard->entries) {
                const entry_t *entry = find(shard, hashes[i]);
                seen = entry->expiry != EMPTY && is_seen(ids->expiries[entry->expiry - 1], entry->ordinal,
                                                         watermark[i], ordinals[i], age_max);
            }
        }
        is_new[i] = !seen;
        if (!seen) counted[slot] = (uint32_t)i + 1;
    }
    free(counted);
    return 0;
}

/* Leave out whatever cannot be seen any more, and give back the memory. Gives 0, or -1: no memory, nothing lost. */
EXPORT int64_t identities_forget(identities_t *ids, int64_t watermark, int64_t now, int64_t age_max) {
    for (int i = 0; i < NUM_SHARDS; i++) {
        shard_t *shard = &ids->shards[i];
        if (!shard->entries) continue;
        uint64_t kept = count_seen(ids, shard, watermark, now, age_max);
        if (kept == shard->count) continue;
        uint64_t size = SIZE_MIN;
        while (kept * 2 >= size) size *= 2;
        if (size > shard->size) size = shard->size;
        if (rebuild(ids, shard, size, watermark, now, age_max)) return -1;
    }
    /* Expired ones that nobody points to are taken off the front; positions count from the front, so all move. */
    uint32_t gone = 0;
    while (gone < ids->num_expiries && ids->expiries[gone] <= watermark) gone++;
    if (gone) {
        memmove(ids->expiries, ids->expiries + gone, (ids->num_expiries - gone) * sizeof(int64_t));
        ids->num_expiries -= gone;
        for (int i = 0; i < NUM_SHARDS; i++)
            for (uint64_t slot = 0; slot < ids->shards[i].size; slot++)
                if (ids->shards[i].entries[slot].expiry != EMPTY) ids->shards[i].entries[slot].expiry -= gone;
    }
    return 0;
}
