/* A run's folder: the lock, config.json, the log of steps, and the names of
 * checkpoints. */

#include "src/train/run_dir.h"

#include "comm/check_same.h"
#include "io/file.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MOST_CONFIG_BYTES = 16 << 20 };

struct mm_run_dir {
    mm_comm *comm;
    char path[PATH_BYTES - 64];
    FILE *log; /* rank 0, which holds it alone; else NULL */
};

static bool is_writer(const mm_run_dir *dir)
{
    return mm_comm_rank(dir->comm) == 0;
}

static void path_in(const mm_run_dir *dir, const char *name,
                    char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", dir->path, name);
}

void mm_run_dir_task_path(const mm_run_dir *dir, int task, char path[4096])
{
    char name[32];
    snprintf(name, sizeof name, "task_%03d.h5", task);
    path_in(dir, name, path);
}

/* ---- config.json ------------------------------------------------------- */

static mm_status check_config(const char *path, const char *program,
                              const mm_options *options)
{
    char *text;
    MM_TRY(mm_file_read_text(path, MOST_CONFIG_BYTES, &text));
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const json_t *recorded = json_object_get(root, "options");
    const char *made_by = json_string_value(json_object_get(root, "program"));
    mm_status st;
    if (!recorded || !made_by || strcmp(made_by, program) != 0) {
        st = mm_fail(
            MM_E_FORMAT,
            "%s is not the config.json of a %s run; choose another --save",
            path, program);
    } else {
        st = mm_options_check_recorded(options, recorded);
        if (st != MM_OK)
            st = mm_fail(st,
                         "%s: %s; choose another --save, or the same options",
                         path, mm_fail_message());
    }
    json_decref(root);
    return st;
}

static mm_status write_config(const mm_run_dir *dir, const char *path,
                              const char *program, const mm_options *options)
{
    json_t *root = json_pack(
        "{s:s, s:s, s:i, s:i, s:o}", "program", program, "version",
        MAGMAX_VERSION, "n_ranks", mm_comm_n_ranks(dir->comm), "n_threads",
        mm_comm_n_threads(dir->comm), "options", mm_options_to_json(options));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return mm_fail(MM_E_MEMORY, "no memory for %s", path);
    mm_status st = mm_file_write_text(path, text);
    free(text);
    return st;
}

/* ---- one run at a time -------------------------------------------------- */

/** Until the file is closed, whatever ends the process; a run that is just
 * being ended is waited for, for ten seconds of our own running. A file system
 * without locks lets every run have it. */
static mm_status hold(FILE *file, const char *path)
{
    enum { MOST_TRIES = 100 };
    static const struct timespec pause = {.tv_nsec = 100000000};
    for (int i = 0; i < MOST_TRIES; i++) {
        if (flock(fileno(file), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return MM_OK;
        nanosleep(&pause, NULL);
    }
    return mm_fail(MM_E_IO,
                   "%s: another run is writing there; wait for its end, or "
                   "choose another --save",
                   path);
}

static bool is_at(FILE *file, const char *path)
{
    struct stat opened, named;
    return fstat(fileno(file), &opened) == 0 && stat(path, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

static mm_status open_log(mm_run_dir *dir)
{
    char path[PATH_BYTES];
    path_in(dir, "log.jsonl", path);
    for (;;) {
        dir->log = fopen(path, "ae");
        if (!dir->log)
            return mm_fail_errno("cannot write %s", path);
        MM_TRY(hold(dir->log, path));
        if (is_at(dir->log, path))
            return MM_OK;
        /* Another run has put a new file there, and holds that one. */
        fclose(dir->log);
    }
}

/** A refused run leaves no empty log; a run that waits for this file checks
 * again (is_at). */
static void remove_empty_log(mm_run_dir *dir)
{
    char path[PATH_BYTES];
    struct stat opened;
    path_in(dir, "log.jsonl", path);
    if (fstat(fileno(dir->log), &opened) == 0 && opened.st_size == 0)
        (void)unlink(path);
}

/** The log's lock comes first: what a run finds in the folder, and then writes,
 * no other run changes meanwhile. */
static mm_status open_on_writer(mm_run_dir *dir, const char *program,
                                const mm_options *options)
{
    char path[PATH_BYTES];
    MM_TRY(mm_file_create_folder(dir->path));
    MM_TRY(open_log(dir));
    path_in(dir, "config.json", path);
    mm_status st = mm_file_exists(path)
                       ? check_config(path, program, options)
                       : write_config(dir, path, program, options);
    if (st != MM_OK)
        remove_empty_log(dir);
    return st;
}

mm_status mm_run_dir_open(mm_comm *comm, const char *path, const char *program,
                          const mm_options *options, mm_run_dir **dir)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(path), MM_SAME_TEXT(program)));
    mm_run_dir *d = calloc(1, sizeof *d);
    mm_status st = MM_OK;
    if (!d)
        st = mm_fail(MM_E_MEMORY, "no memory for a run");
    else if (strlen(path) >= sizeof d->path)
        st = mm_fail(MM_E_ARG, "--save: the path is too long");
    if (st == MM_OK) {
        d->comm = comm;
        strcpy(d->path, path);
        if (is_writer(d))
            st = open_on_writer(d, program, options);
    }
    st = mm_comm_agree(comm, st);
    if (st != MM_OK)
        mm_run_dir_close(&d);
    *dir = d;
    return st;
}

void mm_run_dir_close(mm_run_dir **dir)
{
    if (!*dir)
        return;
    if ((*dir)->log)
        fclose((*dir)->log);
    free(*dir);
    *dir = NULL;
}

/* ---- tasks ------------------------------------------------------------- */

mm_status mm_run_dir_has_task(mm_run_dir *dir, int task, bool *there)
{
    MM_TRY(MM_CHECK_SAME(dir->comm, MM_SAME_INT(task)));
    char path[PATH_BYTES];
    mm_run_dir_task_path(dir, task, path);
    *there = is_writer(dir) && mm_file_exists(path);
    return mm_comm_broadcast(dir->comm, there, sizeof *there, 0);
}

/** Copy the lines that are not of `task` to a new file; a line that was cut off
 * by a crash goes too. */
static mm_status copy_other_lines(FILE *from, FILE *to, int task)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, from)) > 0) {
        json_t *object = json_loadb(line, (size_t)length, 0, NULL);
        const json_t *of = json_object_get(object, "task");
        bool keep = object && (!of || json_integer_value(of) != task);
        json_decref(object);
        if (keep)
            fwrite(line, 1, (size_t)length, to);
    }
    free(line);
    return ferror(to) || fflush(to) ? mm_fail_errno("cannot rewrite the log")
                                    : MM_OK;
}

