/* Whatever happens to a checkpoint's bytes, a reader gets what was written, or
 * an error.
 * ctest: cost=15 unwind */
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_ELEMS = 300 };

/* Sanitizers make HDF5's many small allocations slow. */
#ifdef __SANITIZE_ADDRESS__
enum { FLIP_STEP = 5, CUT_STEP = 7 };
#else
enum { FLIP_STEP = 1, CUT_STEP = 1 };
#endif

static const char model[] = "{\"embed_dim\": 32}";
static const char provenance[] = "{\"seed\": 5}";

typedef struct scene {
    mm_comm *comm;
    mm_tensor_table table;
    float values[N_ELEMS];
    char folder[64], path[96], damaged[96];
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    /* More than eight, so that HDF5 stores the group as it does large ones. */
    for (int i = 0; i < 11; i++) {
        char name[32];
        snprintf(name, sizeof name, "visual.tensor_%d", i);
        const int64_t shape[] = {i == 3 ? 0 : i == 4 ? 200 : 10, 1};
        if (mm_tensor_table_add(&s->table, name, i == 4 ? 2 : 1, shape) !=
            MM_OK)
            return 1;
    }
    if (s->table.n_elems > N_ELEMS)
        return 1;
    for (int i = 0; i < N_ELEMS; i++)
        s->values[i] = sinf((float)i);
    snprintf(s->folder, sizeof s->folder, "/tmp/magmax-damage-XXXXXX");
    if (!mkdtemp(s->folder))
        return 1;
    snprintf(s->path, sizeof s->path, "%s/whole.h5", s->folder);
    snprintf(s->damaged, sizeof s->damaged, "%s/damaged.h5", s->folder);
    return mm_checkpoint_save(s->comm, s->path, &s->table, s->values, model,
                              provenance) != MM_OK;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", s->folder);
    mm_tensor_table_clear(&s->table);
    mm_comm_destroy(&s->comm);
    free(s);
    return system(command) != 0;
}

static char *read_bytes(const char *path, size_t *n_bytes)
{
    struct stat info;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &info), 0);
    *n_bytes = (size_t)info.st_size;
    char *bytes = malloc(*n_bytes);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, file), *n_bytes);
    fclose(file);
    return bytes;
}

