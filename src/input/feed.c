/* Worker threads that read, decode and transform batches of images ahead of
 * their use. */

#include "src/input/feed.h"

#include "io/dataset/sample.h"
#include "src/base/clock.h"
#include "src/image/transform.h"

#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_SLOTS = 3,     /* one in use, two that are being prepared */
    PIXELS_PIECE = 8 /* raw images that a thread takes at a time */
};

/* One batch. Its images are handed out in pieces, to any thread. */
typedef struct slot {
    int64_t n, epoch;
    int64_t n_taken, n_done; /* of n; guarded by the feed's lock */
    void *memory; /* of its images; NULL where another slot's are used */
    uint8_t *images;
    int64_t *samples;
    mm_status *status; /* [n] of each image        */
    mm_bad_image *bad; /* [n] set where it is bad  */
} slot;

/* What one thread reads and transforms with. */
typedef struct workspace {
    mm_sample_reader *reader;
    mm_transform *transform;
} workspace;

typedef struct worker {
    mm_feed *feed;
    workspace *workspace;
    pthread_t thread;
} worker;

struct mm_feed {
    mm_feed_plan plan;
    int64_t image_bytes, piece;
    int n_workspaces, n_started;
    workspace *workspaces; /* one per worker, then the caller's */
    worker *workers;
    double wait_s;

    int n_slots;
    slot slots[N_SLOTS];
    /* Counts of batches since the beginning; batch i is in slot i % n_slots.
     * The lock guards them for workers; only the caller writes. */
    int64_t n_pushed, n_given;
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t pushed, done;
};

/* ---- preparing images -------------------------------------------------- */

static bool take_piece_of(mm_feed *f, slot *s, int64_t *lo, int64_t *hi)
{
    if (s->n_taken == s->n)
        return false;
    *lo = s->n_taken;
    *hi = s->n - *lo < f->piece ? s->n : *lo + f->piece;
    s->n_taken = *hi;
    return true;
}

static mm_status prepare(mm_feed *f, workspace *h, const slot *s, int64_t i)
{
    const mm_feed_plan *p = &f->plan;
    int64_t sample = s->samples[i];
    uint8_t *out = s->images + i * f->image_bytes;
    mm_image image;
    MM_TRY(mm_sample_read(h->reader, sample, &image));
    mm_status st = p->augment
                       ? mm_transform_training(h->transform, &image, p->seed,
                                               s->epoch, sample, out)
                       : mm_transform_evaluation(h->transform, &image, out);
    if (st == MM_OK)
        return MM_OK;
    char name[MM_SAMPLE_NAME_BYTES];
    mm_sample_name(p->half, sample, name);
    return mm_fail_within(st, "%s", name);
}

static void prepare_piece(mm_feed *f, workspace *h, slot *s, int64_t lo,
                          int64_t hi)
{
    for (int64_t i = lo; i < hi; i++) {
        s->status[i] = prepare(f, h, s, i);
        if (s->status[i] == MM_OK)
            continue;
        s->bad[i].sample = s->samples[i];
        snprintf(s->bad[i].why, sizeof s->bad[i].why, "%s", mm_fail_message());
    }
}

static void report_piece(mm_feed *f, slot *s, int64_t lo, int64_t hi)
{
    s->n_done += hi - lo;
    if (s->n_done == s->n)
        pthread_cond_broadcast(&f->done);
}

/* The oldest batch first. */
static slot *find_work(mm_feed *f, int64_t *lo, int64_t *hi)
{
    for (int64_t i = f->n_given; i < f->n_pushed; i++) {
        slot *s = &f->slots[i % f->n_slots];
        if (take_piece_of(f, s, lo, hi))
            return s;
    }
    return NULL;
}