static mm_status restart_on_writer(mm_run_dir *dir, int task)
{
    char path[PATH_BYTES], tmp_path[PATH_BYTES];
    path_in(dir, "log.jsonl", path);
    path_in(dir, "log.jsonl.tmp", tmp_path);
    FILE *from = fopen(path, "re");
    if (!from)
        return mm_fail_errno("cannot read %s", path);
    FILE *to = fopen(tmp_path, "we");
    if (!to) {
        mm_status st = mm_fail_errno("cannot write %s", tmp_path);
        fclose(from);
        return st;
    }
    mm_status st = hold(to, tmp_path);
    if (st == MM_OK)
        st = copy_other_lines(from, to, task);
    fclose(from);
    if (st == MM_OK)
        st = mm_file_commit(tmp_path, path);
    if (st != MM_OK) {
        fclose(to);
        return st;
    }
    fclose(dir->log);
    dir->log = to;
    return MM_OK;
}

mm_status mm_run_dir_restart_task(mm_run_dir *dir, int task)
{
    MM_TRY(MM_CHECK_SAME(dir->comm, MM_SAME_INT(task)));
    mm_status st = is_writer(dir) ? restart_on_writer(dir, task) : MM_OK;
    return mm_comm_agree(dir->comm, st);
}

/* ---- log.jsonl --------------------------------------------------------- */

void mm_run_dir_log_step(mm_run_dir *dir, const mm_step_entry *entry)
{
    if (!dir->log)
        return;
    fprintf(dir->log,
            "{\"task\": %d, \"epoch\": %lld, \"step\": %lld, \"loss\": %.17g, "
            "\"lr\": %.17g, \"grad_norm\": %.17g, \"n_images\": %lld, "
            "\"images_per_s\": %.6g, \"wait_s\": %.6g, \"input_s\": %.6g, "
            "\"n_skipped\": %lld}\n",
            entry->task, (long long)entry->epoch, (long long)entry->step,
            entry->loss, entry->lr, entry->grad_norm,
            (long long)entry->n_images, entry->images_per_s, entry->wait_s,
            entry->input_s, (long long)entry->n_skipped);
}

mm_status mm_run_dir_flush(mm_run_dir *dir)
{
    MM_TRY(MM_CHECK_CALL(dir->comm));
    mm_status st = MM_OK;
    if (dir->log &&
        (fflush(dir->log) || ferror(dir->log) || fsync(fileno(dir->log))))
        st = mm_fail_errno("cannot write %s/log.jsonl", dir->path);
    return mm_comm_agree(dir->comm, st);
}