static void write_bytes(const char *path, const char *bytes, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

/* All that a reader can learn, with the table taken from the file itself. */
static mm_status read_all(const scene *s, const char *path, bool *same)
{
    mm_weights *weights = NULL;
    float *values = NULL;
    mm_status st;
    *same = true;
    MM_TRY_GOTO(st, done, mm_weights_open(path, &weights));
    const mm_tensor_table *table = mm_weights_table(weights);
    values = calloc((size_t)table->n_elems + 1, sizeof *values);
    assert_non_null(values);
    MM_TRY_GOTO(st, done, mm_weights_read(weights, 0, table->n_elems, values));
    MM_TRY_GOTO(st, done, mm_weights_verify(weights, NULL));
    const char *its_model = mm_weights_model(weights);
    const char *its_provenance = mm_weights_provenance(weights);
    *same = table->n_tensors == s->table.n_tensors &&
            table->n_elems == s->table.n_elems &&
            memcmp(values, s->values,
                   (size_t)table->n_elems * sizeof *values) == 0 &&
            its_model && strcmp(its_model, model) == 0 && its_provenance &&
            strcmp(its_provenance, provenance) == 0;
    for (int i = 0; *same && i < table->n_tensors; i++)
        *same = strcmp(table->tensors[i].name, s->table.tensors[i].name) == 0 &&
                mm_tensor_same_shape(&table->tensors[i], &s->table.tensors[i]);
done:
    free(values);
    mm_weights_close(&weights);
    return st;
}

/* Of this process; a reader that fails must not keep its file open. */
static int n_open_files(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static void no_flipped_bit_changes_what_is_read(void **state)
{
    scene *s = *state;
    size_t n_bytes, n_found = 0;
    int n_open = n_open_files();
    char *bytes = read_bytes(s->path, &n_bytes);
    bool same;
    assert_int_equal(read_all(s, s->path, &same), MM_OK);
    assert_true(same);
    for (size_t i = 0; i < n_bytes; i += FLIP_STEP) {
        char mask = (char)(1 << (i * 5 % 8));
        bytes[i] ^= mask;
        write_bytes(s->damaged, bytes, n_bytes);
        mm_status st = read_all(s, s->damaged, &same);
        bytes[i] ^= mask;
        if (!same)
            fail_msg("byte %zu changes what is read", i);
        n_found += st != MM_OK;
    }
    assert_int_equal(n_open_files(), n_open);
    print_message("%zu of %zu flips are errors\n", n_found, n_bytes);
    /* Every byte of a tensor and of the manifest is one of them. */
    assert_true(n_found > ((size_t)s->table.n_elems * 4 + 300) / FLIP_STEP);
    free(bytes);
}

static void a_truncated_file_is_an_error_at_every_length(void **state)
{
    scene *s = *state;
    size_t n_bytes;
    char *bytes = read_bytes(s->path, &n_bytes);
    int n_open = n_open_files();
    bool same;
    for (size_t n = 0; n < n_bytes; n += n < 3000 ? CUT_STEP : 37) {
        write_bytes(s->damaged, bytes, n);
        assert_int_not_equal(read_all(s, s->damaged, &same), MM_OK);
        assert_non_null(strstr(mm_fail_message(), s->damaged));
    }
    assert_int_equal(n_open_files(), n_open);
    free(bytes);
}

static void a_long_model_text_comes_back(void **state)
{
    scene *s = *state;
    enum { LENGTH = 200000 };
    char *text = malloc(LENGTH + 1);
    assert_non_null(text);
    memset(text, ' ', LENGTH);
    memcpy(text, "{\"long\":", 8);
    memcpy(text + LENGTH - 2, "1}", 3);
    assert_int_equal(mm_checkpoint_save(s->comm, s->damaged, &s->table,
                                        s->values, text, NULL),
                     MM_OK);
    mm_weights *weights;
    assert_int_equal(mm_weights_open(s->damaged, &weights), MM_OK);
    assert_string_equal(mm_weights_model(weights), text);
    assert_null(mm_weights_provenance(weights));
    mm_weights_close(&weights);

    size_t n_bytes;
    char *bytes = read_bytes(s->damaged, &n_bytes);
    bytes[n_bytes / 2] ^= 4; /* a space of the text */
    write_bytes(s->damaged, bytes, n_bytes);
    assert_int_equal(mm_weights_open(s->damaged, &weights), MM_E_FORMAT);
    free(bytes);
    free(text);
}

static void an_unfinished_file_is_not_read(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    char tmp_path[128];
    bool same;
    snprintf(tmp_path, sizeof tmp_path, "%s.tmp", s->damaged);
    unlink(s->damaged);
    assert_int_equal(
        mm_checkpoint_begin(s->comm, s->damaged, &s->table, &checkpoint),
        MM_OK);
    assert_int_equal(read_all(s, tmp_path, &same), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "not finished"));
    assert_int_equal(mm_weights_writer_commit(&checkpoint, MM_OK, NULL, NULL),
                     MM_E_ARG);
    assert_null(checkpoint);
    assert_int_not_equal(access(tmp_path, F_OK), 0);
    assert_int_not_equal(access(s->damaged, F_OK), 0);
}

static void impossible_places_are_one_clear_error(void **state)
{
    scene *s = *state;
    char path[200];
    const char *const places[] = {"/none/w.h5", "/proc/w.h5", s->folder,
                                  "/dev/full"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s", places[i]);
        assert_int_equal(
            mm_checkpoint_save(s->comm, path, &s->table, s->values, NULL, NULL),
            MM_E_IO);
        assert_non_null(strstr(mm_fail_message(), path));
        assert_null(strchr(mm_fail_message(), '\n'));
    }
    assert_int_equal(access("/dev/full", W_OK), 0);
}

static void names_that_files_cannot_hold_are_refused(void **state)
{
    scene *s = *state;
    const char *const names[] = {"a/b", "", ".", "a\nb"};
    for (int i = 0; i < 4; i++) {
        mm_tensor_table table = {0};
        mm_tensor_table_add(&table, names[i], 0, NULL);
        assert_int_equal(mm_checkpoint_save(s->comm, s->damaged, &table,
                                            s->values, NULL, NULL),
                         MM_E_ARG);
        mm_tensor_table_clear(&table);
    }
}

/* A limit on the size of files stands for a full disk: at `limit` bytes the
 * system refuses, be it tensors or HDF5's own metadata. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    scene *s = *state;
    struct rlimit limit, old;
    struct stat info;
    char tmp_path[128];
    bool same;
    size_t n_bytes;
    char *bytes = read_bytes(s->path, &n_bytes);
    write_bytes(s->damaged, bytes, n_bytes);
    free(bytes);
    snprintf(tmp_path, sizeof tmp_path, "%s.tmp", s->damaged);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    for (rlim_t max_bytes = 0; max_bytes < 16000; max_bytes += 500) {
        mm_weights_writer *checkpoint = NULL;
        limit = (struct rlimit){max_bytes, old.rlim_max};
        /* Before creating, and between creating and committing. */
        bool late = max_bytes / 500 % 2;
        if (!late)
            setrlimit(RLIMIT_FSIZE, &limit);
        mm_status st =
            mm_checkpoint_begin(s->comm, s->damaged, &s->table, &checkpoint);
        setrlimit(RLIMIT_FSIZE, &limit);
        if (st == MM_OK) {
            st = mm_weights_writer_write(checkpoint, 0, s->table.n_elems,
                                         s->values);
            st = mm_weights_writer_commit(&checkpoint, st, model, provenance);
        }
        setrlimit(RLIMIT_FSIZE, &old);
        if (st != MM_OK) {
            assert_int_equal(st, MM_E_IO);
            assert_non_null(strstr(mm_fail_message(), s->damaged));
            assert_non_null(strstr(mm_fail_message(), strerror(EFBIG)));
        }
        assert_int_not_equal(stat(tmp_path, &info), 0);
        assert_int_equal(read_all(s, s->damaged, &same), MM_OK);
        assert_true(same);
    }
    signal(SIGXFSZ, SIG_DFL);
}

