/* Counts of rows by group: histograms, extremes and sums without rounding.

   A sum is kept as in Kulisch's long accumulator, in limbs of 32 bits that are 64 wide, so that 2^31 values can be added
   before a carry matters (R. M. Neal, "Fast exact summation using small and large superaccumulators", 2015). Adding is
   therefore associative: whatever the order, the sum is the same to the last bit. */
#include <math.h>

#include "kernels.h"

/* Bits of doubles begin at 2^-1074 and end below 2^1024: 66 limbs of 32 bits, and room for carries. */
#define NUM_LIMBS 68
/* Bins are found for so many rows at once, so that the searches overlap. */
#define BLOCK 64

static inline void add_exactly(int64_t *limbs, double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    uint32_t exponent = (uint32_t)(bits >> 52) & 0x7ff;
    uint64_t mantissa = bits & 0xfffffffffffffULL;
    if (exponent)
        mantissa |= 1ULL << 52;
    else
        exponent = 1;
    uint32_t shift = (exponent - 1) & 31;
    int64_t *limb = limbs + ((exponent - 1) >> 5);
    /* In two's complement, and without a branch: around a centre it would be guessed wrong every other time. */
    int64_t sign = (int64_t)bits >> 63, value_bits = ((int64_t)mantissa ^ sign) - sign;
    uint64_t low = (uint64_t)value_bits << shift;
    limb[0] += (int64_t)(low & 0xffffffffULL);
    limb[1] += (int64_t)(low >> 32);
    limb[2] += value_bits >> 1 >> (63 - shift);
}

/* `cuts` are padded with infinity to 2^k - 1; gives for each value the number of cuts below it. */
static void find_bins(const double *values, int32_t n, const double *cuts, int32_t num_cuts, int32_t *bins) {
    for (int32_t i = 0; i < n; i++) bins[i] = 0;
    for (int32_t step = (num_cuts + 1) / 2; step; step /= 2)
        for (int32_t i = 0; i < n; i++) bins[i] += cuts[bins[i] + step - 1] < values[i] ? step : 0;
}

/* One column of numbers. `rows` are the counted rows, each with its `group`; a value beyond `deviation_max` from the
   centre adds no more than that to the sums. Slots: bins, then null, below the minimum, above the maximum. */
static void count_number(const double *column, const int64_t *rows, const int32_t *group, int64_t n,
                         const double *cuts, int32_t num_cuts, int32_t num_bins, double minimum, double maximum,
                         double centre, double deviation_max, int64_t slot, int64_t num_slots, int64_t *counts,
                         double *low, double *high, int64_t *limbs, int64_t num_numbers) {
    double values[BLOCK];
    int32_t bins[BLOCK];
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        int32_t size = n - begin < BLOCK ? (int32_t)(n - begin) : BLOCK;
        for (int32_t i = 0; i < size; i++) values[i] = column[rows[begin + i]];
        find_bins(values, size, cuts, num_cuts, bins);
        for (int32_t i = 0; i < size; i++) {
            int64_t g = group[begin + i];
            int64_t *slots = counts + g * num_slots + slot;
            double value = values[i];
            if (value != value) {
                slots[num_bins]++;
                continue;
            }
            slots[bins[i]]++;
            if (value < minimum) slots[num_bins + 1]++;
            if (value > maximum) slots[num_bins + 2]++;
            if (value < low[g * num_numbers]) low[g * num_numbers] = value;
            if (value > high[g * num_numbers]) high[g * num_numbers] = value;
            double deviation = value - centre;
            if (deviation > deviation_max) deviation = deviation_max;
            if (deviation < -deviation_max) deviation = -deviation_max;
            int64_t *sums = limbs + g * 2 * num_numbers * NUM_LIMBS;
            add_exactly(sums, deviation);
            add_exactly(sums + num_numbers * NUM_LIMBS, deviation * deviation);
        }
    }
}

/* What a layout says of its columns of numbers; cuts of number i are cuts[cut_ends[i] .. cut_ends[i + 1]). */
typedef struct {
    int64_t num_numbers, num_categories, num_slots;
    const double *cuts, *minimum, *maximum, *centre;
    const int64_t *cut_ends, *num_bins, *number_slot;
    double deviation_max;
} layout_t;

/* `columns` are addresses of doubles, `codes` of int32 numbers of categories (-1: null), whose slots are
   slots[slot_begin[i] + code + 1]; a second slot (or -1) stands in `outside`. Groups are rows of `counts` [groups,
   num_slots], `low` and `high` [groups, numbers], `limbs` [groups, 2, numbers, NUM_LIMBS], all zero or infinite before. */
EXPORT void count_rows(const layout_t *layout, const uint64_t *columns, const uint64_t *codes, const int32_t *slots,
                       const int32_t *outside, const int64_t *slot_begin, const int64_t *rows, const int32_t *group,
                       int64_t n, int64_t *counts, double *low, double *high, int64_t *limbs) {
    int64_t k = layout->num_numbers;
    for (int64_t i = 0; i < k; i++) {
        int64_t first = layout->cut_ends[i];
        count_number((const double *)(uintptr_t)columns[i], rows, group, n, layout->cuts + first,
                     (int32_t)(layout->cut_ends[i + 1] - first), (int32_t)layout->num_bins[i], layout->minimum[i],
                     layout->maximum[i], layout->centre[i], layout->deviation_max, layout->number_slot[i],
                     layout->num_slots, counts, low + i, high + i, limbs + i * NUM_LIMBS, k);
    }
    for (int64_t i = 0; i < layout->num_categories; i++) {
        const int32_t *code = (const int32_t *)(uintptr_t)codes[i];
        const int32_t *own = slots + slot_begin[i] + 1, *refused = outside + slot_begin[i] + 1;
        for (int64_t row = 0; row < n; row++) {
            int64_t *of_group = counts + group[row] * layout->num_slots;
            int32_t value = code[rows[row]];
            of_group[own[value]]++;
            if (refused[value] >= 0) of_group[refused[value]]++;
        }
    }
}

/* By group: how many rows are not new, how many are late, and the offset behind the last of them, in the log's order. */
EXPORT void tally_rows(const int64_t *offset, const int64_t *rows, const int32_t *group, const uint8_t *is_new,
                       const uint8_t *is_late, int64_t n, int64_t *duplicates, int64_t *late, int64_t *ends) {
    for (int64_t i = 0; i < n; i++) {
        int32_t g = group[i];
        duplicates[g] += !is_new[i];
        late[g] += is_late[i];
        ends[g] = offset[rows[i]] + 1;
    }
}

/* Write each sum as a little-endian two's complement integer of NUM_LIMBS words, in units of 2^-1074. */
EXPORT void carry_sums(const int64_t *limbs, int64_t num_sums, uint32_t *words) {
    for (int64_t sum = 0; sum < num_sums; sum++) {
        int64_t carry = 0;
        for (int32_t limb = 0; limb < NUM_LIMBS; limb++) {
            carry += limbs[sum * NUM_LIMBS + limb];
            words[sum * NUM_LIMBS + limb] = (uint32_t)carry;
            carry >>= 32;
        }
    }
}
