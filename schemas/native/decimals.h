/* Decimal numbers of JSON to doubles, correctly rounded. Included by json.c alone. */
#ifndef DRIFTLOOP_DECIMALS_H
#define DRIFTLOOP_DECIMALS_H

#include "kernels.h"

/* Whole numbers up to here are exact as doubles; larger ones are left to Python, whose integers have no end. */
#define EXACT_MAX (1ULL << 53)
/* More significant digits than this do not fit into 64 bits. */
#define DIGITS_MAX 19
/* The first and the last power of ten that a double can have, with a mantissa of DIGITS_MAX digits. */
#define POWER_MIN (-342)
#define POWER_MAX 308

static const uint64_t WHOLE_POWERS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
static const double EXACT_POWERS[23] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

/* Read the digits at p, 8 at a time: adds them to the mantissa (modulo 2^64) and gives where they end. */
static inline const uint8_t *read_digits(const uint8_t *p, uint64_t *mantissa) {
    for (;;) {
        uint64_t digits = read64(p) ^ 0x3030303030303030ULL;
        /* The lowest byte that is none is marked right; above it carries may lie. */
        uint64_t others = ((digits + 0x7676767676767676ULL) | digits) & 0x8080808080808080ULL;
        unsigned count = others ? (unsigned)__builtin_ctzll(others) >> 3 : 8;
        if (count == 0) return p;
        digits <<= (8 - count) * 8; /* zeros in front */
        digits = (digits * 2561) >> 8;
        digits = ((digits & 0x00FF00FF00FF00FFULL) * 6553601) >> 16;
        digits = ((digits & 0x0000FFFF0000FFFFULL) * 42949672960001ULL) >> 32;
        *mantissa = *mantissa * WHOLE_POWERS[count] + digits;
        p += count;
        if (count < 8) return p;
    }
}

/* mantissa · 10^power, rounded to even, for a mantissa of at most DIGITS_MAX digits; infinite where it is too large.
   After Daniel Lemire, "Number Parsing at a Gigabyte per Second" (2021), and Mushtak and Lemire, "Fast Number Parsing
   Without Fallback" (2022). `powers` has the upper and lower 64 bits of 5^q for q from POWER_MIN to POWER_MAX. */