/* Kills a writer that saves without end, after ever longer times. */
static void a_killed_writer_leaves_a_whole_file_or_none(void **state)
{
    scene *s = *state;
    bool same;
    for (int i = 0; i < 12; i++) {
        unlink(s->damaged);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (;;)
                if (mm_checkpoint_save(s->comm, s->damaged, &s->table,
                                       s->values, model, provenance) != MM_OK)
                    _exit(1);
        usleep((useconds_t)(300 + 900 * i));
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        if (access(s->damaged, F_OK) == 0) {
            assert_int_equal(read_all(s, s->damaged, &same), MM_OK);
            assert_true(same);
        }
    }
    /* What the killed one left does not hinder the next. */
    assert_int_equal(mm_checkpoint_save(s->comm, s->damaged, &s->table,
                                        s->values, model, provenance),
                     MM_OK);
    assert_int_equal(read_all(s, s->damaged, &same), MM_OK);
    assert_true(same);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(no_flipped_bit_changes_what_is_read),
        cmocka_unit_test(a_truncated_file_is_an_error_at_every_length),
        cmocka_unit_test(a_long_model_text_comes_back),
        cmocka_unit_test(an_unfinished_file_is_not_read),
        cmocka_unit_test(impossible_places_are_one_clear_error),
        cmocka_unit_test(names_that_files_cannot_hold_are_refused),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_killed_writer_leaves_a_whole_file_or_none),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
