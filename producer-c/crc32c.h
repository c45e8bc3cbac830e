/* CRC-32C (Castagnoli), as in RFC 3720 appendix B.4: a table for every machine, the SSE4.2 instruction where there is one. */
#ifndef MLW_CRC32C_H
#define MLW_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t (*mlw_crc32c_fn)(uint32_t crc, const void *bytes, size_t len);

/* `crc` is 0 to begin, or the result for the bytes before these. */
static inline uint32_t mlw_crc32c_table(uint32_t crc, const void *bytes, size_t len)
{
    /* Nibble table: the byte table's 1 KiB would cost more cache than the few bytes we sum are worth. */
    static const uint32_t nibble[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    const unsigned char *b = bytes;
    crc = ~crc;
    while (len--) {
        crc ^= *b++;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static inline uint32_t mlw_crc32c_sse42(uint32_t crc, const void *bytes, size_t len)
{
    const unsigned char *b = bytes;
    uint64_t c = (uint32_t)~crc;
    for (; len >= 8; len -= 8, b += 8) {
        uint64_t word;
        memcpy(&word, b, 8);
        c = __builtin_ia32_crc32di(c, word);
    }
    uint32_t c32 = (uint32_t)c;
    for (; len; len--)
        c32 = __builtin_ia32_crc32qi(c32, *b++);
    return ~c32;
}
#endif

static inline mlw_crc32c_fn mlw_crc32c_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2"))
        return mlw_crc32c_sse42;
#endif
    return mlw_crc32c_table;
}

#endif
