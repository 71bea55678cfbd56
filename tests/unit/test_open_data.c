/* Data sets by name and by path. */
#include "io/file.h"
#include "src/data/open_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void put_big_endian(FILE *file, uint32_t v)
{
    const unsigned char bytes[] = {(unsigned char)(v >> 24),
                                   (unsigned char)(v >> 16),
                                   (unsigned char)(v >> 8), (unsigned char)v};
    assert_int_equal(fwrite(bytes, 1, 4, file), 4);
}

/** n images of 2 x 3 whose bytes count up, labels 0, 1, ... round to n_classes.
 */
static void write_half(const char *folder, const char *half, int n,
                       int n_classes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s-images-idx3-ubyte", folder, half);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    put_big_endian(file, 0x803);
    put_big_endian(file, (uint32_t)n);
    put_big_endian(file, 2);
    put_big_endian(file, 3);
    for (int i = 0; i < n * 6; i++)
        fputc(i, file);
    assert_int_equal(fclose(file), 0);
    snprintf(path, sizeof path, "%s/%s-labels-idx1-ubyte", folder, half);
    file = fopen(path, "wb");
    assert_non_null(file);
    put_big_endian(file, 0x801);
    put_big_endian(file, (uint32_t)n);
    for (int i = 0; i < n; i++)
        fputc(i % n_classes, file);
    assert_int_equal(fclose(file), 0);
}

typedef struct fixture {
    char folder[64];
} fixture;

static int make_folder(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->folder, "/tmp/magmax-test-dataset-XXXXXX");
    *state = f;
    return mkdtemp(f->folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", f->folder);
    int failed = system(command);
    free(f);
    return failed;
}

/** The four files in a folder below the fixture's. */
static void write_idx(const fixture *f, const char *below, int n_classes)
{
    char folder[128];
    snprintf(folder, sizeof folder, "%s/%s", f->folder, below);
    assert_int_equal(mm_file_create_folder(folder), MM_OK);
    write_half(folder, "train", 20, n_classes);
    write_half(folder, "t10k", 10, n_classes);
}

static void assert_fails(const char *name, const char *location,
                         mm_status status, const char *fragment)
{
    mm_dataset *dataset = NULL;
    assert_int_equal(mm_dataset_open(NULL, name, location, &dataset), status);
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
    assert_null(dataset);
}

static void assert_opens(const char *name, const char *location,
                         const char *last_class)
{
    mm_dataset *dataset = NULL;
    if (mm_dataset_open(NULL, name, location, &dataset) != MM_OK)
        fail_msg("%s", mm_fail_message());
    assert_string_equal(dataset->name, name);
    assert_int_equal(dataset->n_classes, 10);
    assert_string_equal(dataset->class_names[9], last_class);
    assert_int_equal(dataset->train.n_images, 20);
    assert_int_equal(dataset->test.n_images, 10);
    assert_int_equal(dataset->train.pixels[2 * 6 + 1], 13);
    mm_dataset_close(&dataset);
}

static void a_builtin_name_finds_its_files_in_the_location(void **state)
{
    fixture *f = *state;
    write_idx(f, ".", 10);
    assert_opens("FashionMNIST", f->folder, "Ankle boot");
    assert_opens("MNIST", f->folder, "9");
}

static void
a_builtin_name_finds_its_files_where_torchvision_puts_them(void **state)
{
    fixture *f = *state;
    write_idx(f, "FashionMNIST/raw", 10);
    assert_opens("FashionMNIST", f->folder, "Ankle boot");
    assert_fails("MNIST", f->folder, MM_E_IO, "MNIST/raw");
    write_idx(f, "MNIST/raw", 10);
    assert_opens("MNIST", f->folder, "9");
}

static void a_builtin_name_finds_its_files_where_debian_puts_them(void **state)
{
    fixture *f = *state;
    write_idx(f, "fashion-mnist", 10);
    assert_opens("FashionMNIST", f->folder, "Ankle boot");
}

static void missing_files_name_the_folder_and_the_package(void **state)
{
    fixture *f = *state;
    assert_fails("FashionMNIST", f->folder, MM_E_IO, f->folder);
    assert_fails("FashionMNIST", f->folder, MM_E_IO, "dataset-fashion-mnist");
    assert_fails("MNIST", NULL, MM_E_ARG, "MNIST needs --data-location");
}

static void files_of_another_number_of_classes_fail(void **state)
{
    fixture *f = *state;
    write_idx(f, ".", 7);
    assert_fails("FashionMNIST", f->folder, MM_E_VALUE,
                 "labels up to 6, FashionMNIST has 10 classes");
}

static void a_path_that_does_not_exist_cannot_be_opened(void **state)
{
    (void)state;
    assert_fails("no/such/file", NULL, MM_E_IO, "cannot open no/such/file");
    assert_fails("nosuchfile.h5", NULL, MM_E_IO, "cannot open nosuchfile.h5");
    assert_fails("nosuchfile.npz", NULL, MM_E_IO, "cannot open nosuchfile.npz");
}

static void an_unknown_name_lists_the_known_ones_and_the_nearest(void **state)
{
    (void)state;
    assert_fails("FashonMNIST", NULL, MM_E_ARG,
                 "unknown data set 'FashonMNIST'; did you mean FashionMNIST? "
                 "Known: FashionMNIST, MNIST, or the path of a .h5 or .npz "
                 "file or a folder");
}

static void a_file_of_something_else_fails_by_its_content(void **state)
{
    fixture *f = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/data.npz", f->folder);
    assert_int_equal(mm_file_write_text(path, "not an archive"), MM_OK);
    assert_fails(path, NULL, MM_E_FORMAT, path);
}

int main(void)
{
#define CASE(name) \
    cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        CASE(a_builtin_name_finds_its_files_in_the_location),
        CASE(a_builtin_name_finds_its_files_where_torchvision_puts_them),
        CASE(a_builtin_name_finds_its_files_where_debian_puts_them),
        CASE(missing_files_name_the_folder_and_the_package),
        CASE(files_of_another_number_of_classes_fail),
        CASE(a_path_that_does_not_exist_cannot_be_opened),
        CASE(an_unknown_name_lists_the_known_ones_and_the_nearest),
        CASE(a_file_of_something_else_fails_by_its_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
