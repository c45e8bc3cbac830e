/* CRC-32C (Castagnoli), as in RFC 3720 appendix B.4: a table for every machine, and for record headers the SSE4.2
 * instruction where there is one. */
#ifndef MLW_CRC32C_H
#define MLW_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static inline int mlw_crc32c_has_instruction(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2");
#else
    return 0;
#endif
}

/* Of a record header's first 16 bytes, as words: the same for all records of a shape. */
static inline uint32_t mlw_crc32c_header_start(const uint64_t w[2])
{
    return mlw_crc32c_table(0, w, 16);
}

/* A function of its own, or the words would have to lie in memory where the instruction is used, too. */
static __attribute__((noinline)) uint32_t mlw_crc32c_header_by_table(uint32_t start, uint64_t pos, uint64_t seq, uint64_t ts_ns, uint64_t rows)
{
    const uint64_t w[6] = {pos, seq, ts_ns, rows};
    return mlw_crc32c_table(start, w, 44);
}

/* Of its first 60 bytes, given the start's. The instruction is written out so that it needs no other compiler flags. */
static inline uint32_t mlw_crc32c_header_end(int has_instruction, uint32_t start, uint64_t pos, uint64_t seq, uint64_t ts_ns, uint64_t rows)
{
#if defined(__x86_64__)
    if (__builtin_expect(has_instruction, 1)) {
        uint64_t crc = (uint32_t)~start;
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(pos));
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(seq));
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(ts_ns));
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(rows));
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(UINT64_C(0)));
        uint32_t crc32 = (uint32_t)crc;
        __asm__("crc32l %1, %0" : "+r"(crc32) : "r"(0));
        return ~crc32;
    }
#endif
    (void)has_instruction;
    return mlw_crc32c_header_by_table(start, pos, seq, ts_ns, rows);
}

#endif
