/* Joining byte pairs: against the definition, done the slow way. */
#include "src/tokenizer/byte_pairs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { N_LETTERS = 3, MAX_PAIRS = 60, MAX_WORD = 40 };

static uint64_t state_of_random;

static int32_t draw(int32_t n)
{
    state_of_random = state_of_random * UINT64_C(6364136223846793005) +
                      UINT64_C(1442695040888963407);
    return (int32_t)((state_of_random >> 33) % (uint64_t)n);
}

static char random_letter(void)
{
    return (char)('a' + draw(N_LETTERS));
}

/* Any earlier symbol, or a letter; only the right one may end a word. */
static int32_t random_symbol(const int32_t *ends, int32_t n_pairs, int32_t end)
{
    for (;;) {
        int32_t made = draw(n_pairs + 2 * N_LETTERS);
        if (made < n_pairs) {
            if (ends[made] <= end)
                return MM_N_BYTE_SYMBOLS + made;
        } else {
            return mm_vocabulary_byte_symbol((uint8_t)random_letter()) +
                   (end && draw(2) ? MM_N_BYTE_SYMBOLS / 2 : 0);
        }
    }
}

static void random_vocabulary(mm_vocabulary *v)
{
    int32_t ends[MAX_PAIRS];
    v->n_pairs = 0;
    for (int32_t i = 0; i < MAX_PAIRS; i++) {
        int32_t left = random_symbol(ends, v->n_pairs, 0);
        int32_t right = random_symbol(ends, v->n_pairs, 1);
        bool known = false;
        for (int32_t k = 0; k < v->n_pairs; k++)
            known |= v->pairs[k][0] == left && v->pairs[k][1] == right;
        if (known)
            continue;
        ends[v->n_pairs] = right >= MM_N_BYTE_SYMBOLS
                               ? ends[right - MM_N_BYTE_SYMBOLS]
                               : right >= MM_N_BYTE_SYMBOLS / 2;
        v->pairs[v->n_pairs][0] = left;
        v->pairs[v->n_pairs][1] = right;
        v->n_pairs++;
    }
}

/* For the first pair that is anywhere: join it everywhere, from the left. */
static int32_t encode_slowly(const mm_vocabulary *v, int32_t *symbols,
                             int32_t n)
{
    for (;;) {
        int32_t best = v->n_pairs;
        for (int32_t i = 0; i + 1 < n; i++)
            for (int32_t k = 0; k < best; k++)
                if (v->pairs[k][0] == symbols[i] &&
                    v->pairs[k][1] == symbols[i + 1])
                    best = k;
        if (best == v->n_pairs)
            return n;
        int32_t n_left = 0;
        for (int32_t i = 0; i < n; i++) {
            if (i + 1 < n && v->pairs[best][0] == symbols[i] &&
                v->pairs[best][1] == symbols[i + 1]) {
                symbols[n_left++] = MM_N_BYTE_SYMBOLS + best;
                i++;
            } else {
                symbols[n_left++] = symbols[i];
            }
        }
        n = n_left;
    }
}

static void random_words_are_joined_as_defined(void **state)
{
    (void)state;
    int32_t room[MAX_PAIRS][2], n_joined = 0;
    mm_vocabulary v = {.pairs = room};
    mm_byte_pairs_work work = {0};
    for (int round = 0; round < 300; round++) {
        mm_byte_pairs pairs;
        random_vocabulary(&v);
        assert_int_equal(mm_byte_pairs_init(&v, &pairs), MM_OK);
        for (int i = 0; i < 100; i++) {
            char word[MAX_WORD];
            int32_t expected[MAX_WORD], found[MAX_WORD], n = 1 + draw(MAX_WORD);
            int64_t n_found;
            for (int32_t k = 0; k < n; k++) {
                word[k] = random_letter();
                expected[k] = mm_vocabulary_byte_symbol((uint8_t)word[k]);
            }
            expected[n - 1] += MM_N_BYTE_SYMBOLS / 2;
            int32_t n_expected = encode_slowly(&v, expected, n);
            assert_int_equal(mm_byte_pairs_encode(&pairs, &work, word,
                                                  (size_t)n, MAX_WORD, found,
                                                  &n_found),
                             MM_OK);
            assert_int_equal(n_found, n_expected);
            assert_memory_equal(found, expected,
                                (size_t)n_expected * sizeof *found);
            n_joined += n - n_expected;
        }
        mm_byte_pairs_clear(&pairs);
    }
    assert_true(n_joined > 100000);
    mm_byte_pairs_work_clear(&work);
}

static void only_so_many_ids_are_written(void **state)
{
    (void)state;
    mm_vocabulary v = {0};
    mm_byte_pairs pairs;
    mm_byte_pairs_work work = {0};
    int32_t ids[3] = {-1, -1, -1};
    int64_t n_ids;
    assert_int_equal(mm_byte_pairs_init(&v, &pairs), MM_OK);
    assert_int_equal(
        mm_byte_pairs_encode(&pairs, &work, "!!!!", 4, 2, ids, &n_ids), MM_OK);
    assert_int_equal(n_ids, 2);
    assert_int_equal(ids[0], 0); /* '!' is the first of all symbols */
    assert_int_equal(ids[2], -1);
    mm_byte_pairs_work_clear(&work);
    mm_byte_pairs_clear(&pairs);
}

static double seconds_for(const mm_byte_pairs *pairs, char *word, size_t n)
{
    mm_byte_pairs_work work = {0};
    int32_t ids[8];
    int64_t n_ids;
    struct timespec from, to;
    memset(word, 'a', n);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    assert_int_equal(
        mm_byte_pairs_encode(pairs, &work, word, n, 8, ids, &n_ids), MM_OK);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    mm_byte_pairs_work_clear(&work);
    return (double)(to.tv_sec - from.tv_sec) +
           1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}

static void a_long_word_takes_no_square_of_time(void **state)
{
    (void)state;
    int32_t a = mm_vocabulary_byte_symbol('a');
    int32_t doubling[][2] = {{a, a},
                             {MM_N_BYTE_SYMBOLS, MM_N_BYTE_SYMBOLS},
                             {MM_N_BYTE_SYMBOLS + 1, MM_N_BYTE_SYMBOLS + 1}};
    mm_vocabulary v = {.n_pairs = 3, .pairs = doubling};
    mm_byte_pairs pairs;
    assert_int_equal(mm_byte_pairs_init(&v, &pairs), MM_OK);
    enum { SHORT = 20000, TIMES = 64 };
    char *word = malloc(SHORT * TIMES);
    assert_non_null(word);
    /* 64 times the bytes: about 80 times the cycles; a square would be 4096.
     * What disturbs one measurement does not disturb all. */
    bool is_square = true;
    for (int i = 0; is_square && i < 20; i++) {
        double shorter = seconds_for(&pairs, word, SHORT);
        is_square = seconds_for(&pairs, word, SHORT * TIMES) > 1000 * shorter;
    }
    assert_false(is_square);
    free(word);
    mm_byte_pairs_clear(&pairs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_words_are_joined_as_defined),
        cmocka_unit_test(only_so_many_ids_are_written),
        cmocka_unit_test(a_long_word_takes_no_square_of_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
