/* How freed memory is kept. */
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "kernels.h"

/* Let the allocator keep what is freed, up to `kept_bytes`, instead of giving it back: arrays of up to `array_bytes` are
   then taken from it again. Elsewhere than with glibc nothing is done. */
EXPORT void keep_freed_memory(int64_t array_bytes, int64_t kept_bytes) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, (int)array_bytes);
    mallopt(M_TRIM_THRESHOLD, (int)kept_bytes);
#else
    (void)array_bytes;
    (void)kept_bytes;
#endif
}
