/* Instants in RFC 3339, of the form that nearly all have: 2026-01-01T00:00:00[.fraction](Z|±hh:mm).

   Other forms, and leap seconds, are left to another reader. */
#include "kernels.h"

#define MS_PER_MINUTE 60000

/* Read as many digits as there must be; -1 if one is none. */
static inline int64_t read_places(const uint8_t *p, int num_places) {
    int64_t value = 0;
    for (int i = 0; i < num_places; i++) {
        unsigned digit = (unsigned)(p[i] - '0');
        if (digit > 9) return -1;
        value = value * 10 + digit;
    }
    return value;
}

/* Days since 1970-01-01 in the Gregorian calendar (Howard Hinnant, "days_from_civil"), for years from 1. */
static inline int64_t count_days(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    int64_t era = year / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static int read_instant(const uint8_t *p, int32_t length, int64_t *ms) {
    if (length < 20) return 0;
    if (p[4] != '-' || p[7] != '-' || p[10] != 'T' || p[13] != ':' || p[16] != ':') return 0;
    int64_t year = read_places(p, 4), month = read_places(p + 5, 2), day = read_places(p + 8, 2);
    int64_t hour = read_places(p + 11, 2), minute = read_places(p + 14, 2), second = read_places(p + 17, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23) return 0;
    if (minute < 0 || minute > 59 || second < 0 || second > 59) return 0;
    int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    int64_t last = month == 2 ? 28 + is_leap : month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
    if (day > last) return 0;
    const uint8_t *end = p + length;
    p += 19;
    int64_t fraction = 0;
    if (*p == '.') {
        int num_places = 0;
        for (p++; p < end && *p >= '0' && *p <= '9'; p++, num_places++)
            if (num_places < 3) fraction = fraction * 10 + (*p - '0');
        if (num_places == 0 || p == end) return 0;
        for (; num_places < 3; num_places++) fraction *= 10;
    }
    int64_t shift = 0;
    if (*p != 'Z') {
        if (end - p != 6 || (*p != '+' && *p != '-') || p[3] != ':') return 0;
        int64_t hours = read_places(p + 1, 2), minutes = read_places(p + 4, 2);
        if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return 0;
        shift = (hours * 60 + minutes) * MS_PER_MINUTE;
        if (*p == '+') shift = -shift;
    } else if (end - p != 1) {
        return 0;
    }
    int64_t seconds = (count_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second;
    *ms = seconds * 1000 + fraction + shift;
    return 1;
}

/* Read texts to epoch milliseconds; `fits` tells which are of that form, the others get 0. */
EXPORT void read_instants(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n, int64_t *ms,
                          uint8_t *fits) {
    for (int64_t i = 0; i < n; i++) {
        ms[i] = 0;
        fits[i] = length[i] >= 0 && read_instant(buffer + start[i], length[i], &ms[i]);
    }
}
