/* Columns to maps of each row, in the layout of Arrow: a null is left out. */
#include "kernels.h"

/* Count the numbers of each column that are there. */
EXPORT void count_numbers(const double *const *columns, int64_t num_columns, int64_t n, int64_t *counts) {
    for (int64_t column = 0; column < num_columns; column++) {
        int64_t count = 0;
        for (int64_t row = 0; row < n; row++) count += columns[column][row] == columns[column][row];
        counts[column] = count;
    }
}

/* Write the entries of one row without a gap: all keys at once. */
static inline void write_keys(const uint8_t *names, const int32_t *name_ends, int64_t num_columns, uint8_t *keys,
                              int32_t key_end, int32_t *key_ends) {
    memcpy(keys + key_end, names, (size_t)name_ends[num_columns - 1]);
    for (int64_t column = 0; column < num_columns; column++) key_ends[column] = key_end + name_ends[column];
}

static inline int32_t write_key(const uint8_t *names, const int32_t *name_ends, int64_t column, uint8_t *keys,
                                int32_t key_end) {
    int32_t begin = column ? name_ends[column - 1] : 0, length = name_ends[column] - begin;
    memcpy(keys + key_end, names + begin, (size_t)length);
    return key_end + length;
}

/* Write numbers as maps: `ends` int32[n] of rows, `key_ends` int32[entries] of keys. `name_ends` int32[columns] are where
   the names end in `names`. */
EXPORT void write_number_map(const double *const *columns, int64_t num_columns, int64_t n, const uint8_t *names,
                             const int32_t *name_ends, int32_t *ends, uint8_t *keys, int32_t *key_ends,
                             double *items) {
    int64_t entry = 0;
    int32_t key_end = 0;
    for (int64_t row = 0; row < n; row++) {
        int64_t num_present = 0;
        for (int64_t column = 0; column < num_columns; column++) {
            double value = columns[column][row];
            num_present += value == value;
        }
        if (num_present == num_columns) {
            write_keys(names, name_ends, num_columns, keys, key_end, key_ends + entry);
            key_end += name_ends[num_columns - 1];
            for (int64_t column = 0; column < num_columns; column++) items[entry++] = columns[column][row];
        } else {
            for (int64_t column = 0; column < num_columns; column++) {
                double value = columns[column][row];
                if (value != value) continue;
                key_end = write_key(names, name_ends, column, keys, key_end);
                key_ends[entry] = key_end;
                items[entry++] = value;
            }
        }
        ends[row] = (int32_t)entry;
    }
}

/* Write texts as maps, in the same way; texts are slices of a buffer for each column. */
EXPORT void write_text_map(const uint8_t *const *buffers, const int64_t *const *starts, const int32_t *const *lengths,
                           int64_t num_columns, int64_t n, const uint8_t *names, const int32_t *name_ends,
                           int32_t *ends, uint8_t *keys, int32_t *key_ends, uint8_t *items, int32_t *item_ends) {
    int64_t entry = 0;
    int32_t key_end = 0, item_end = 0;
    for (int64_t row = 0; row < n; row++) {
        for (int64_t column = 0; column < num_columns; column++) {
            int32_t length = lengths[column][row];
            if (length < 0) continue;
            key_end = write_key(names, name_ends, column, keys, key_end);
            key_ends[entry] = key_end;
            memcpy(items + item_end, buffers[column] + starts[column][row], (size_t)length);
            item_end += length;
            item_ends[entry++] = item_end;
        }
        ends[row] = (int32_t)entry;
    }
}
