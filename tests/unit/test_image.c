/* Files that are not images, or damaged ones; tests/parity/test_image.py
 * compares the pixels of good ones with Pillow's. */
#include "io/image/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jpeglib.h>
#include <zlib.h>

static const char golden[] = "tests/golden/images/";
static const char seeds[] = "tests/fuzz/corpus/";

/** The bytes of a file; exactly as many are allocated, so that a sanitizer sees
 * reads behind them. */
typedef struct bytes {
    uint8_t *data;
    int64_t n;
} bytes;

static bytes exactly(const void *data, int64_t n)
{
    bytes b = {malloc((size_t)n), n};
    assert_non_null(b.data);
    memcpy(b.data, data, (size_t)n);
    return b;
}

static bytes read_file(const char *folder, const char *name)
{
    static uint8_t data[1 << 18];
    char path[256];
    snprintf(path, sizeof path, "%s%s", folder, name);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    size_t n = fread(data, 1, sizeof data, in);
    assert_true(n > 0 && n < sizeof data);
    fclose(in);
    return exactly(data, (int64_t)n);
}

static mm_status decode(const void *data, int64_t n)
{
    mm_image_decoder *decoder = NULL;
    mm_image image;
    bytes b = exactly(data, n);
    assert_int_equal(mm_image_decoder_create(&decoder), MM_OK);
    mm_status st = mm_image_decode(decoder, b.data, b.n, "a.jpg", &image);
    mm_image_decoder_destroy(&decoder);
    assert_null(decoder);
    free(b.data);
    return st;
}

/** Refused, with the file named and `what` said. */
static void assert_refused(const void *data, int64_t n, const char *what)
{
    assert_int_equal(decode(data, n), MM_E_FORMAT);
    const char *message = mm_fail_message();
    if (strncmp(message, "a.jpg: ", 7) || !strstr(message, what))
        fail_msg("'%s' does not say '%s'", message, what);
}

static void what_is_no_image_is_refused(void **state)
{
    (void)state;
    static const char text[] = "GIF89a, or some text";
    assert_refused("", 0, "empty");
    assert_refused(text, sizeof text, "not an image");
    assert_refused("\xFF", 1, "not an image");
    assert_refused("RIFF1234WAVE", 12, "not an image");
    assert_refused("P7 1 1 255 x", 12, "not an image");
}

static void every_truncated_file_is_refused(void **state)
{
    (void)state;
    const char *const files[][2] = {
        {golden, "small.jpg"},
        {golden, "tiny.png"},
        {seeds, "jpeg/RGB-progressive.jpg"},
        {seeds, "jpeg/CMYK-plain.jpg"},
        {seeds, "png/rgba-16-interlaced.png"},
        {seeds, "png/P.png"},
        {seeds, "webp/RGB-lossy.webp"},
        {seeds, "webp/RGBA-lossless.webp"},
        {seeds, "webp/animation.webp"},
        {seeds, "pnm/p5-16.pgm"},
        {seeds, "pnm/p4.pbm"},
        {seeds, "pnm/p6.ppm"},
    };
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        bytes b = read_file(files[k][0], files[k][1]);
        if (decode(b.data, b.n) != MM_OK)
            fail_msg("%s: %s", files[k][1], mm_fail_message());
        for (int64_t n = 0; n < b.n; n++)
            if (decode(b.data, n) != MM_E_FORMAT)
                fail_msg("%s: the first %lld of %lld bytes decode", files[k][1],
                         (long long)n, (long long)b.n);
        free(b.data);
    }
}

/* JPEG has no checksums: this is damage that no decoder can take for codes. */
static void damaged_jpegs_are_refused(void **state)
{
    (void)state;
    static const char *const files[] = {"rgb_420.jpg",     "rgb_444.jpg",
                                        "progressive.jpg", "grey.jpg",
                                        "cmyk.jpg",        "small.jpg"};
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        bytes b = read_file(golden, files[k]);
        memset(b.data + b.n / 2, 0xFF, 100);
        assert_refused(b.data, b.n, "corrupt JPEG: premature end");
        free(b.data);
    }
}

static void a_jpeg_without_its_middle_is_refused(void **state)
{
    (void)state;
    bytes b = read_file(golden, "rgb_420.jpg");
    memmove(b.data + b.n / 2, b.data + b.n / 2 + 1000,
            (size_t)(b.n - b.n / 2 - 1000));
    assert_refused(b.data, b.n - 1000, "corrupt JPEG: premature end");
    free(b.data);
}

