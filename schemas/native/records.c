/* Kafka's record batches (format 2): where each message's value and key lie, and CRC-32C.
   What arrives may be cut off or wrong; nothing is read beyond the end. */
#include "kernels.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

static inline uint32_t big32(const uint8_t *p) { return __builtin_bswap32(read32(p)); }
static inline uint64_t big64(const uint8_t *p) { return __builtin_bswap64(read64(p)); }

#define HEADER_LENGTH 61
#define LOG_APPEND_TIME 8

/* Read a zigzag varint; gives the position behind it, or null if it does not end in time. */
static const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, int64_t *value) {
    uint64_t bits = 0;
    for (int shift = 0; shift < 64 && at < end; shift += 7) {
        uint8_t byte = *at++;
        bits |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return at;
        }
    }
    return NULL;
}

/* Read bytes behind their length (-1: null); gives the position behind them, or null. */
static const uint8_t *read_bytes(const uint8_t *at, const uint8_t *end, const uint8_t *buffer, int64_t *start,
                                 int32_t *length) {
    int64_t size;
    at = read_varint(at, end, &size);
    if (!at || size < -1 || size > end - at) return NULL;
    *start = at - buffer;
    *length = (int32_t)size;
    return size > 0 ? at + size : at;
}

/* Unpack the uncompressed batches in a buffer: the records from offset `since` on. `headers_start` is where a record's
   headers begin (behind their number, `num_headers`), `headers_length` how many bytes they take. Gives the number of
   records, or -1 if something is no record batch, or there are more than `room`. */
EXPORT int64_t unpack_records(const uint8_t *buffer, int64_t size, int64_t since, int64_t room, int64_t *offset,
                              int64_t *timestamp, int64_t *value_start, int32_t *value_length, int64_t *key_start,
                              int32_t *key_length, int64_t *headers_start, int32_t *headers_length,
                              int32_t *num_headers) {
    const uint8_t *at = buffer, *buffer_end = buffer + size;
    int64_t n = 0;
    while (at < buffer_end) {
        if (buffer_end - at < HEADER_LENGTH) return -1;
        int64_t base = (int64_t)big64(at), length = (int32_t)big32(at + 8);
        if (length < HEADER_LENGTH - 12 || length > buffer_end - at - 12) return -1;
        const uint8_t *end = at + 12 + length;
        int is_append_time = at[22] & LOG_APPEND_TIME;
        int64_t first_timestamp = (int64_t)big64(at + 27), max_timestamp = (int64_t)big64(at + 35);
        int32_t count = (int32_t)big32(at + 57);
        at += HEADER_LENGTH;
        for (int32_t record = 0; record < count; record++) {
            int64_t record_length, timestamp_delta, offset_delta, headers;
            if (n >= room) return -1;
            at = read_varint(at, end, &record_length);
            if (!at || record_length < 1 || record_length > end - at) return -1;
            const uint8_t *record_end = at + record_length;
            at++; /* attributes, unused */
            if (!(at = read_varint(at, record_end, &timestamp_delta))) return -1;
            if (!(at = read_varint(at, record_end, &offset_delta))) return -1;
            if (!(at = read_bytes(at, record_end, buffer, &key_start[n], &key_length[n]))) return -1;
            if (!(at = read_bytes(at, record_end, buffer, &value_start[n], &value_length[n]))) return -1;
            if (!(at = read_varint(at, record_end, &headers))) return -1;
            if (headers < 0 || headers > record_end - at) return -1;
            headers_start[n] = at - buffer;
            headers_length[n] = (int32_t)(record_end - at);
            num_headers[n] = (int32_t)headers;
            at = record_end;
            offset[n] = base + offset_delta;
            timestamp[n] = is_append_time ? max_timestamp : first_timestamp + timestamp_delta;
            n += offset[n] >= since;
        }
        at = end;
    }
    return n;
}

static uint32_t crc32c_portable(const uint8_t *data, int64_t size) {
    uint32_t crc = 0xffffffff;
    for (int64_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78 & -(crc & 1));
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(const uint8_t *data, int64_t size) {
    uint64_t crc = 0xffffffff;
    for (; size >= 8; size -= 8, data += 8) crc = _mm_crc32_u64(crc, read64(data));
    for (; size > 0; size--) crc = _mm_crc32_u8((uint32_t)crc, *data++);
    return ~(uint32_t)crc;
}
#endif

EXPORT uint32_t crc32c(const uint8_t *data, int64_t size) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(data, size);
#endif
    return crc32c_portable(data, size);
}