static void *work(void *argument)
{
    worker *w = argument;
    mm_feed *f = w->feed;
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        int64_t lo, hi;
        slot *s = find_work(f, &lo, &hi);
        if (!s) {
            pthread_cond_wait(&f->pushed, &f->lock);
            continue;
        }
        pthread_mutex_unlock(&f->lock);
        prepare_piece(f, w->workspace, s, lo, hi);
        pthread_mutex_lock(&f->lock);
        report_piece(f, s, lo, hi);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/** Work on one batch until nothing of it is left to take. */
static void help(mm_feed *f, workspace *h, slot *s)
{
    int64_t lo, hi;
    pthread_mutex_lock(&f->lock);
    while (take_piece_of(f, s, &lo, &hi)) {
        pthread_mutex_unlock(&f->lock);
        prepare_piece(f, h, s, lo, hi);
        pthread_mutex_lock(&f->lock);
        report_piece(f, s, lo, hi);
    }
    pthread_mutex_unlock(&f->lock);
}

static void wait_for(mm_feed *f, const slot *s)
{
    pthread_mutex_lock(&f->lock);
    while (s->n_done < s->n)
        pthread_cond_wait(&f->done, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* ---- create, destroy --------------------------------------------------- */

/** Without workers the slots share their images: only one batch is prepared
 * at a time, when the one before it is no longer in use. */
static mm_status create_slot(mm_feed *f, slot *s)
{
    size_t n = (size_t)f->plan.most_images + 1; /* never an empty block */
    if (f->plan.n_workers || s == f->slots) {
        MM_TRY(mm_host_alloc(f->plan.device, (int64_t)n * f->image_bytes,
                             &s->memory));
        s->images = s->memory;
    } else {
        s->images = f->slots[0].images;
    }
    s->samples = malloc(n * sizeof *s->samples);
    s->status = malloc(n * sizeof *s->status);
    s->bad = malloc(n * sizeof *s->bad);
    return s->samples && s->status && s->bad
               ? MM_OK
               : mm_fail(MM_E_MEMORY, "no memory for batches of %lld images",
                         (long long)f->plan.most_images);
}

static mm_status create_workspaces(mm_feed *f)
{
    f->workspaces = calloc((size_t)f->n_workspaces, sizeof *f->workspaces);
    if (!f->workspaces)
        return mm_fail(MM_E_MEMORY, "no memory to read images");
    for (int i = 0; i < f->n_workspaces; i++) {
        MM_TRY(mm_sample_reader_create(f->plan.half, &f->workspaces[i].reader));
        MM_TRY(mm_transform_create(f->plan.image_size,
                                   &f->workspaces[i].transform));
    }
    return MM_OK;
}

/** Signals are left to the program's own thread. */
static mm_status start_workers(mm_feed *f)
{
    sigset_t all, before;
    mm_status st = MM_OK;
    f->workers = calloc((size_t)f->plan.n_workers + 1, sizeof *f->workers);
    if (!f->workers)
        return mm_fail(MM_E_MEMORY, "no memory for threads");
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (int i = 0; st == MM_OK && i < f->plan.n_workers; i++) {
        worker *w = &f->workers[i];
        w->feed = f;
        w->workspace = &f->workspaces[i];
        int error = pthread_create(&w->thread, NULL, work, w);
        if (error)
            st = mm_fail(MM_E_IO, "cannot start %d threads to read images: %s",
                         f->plan.n_workers, strerror(error));
        else
            f->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

mm_status mm_feed_create(const mm_feed_plan *plan, mm_feed **feed)
{
    mm_feed *f = calloc(1, sizeof *f);
    *feed = f;
    if (!f)
        return mm_fail(MM_E_MEMORY, "no memory to read images");
    f->plan = *plan;
    f->image_bytes = plan->image_size * plan->image_size * 3;
    f->piece = plan->half->storage == MM_STORED_PIXELS ? PIXELS_PIECE : 1;
    f->n_workspaces = plan->n_workers ? plan->n_workers + 1 : plan->n_threads;
    f->n_slots = plan->n_workers ? N_SLOTS : 2;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->pushed, NULL);
    pthread_cond_init(&f->done, NULL);
    mm_status st;
    MM_TRY_GOTO(st, fail, create_workspaces(f));
    for (int i = 0; i < f->n_slots; i++)
        MM_TRY_GOTO(st, fail, create_slot(f, &f->slots[i]));
    MM_TRY_GOTO(st, fail, start_workers(f));
    return MM_OK;
fail:
    mm_feed_destroy(feed);
    return st;
}

void mm_feed_destroy(mm_feed **feed)
{
    mm_feed *f = *feed;
    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->pushed);
    pthread_mutex_unlock(&f->lock);
    for (int i = 0; i < f->n_started; i++)
        pthread_join(f->workers[i].thread, NULL);
    free(f->workers);
    for (int i = 0; f->workspaces && i < f->n_workspaces; i++) {
        mm_sample_reader_destroy(&f->workspaces[i].reader);
        mm_transform_destroy(&f->workspaces[i].transform);
    }
    free(f->workspaces);
    for (int i = 0; i < f->n_slots; i++) {
        mm_host_free(f->plan.device, &f->slots[i].memory);
        free(f->slots[i].samples);
        free(f->slots[i].status);
        free(f->slots[i].bad);
    }
    pthread_cond_destroy(&f->pushed);
    pthread_cond_destroy(&f->done);
    pthread_mutex_destroy(&f->lock);
    free(f);
    *feed = NULL;
}

int mm_feed_default_workers(const mm_half *half, int n_threads)
{
    enum { MOST = 16 };
    if (half->storage == MM_STORED_PIXELS)
        return 0;
    return n_threads < MOST ? n_threads : MOST;
}

/* ---- batches ----------------------------------------------------------- */

/* The slot that was given last is in use until the next one is asked for. */
bool mm_feed_has_room(const mm_feed *f)
{
    int64_t n_used = f->n_given > 0;
    return f->n_pushed - f->n_given + n_used < f->n_slots;
}

void mm_feed_push(mm_feed *f, const int64_t *samples, int64_t n, int64_t epoch)
{
    MM_ASSERT(mm_feed_has_room(f) && n <= f->plan.most_images);
    slot *s = &f->slots[f->n_pushed % f->n_slots];
    s->n = n;
    s->epoch = epoch;
    s->n_taken = s->n_done = 0;
    memcpy(s->samples, samples, (size_t)n * sizeof *samples);
    pthread_mutex_lock(&f->lock);
    f->n_pushed++;
    pthread_cond_broadcast(&f->pushed);
    pthread_mutex_unlock(&f->lock);
}

static bool is_content(mm_status st)
{
    return st == MM_E_FORMAT || st == MM_E_VALUE;
}

/** Take bad images out of a batch that is done; the others keep their order. */
static mm_status leave_out_bad(const mm_feed *f, slot *s, mm_feed_batch *fed)
{
    int64_t n = 0, n_bad = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (s->status[i] != MM_OK) {
            if (!f->plan.skip_bad || !is_content(s->status[i]))
                return mm_fail(s->status[i], "%s", s->bad[i].why);
            if (n_bad < i)
                s->bad[n_bad] = s->bad[i];
            n_bad++;
            continue;
        }
        if (n < i) {
            memcpy(s->images + n * f->image_bytes,
                   s->images + i * f->image_bytes, (size_t)f->image_bytes);
            s->samples[n] = s->samples[i];
        }
        n++;
    }
    *fed = (mm_feed_batch){n, s->images, s->samples, n_bad, s->bad};
    return MM_OK;
}

mm_status mm_feed_next(mm_feed *f, mm_feed_batch *fed)
{
    MM_ASSERT(f->n_given < f->n_pushed);
    slot *s = &f->slots[f->n_given % f->n_slots];
    double begin_s = mm_clock_s();
    *fed = (mm_feed_batch){0};
    if (f->plan.n_workers) {
        help(f, &f->workspaces[f->plan.n_workers], s);
        wait_for(f, s);
    } else {
#pragma omp parallel num_threads(f->plan.n_threads)
        help(f, &f->workspaces[omp_get_thread_num()], s);
    }
    pthread_mutex_lock(&f->lock);
    f->n_given++;
    pthread_mutex_unlock(&f->lock);
    mm_status st = leave_out_bad(f, s, fed);
    f->wait_s += mm_clock_s() - begin_s;
    return st;
}

void mm_feed_cancel(mm_feed *f)
{
    pthread_mutex_lock(&f->lock);
    for (int64_t i = f->n_given; i < f->n_pushed; i++) {
        slot *s = &f->slots[i % f->n_slots];
        s->n_done += s->n - s->n_taken;
        s->n_taken = s->n;
    }
    for (int64_t i = f->n_given; i < f->n_pushed; i++) {
        const slot *s = &f->slots[i % f->n_slots];
        while (s->n_done < s->n)
            pthread_cond_wait(&f->done, &f->lock);
    }
    f->n_given = f->n_pushed;
    pthread_mutex_unlock(&f->lock);
}

double mm_feed_wait_s(const mm_feed *f)
{
    return f->wait_s;
}