/** The first `name`d chunk of a PNG file: its length field. */
static uint8_t *find_chunk(const bytes *b, const char *name)
{
    int64_t at = 8;
    while (memcmp(b->data + at + 4, name, 4)) {
        const uint8_t *n = b->data + at;
        at += 12 + (n[0] << 24 | n[1] << 16 | n[2] << 8 | n[3]);
        assert_true(at < b->n);
    }
    return b->data + at;
}

static void store_32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void png_with_a_wrong_checksum_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"IHDR", "zTXt", "gAMA", "IDAT", "IEND"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        bytes b = read_file(seeds, "png/text.png");
        assert_int_equal(decode(b.data, b.n), MM_OK);
        uint8_t *chunk = find_chunk(&b, names[k]);
        uint32_t n = (uint32_t)chunk[2] << 8 | chunk[3];
        chunk[8 + n] ^= 1;
        assert_refused(b.data, b.n, "corrupt PNG: ");
        free(b.data);
    }
}

static void sizes_that_the_bytes_cannot_hold_are_refused(void **state)
{
    (void)state;
    const uint32_t sides[][2] = {
        {0x7FFFFFFF, 0x7FFFFFFF}, {1, 0x7FFFFFFF}, {20000, 20000}, {0, 5}};
    for (size_t k = 0; k < sizeof sides / sizeof *sides; k++) {
        bytes b = read_file(golden, "tiny.png");
        uint8_t *chunk = find_chunk(&b, "IHDR");
        store_32(chunk + 8, sides[k][0]);
        store_32(chunk + 12, sides[k][1]);
        store_32(chunk + 21, (uint32_t)crc32(0, chunk + 4, 17));
        assert_refused(b.data, b.n, "");
        free(b.data);
    }

    bytes b = read_file(golden, "small.jpg");
    int64_t at = 2;
    while (b.data[at + 1] != 0xC0)
        at += 2 + (b.data[at + 2] << 8 | b.data[at + 3]);
    memset(b.data + at + 5, 0xFF, 4); /* 65535 x 65535 */
    assert_refused(b.data, b.n, "");
    memset(b.data + at + 5, 0x20, 4); /* 8224 x 8224 */
    assert_refused(b.data, b.n, "cannot hold 8224 x 8224");
    free(b.data);

    static const char *const texts[] = {
        "P5 20000 20000 255\n0", "P6 20000 20000 255\n0", "P4 20000 20000\n0",
        "P1 20000 20000\n0 1 0"};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        assert_refused(texts[k], (int64_t)strlen(texts[k]), "fewer bytes");
}

/* More pixels than 32 bits with a sign count. */
static void a_webp_of_a_large_canvas_is_refused(void **state)
{
    (void)state;
    static const char animated[] = "RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0"
                                   "\xff\xff\0\xfe\xff\0";
    assert_refused(animated, sizeof animated - 1, "65536 x 65535 pixels");
}

static void malformed_pnm_is_refused(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"P5", "EOF"},
        {"P5x", "junk"},
        {"P5 ", "EOF"},
        {"P5 3 -2 255\n123456", "junk"},
        {"P5 3 2 70000\n123456", "too large"},
        {"P5 4294967298 1 255\n12", "too large"},
        {"P5 1 4294967298 255\n12", "too large"},
        {"P5 2 1 4294967551\n12", "too large"},
        {"P2 2 1 9\n1 4294967300", "too large"},
        {"P5 3 2 0\n123456", "zero"},
        {"P5 3 12345678901 255\n", "too large"},
        {"P5 3 1 100\naz\xFF", "exceeds"},
        {"P6 1 1 1000\n\x01\x01\x07\xFF\x01\x01", "exceeds"},
        {"P6 0 2 255\n123456", "Width is zero"},
        {"P6 999999999 1 255\n0", "too large"},
        {"P4 9999999999 1\n0", "too large"},
        {"P6 9999999999 9999999999 255\n0", "too large"},
        {"P1 2 2\n0 1 2 1", "junk"},
        {"P1 2 2\n0 1 # 1 1", "EOF"},
        {"P2 2 1 9\n1 10", "exceeds"},
        {"P2 2 1 9\n1  ", "EOF"},
        {"P3 1 1 9\n1 2 x", "junk"},
    };
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        assert_refused(texts[k][0], (int64_t)strlen(texts[k][0]), texts[k][1]);
}