static inline double round_decimal(uint64_t mantissa, int64_t power, const uint64_t *powers) {
    if (mantissa == 0 || power < POWER_MIN) return 0.0;
    if (power > POWER_MAX) return __builtin_inf();
    int leading = __builtin_clzll(mantissa);
    uint64_t w = mantissa << leading;
    const uint64_t *five = powers + 2 * (power - POWER_MIN);
    unsigned __int128 product = (unsigned __int128)w * five[0];
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    if ((high & 0x1FF) == 0x1FF) { /* the lower half of the power may matter */
        uint64_t carry = (uint64_t)(((unsigned __int128)w * five[1]) >> 64);
        low += carry;
        if (carry > low) high++;
    }
    int upper = (int)(high >> 63);
    int shift = upper + 64 - 52 - 3;
    uint64_t bits = high >> shift;
    int64_t exponent = (((152170 + 65536) * power) >> 16) + 63 + upper - leading + 1023;
    if (exponent <= 0) {
        if (-exponent + 1 >= 64) return 0.0;
        bits >>= -exponent + 1;
        bits += bits & 1;
        bits >>= 1;
        exponent = bits < (1ULL << 52) ? 0 : 1;
    } else {
        /* Exactly between two doubles, which only these powers can be. */
        if (low <= 1 && power >= -4 && power <= 23 && (bits & 3) == 1 && (bits << shift) == high) bits &= ~1ULL;
        bits += bits & 1;
        bits >>= 1;
        if (bits >= (2ULL << 52)) {
            bits = 1ULL << 52;
            exponent++;
        }
        if (exponent >= 0x7FF) return __builtin_inf();
    }
    bits = (bits & ~(1ULL << 52)) | ((uint64_t)exponent << 52);
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

typedef enum { NO_NUMBER, WHOLE, FRACTIONAL, BEYOND } NumberForm;

/* The value of more digits than a mantissa takes: the first ones decide, unless what follows may turn the rounding. */
static NumberForm read_long_number(const uint8_t *digits, const uint8_t *end, int64_t exponent, const uint64_t *powers,
                                   double *value) {
    uint64_t mantissa = 0;
    int num_digits = 0, past_point = 0, is_cut = 0;
    int64_t power = exponent;
    for (const uint8_t *p = digits; p < end; p++) {
        if (*p == '.') {
            past_point = 1;
        } else if (num_digits < DIGITS_MAX) {
            mantissa = mantissa * 10 + (uint64_t)(*p - '0');
            num_digits += mantissa != 0;
            power -= past_point;
        } else {
            power += !past_point;
            is_cut |= *p != '0';
        }
    }
    double below = round_decimal(mantissa, power, powers);
    double above = is_cut ? round_decimal(mantissa + 1, power, powers) : below;
    if (above > 1.7976931348623157e308) return NO_NUMBER;
    *value = below;
    return below == above ? FRACTIONAL : BEYOND;
}

/* Read the number at *at and move behind it. WHOLE and FRACTIONAL give its value; BEYOND is a finite number that only
   Python reads exactly; NO_NUMBER is no JSON, or too large for a double. The text must end with a byte that belongs to
   no number, and 8 bytes behind it be readable. */
static inline NumberForm read_number(const uint8_t **at, const uint64_t *powers, double *value) {
    const uint8_t *p = *at;
    int negative = *p == '-';
    p += negative;
    const uint8_t *digits = p;
    uint64_t mantissa = 0;
    if (!is_digit(*p)) return NO_NUMBER;
    p = read_digits(p, &mantissa);
    int64_t num_digits = p - digits;
    if (*digits == '0' && num_digits > 1) return NO_NUMBER;
    int64_t power = 0;
    int whole = 1;
    if (*p == '.') {
        const uint8_t *fraction = ++p;
        p = read_digits(p, &mantissa);
        if (p == fraction) return NO_NUMBER;
        power = fraction - p;
        num_digits += p - fraction;
        whole = 0;
    }
    const uint8_t *end = p;
    int64_t exponent = 0;
    if ((*p | 0x20) == 'e') {
        p++;
        int below = *p == '-';
        p += *p == '-' || *p == '+';
        if (!is_digit(*p)) return NO_NUMBER;
        for (; is_digit(*p); p++)
            if (exponent < 1000000) exponent = exponent * 10 + (*p - '0');
        if (below) exponent = -exponent;
        power += exponent;
        whole = 0;
    }
    *at = p;
    if (whole) {
        if (num_digits > DIGITS_MAX || mantissa > EXACT_MAX) {
            /* Of more than 300 digits it may be beyond what a double holds, or Python reads. */
            return num_digits > 300 ? NO_NUMBER : BEYOND;
        }
        *value = negative ? 0.0 - (double)mantissa : (double)mantissa; /* no negative zero: it is an integer */
        return WHOLE;
    }
    double found;
    NumberForm form = FRACTIONAL;
    if (num_digits > DIGITS_MAX) {
        form = read_long_number(digits, end, exponent, powers, &found);
        if (form != FRACTIONAL) return form;
    } else if (mantissa <= EXACT_MAX && power >= -22 && power <= 22) {
        /* Both are exact, so that the one operation rounds right (Clinger 1990). */
        found = power < 0 ? (double)mantissa / EXACT_POWERS[-power] : (double)mantissa * EXACT_POWERS[power];
    } else {
        found = round_decimal(mantissa, power, powers);
        if (found > 1.7976931348623157e308) return NO_NUMBER;
    }
    *value = negative ? -found : found;
    return FRACTIONAL;
}

#endif
