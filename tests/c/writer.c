/* Writes records with checkable content until it is killed: tests/torture.rs does the killing.
 *
 *     writer DIR RUN ACKS
 *
 * Record i of run R has ids R << 32 | i in every row, and features that follow from them. After mlw_write has returned 0
 * the number of records is stored in the file ACKS: what is acknowledged must arrive.
 */
#include <errno.h>
#include <fcntl.h>
#include <mlwatch.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { FEATURES = 6, MOST_ROWS = 40 };

int main(int argc, char **argv)
{
    if (argc != 4)
        return 64;
    int fd = open(argv[3], O_RDWR);
    _Atomic uint64_t *acknowledged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (acknowledged == MAP_FAILED)
        return 65;

    char why[256] = "";
    mlw_options options = mlw_options_init();
    options.model = "torture";
    options.n_features = FEATURES;
    options.feature_dtype = MLW_F64;
    options.dir = argv[1];
    options.ring_bytes = 1 << 16;
    options.error = why;
    options.error_size = sizeof why;
    mlw_producer *producer;
    int err = mlw_open(&options, &producer);
    if (err) {
        fprintf(stderr, "%s: %s\n", mlw_strerror(err), why);
        return 66;
    }
    uint64_t run = strtoull(argv[2], NULL, 10) << 32;
    for (uint64_t i = 0;; i++) {
        static double features[MOST_ROWS][FEATURES];
        static uint64_t ids[MOST_ROWS];
        uint32_t rows = 1 + (uint32_t)(i * 7 % MOST_ROWS);
        for (uint32_t r = 0; r < rows; r++) {
            ids[r] = run | i;
            for (int f = 0; f < FEATURES; f++)
                features[r][f] = (double)(i * 1000 + r * 10 + (uint32_t)f);
        }
        mlw_batch batch = mlw_batch_init();
        batch.rows = rows;
        batch.features = features;
        batch.ids = ids;
        batch.timestamp_ns = i + 1;
        while ((err = mlw_write(producer, &batch)) == -EAGAIN)
            sched_yield();
        if (err)
            return 67;
        atomic_store_explicit(acknowledged, i + 1, memory_order_release);
    }
}