/** A grey progressive JPEG of two scans, the second of them `n_scans` times. */
static bytes make_jpeg_of_scans(int n_scans)
{
    struct jpeg_compress_struct lib;
    struct jpeg_error_mgr errors;
    unsigned char *file = NULL;
    unsigned long n_bytes = 0;
    const jpeg_scan_info scans[] = {{1, {0}, 0, 0, 0, 0},
                                    {1, {0}, 1, 63, 0, 0}};
    uint8_t row[8] = {9, 99, 0, 255, 3, 77, 200, 13};
    JSAMPROW rows[] = {row};
    lib.err = jpeg_std_error(&errors);
    jpeg_create_compress(&lib);
    jpeg_mem_dest(&lib, &file, &n_bytes);
    lib.image_width = lib.image_height = 8;
    lib.input_components = 1;
    lib.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&lib);
    lib.scan_info = scans;
    lib.num_scans = 2;
    jpeg_start_compress(&lib, TRUE);
    for (int y = 0; y < 8; y++)
        jpeg_write_scanlines(&lib, rows, 1);
    jpeg_finish_compress(&lib);
    jpeg_destroy_compress(&lib);

    int64_t last = (int64_t)n_bytes - 2;
    while (file[last] != 0xFF || file[last + 1] != 0xDA)
        last--;
    int64_t scan = (int64_t)n_bytes - 2 - last;
    bytes b = {malloc(n_bytes + (size_t)(scan * n_scans)), last};
    memcpy(b.data, file, (size_t)last);
    for (int i = 0; i < n_scans; i++, b.n += scan)
        memcpy(b.data + b.n, file + last, (size_t)scan);
    memcpy(b.data + b.n, "\xFF\xD9", 2);
    b.n += 2;
    free(file);
    return b;
}

static void a_jpeg_of_endless_scans_is_refused(void **state)
{
    (void)state;
    bytes few = make_jpeg_of_scans(20), many = make_jpeg_of_scans(600);
    assert_int_equal(decode(few.data, few.n), MM_OK);
    assert_refused(many.data, many.n, "scans");
    free(few.data);
    free(many.data);
}

static void a_jpeg_of_two_components_is_refused(void **state)
{
    (void)state;
    static const uint8_t file[] = {
        0xFF, 0xD8, 0xFF, 0xC0, 0, 14, 8, 0, 8, 0, 8, 2, 1,  0x11, 0,    2,
        0x11, 0,    0xFF, 0xDA, 0, 10, 2, 1, 0, 2, 0, 0, 63, 0,    0xFF, 0xD9};
    assert_refused(file, sizeof file, "2 components");
}

static void a_decoder_goes_on_after_a_bad_file(void **state)
{
    (void)state;
    static const char *const names[] = {"rgb_420.jpg", "rgb.png", "small.jpg",
                                        "palette.png", "cmyk.jpg"};
    mm_image_decoder *used = NULL, *fresh = NULL;
    mm_image a, b;
    assert_int_equal(mm_image_decoder_create(&used), MM_OK);
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        bytes file = read_file(golden, names[k]);
        assert_int_equal(
            mm_image_decode(used, file.data, file.n / 2, "half", &a),
            MM_E_FORMAT);
        assert_int_equal(mm_image_decode(used, file.data, file.n, "whole", &a),
                         MM_OK);
        assert_int_equal(mm_image_decoder_create(&fresh), MM_OK);
        assert_int_equal(mm_image_decode(fresh, file.data, file.n, "whole", &b),
                         MM_OK);
        assert_int_equal(a.mode, b.mode);
        assert_memory_equal(a.pixels, b.pixels,
                            (size_t)(b.height * b.width * b.channels));
        mm_image_decoder_destroy(&fresh);
        free(file.data);
    }
    mm_image_decoder_destroy(&used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_image_is_refused),
        cmocka_unit_test(every_truncated_file_is_refused),
        cmocka_unit_test(damaged_jpegs_are_refused),
        cmocka_unit_test(a_jpeg_without_its_middle_is_refused),
        cmocka_unit_test(png_with_a_wrong_checksum_is_refused),
        cmocka_unit_test(sizes_that_the_bytes_cannot_hold_are_refused),
        cmocka_unit_test(a_webp_of_a_large_canvas_is_refused),
        cmocka_unit_test(malformed_pnm_is_refused),
        cmocka_unit_test(a_jpeg_of_endless_scans_is_refused),
        cmocka_unit_test(a_jpeg_of_two_components_is_refused),
        cmocka_unit_test(a_decoder_goes_on_after_a_bad_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
