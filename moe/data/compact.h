/* compact.h: rows of numbers in few bytes, to the bit. What a ranker's rows hold repeats: an item's
 * price stands in every list that showed it, counts are small whole numbers, most of a one-hot is
 * 0. Rows are added once and read often, in runs. One thread while rows are added; any number that
 * read. */
#pragma once
#include <stddef.h>

struct moe_compact;

struct moe_compact *moe_compact_new(int columns);
void moe_compact_free(struct moe_compact *c); /* NULL is fine */
/* rows [n x columns], copied */
void moe_compact_add(struct moe_compact *c, const float *rows, int n);
/* Columns [column, column + width) of rows [row, row + n): out [n x width]. */
void moe_compact_read(const struct moe_compact *c, int row, int n, int column, int width,
                      float *out);
size_t moe_compact_bytes(const struct moe_compact *c); /* held now */
