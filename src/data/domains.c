/* The synthetic domains, and a data set in memory whose images are repeated in
 * each of them. */

#include "src/data/domains.h"

#include "io/dataset/sample.h"
#include "src/base/names.h"
#include "src/base/rng.h"
#include "src/data/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/** Where the noise of one image comes from. */
typedef struct noise_source {
    mm_rng_key key;
    uint64_t sample; /* in the data set's own order, test half apart */
} noise_source;

/** One kind of change: image to out, which has as many bytes. */
typedef struct domain_kind {
    const char *name;
    void (*apply)(const mm_image *image, const noise_source *noise,
                  uint8_t *out);
    bool swaps_sides; /* height and width change places */
} domain_kind;

static int64_t image_bytes(const mm_image *image)
{
    return image->height * image->width * image->channels;
}

static void upright(const mm_image *image, const noise_source *noise,
                    uint8_t *out)
{
    (void)noise;
    memcpy(out, image->pixels, (size_t)image_bytes(image));
}

static void rot90(const mm_image *image, const noise_source *noise,
                  uint8_t *out)
{
    (void)noise;
    int64_t w = image->width, n_channels = image->channels;
    for (int64_t y = 0; y < w; y++)
        for (int64_t x = 0; x < image->height; x++)
            for (int64_t c = 0; c < n_channels; c++)
                *out++ = image->pixels[(x * w + w - 1 - y) * n_channels + c];
}

static void invert(const mm_image *image, const noise_source *noise,
                   uint8_t *out)
{
    (void)noise;
    int64_t n = image_bytes(image);
    for (int64_t i = 0; i < n; i++)
        out[i] = (uint8_t)(255 - image->pixels[i]);
}

static void flip_and_add_noise(const mm_image *image, const noise_source *noise,
                               uint8_t *out)
{
    int64_t row_bytes = image->width * image->channels;
    for (int64_t i = 0; i < image_bytes(image); i++) {
        int64_t y = image->height - 1 - i / row_bytes;
        double v = image->pixels[y * row_bytes + i % row_bytes];
        double noisy =
            36 + v / 2 +
            63 * mm_rng_normal(noise->key, noise->sample, (uint64_t)i);
        out[i] = (uint8_t)nearbyint(fmin(fmax(noisy, 0), 255));
    }
}

/** Mean of what there is of a 2 x 2 block, rounded to nearest, halves up. */
static uint8_t block_mean(const mm_image *image, int64_t y, int64_t x,
                          int channel)
{
    int sum = 0, n = 0;
    for (int64_t i = y; i < y + 2 && i < image->height; i++)
        for (int64_t j = x; j < x + 2 && j < image->width; j++, n++)
            sum += image->pixels[(i * image->width + j) * image->channels +
                                 channel];
    return (uint8_t)((sum + n / 2) / n);
}

static void pixelate(const mm_image *image, const noise_source *noise,
                     uint8_t *out)
{
    (void)noise;
    for (int64_t y = 0; y < image->width; y++)
        for (int64_t x = 0; x < image->height; x++)
            for (int c = 0; c < image->channels; c++)
                *out++ = block_mean(image, x / 2 * 2, y / 2 * 2, c);
}

enum { N_KINDS = 5 };

static const domain_kind kinds[N_KINDS] = {
    {"upright", upright, false},  {"rot90", rot90, true},
    {"invert", invert, false},    {"noise", flip_and_add_noise, false},
    {"pixelate", pixelate, true},
};

static const domain_kind *find_kind(const char *name)
{
    for (int i = 0; i < N_KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

mm_status mm_domains_check(const char *const *names, int n_names)
{
    const char *known[N_KINDS];
    for (int i = 0; i < N_KINDS; i++)
        known[i] = kinds[i].name;
    for (int i = 0; i < n_names; i++) {
        if (!find_kind(names[i]))
            return mm_names_unknown("domain", names[i], known, N_KINDS);
        for (int j = 0; j < i; j++)
            if (strcmp(names[i], names[j]) == 0)
                return mm_fail(MM_E_ARG, "domain %s is named twice", names[i]);
    }
    return MM_OK;
}

/** Whether a domain turns the half's images; all of them must agree where
 * images are not square. */
static mm_status check_sides(const mm_dataset *source, const mm_half *half,
                             const mm_domains_plan *plan)
{
    if (half->height == half->width)
        return MM_OK;
    for (int i = 1; i < plan->n_names; i++) {
        bool swaps = find_kind(plan->names[i])->swaps_sides;
        if (swaps != find_kind(plan->names[0])->swaps_sides)
            return mm_fail(MM_E_ARG,
                           "domains %s and %s of %s would have images of two "
                           "sizes: %lld x %lld is not square",
                           plan->names[0], plan->names[i], source->name,
                           (long long)half->height, (long long)half->width);
    }
    return MM_OK;
}

static mm_status check_source(const mm_dataset *source,
                              const mm_domains_plan *plan)
{
    MM_TRY(mm_domains_check(plan->names, plan->n_names));
    if (plan->n_names > 0 && (source->train.domains || source->test.domains))
        return mm_fail(MM_E_ARG,
                       "%s has domains already; make new ones from a data set "
                       "without",
                       source->name);
    if (source->train.storage != MM_STORED_PIXELS ||
        source->test.storage != MM_STORED_PIXELS)
        return mm_fail(MM_E_ARG,
                       "domains need images of one size: pack %s with --resize "
                       "first, and make domains from that file",
                       source->name);
    MM_TRY(check_sides(source, &source->train, plan));
    return check_sides(source, &source->test, plan);
}

/** The images of one half that are kept, and where they go. */
typedef struct expansion {
    const mm_half *from;
    const int64_t *kept; /* [n_kept] indices into `from` */
    int64_t n_kept;
    uint64_t first_sample; /* keeps the halves' noise apart */
    mm_half *to;
} expansion;

static mm_status allocate(const expansion *e, const mm_domains_plan *plan)
{
    const mm_half *from = e->from;
    mm_half *to = e->to;
    bool many = plan->n_names > 0;
    bool swaps = many && find_kind(plan->names[0])->swaps_sides;
    to->n_images = e->n_kept * (many ? plan->n_names : 1);
    to->height = swaps ? from->width : from->height;
    to->width = swaps ? from->height : from->width;
    to->channels = from->channels;
    size_t n = (size_t)to->n_images + 1; /* never an empty block */
    uint8_t *pixels =
        malloc(n * (size_t)(to->height * to->width * to->channels) + 1);
    to->pixels = pixels;
    to->labels = malloc(n * sizeof *to->labels);
    if (many || from->domains)
        to->domains = malloc(n * sizeof *to->domains);
    if (!pixels || !to->labels || ((many || from->domains) && !to->domains))
        return mm_fail(MM_E_MEMORY, "no memory for %lld images of %lld x %lld",
                       (long long)to->n_images, (long long)to->height,
                       (long long)to->width);
    return MM_OK;
}

/** Fill the images of one domain: the n_kept places from domain * n_kept on. */
static mm_status expand(const expansion *e, const mm_domains_plan *plan,
                        int domain, int64_t *n_done, mm_log *log)
{
    const domain_kind *kind =
        plan->n_names > 0 ? find_kind(plan->names[domain]) : &kinds[0];
    noise_source noise = {mm_rng_key_of(plan->seed, MM_RNG_DOMAIN), 0};
    mm_half *to = e->to;
    /* The half owns its pixels, which are constant for others. */
    uint8_t *pixels = (uint8_t *)(uintptr_t)to->pixels;
    mm_sample_reader *reader;
    mm_image image;
    MM_TRY(mm_sample_reader_create(e->from, &reader));
    mm_status st = MM_OK;
    for (int64_t i = 0; i < e->n_kept; i++) {
        int64_t at = domain * e->n_kept + i, sample = e->kept[i];
        MM_TRY_GOTO(st, done, mm_sample_read(reader, sample, &image));
        noise.sample = e->first_sample + (uint64_t)sample;
        kind->apply(&image, &noise, pixels + at * image_bytes(&image));
        to->labels[at] = e->from->labels[sample];
        if (to->domains)
            to->domains[at] =
                plan->n_names > 0 ? domain : e->from->domains[sample];
        mm_progress_update(log, ++*n_done, kind->name);
    }
done:
    mm_sample_reader_destroy(&reader);
    return st;
}

static void name_domains(const mm_dataset *source, const mm_domains_plan *plan,
                         mm_dataset *made)
{
    made->n_classes = source->n_classes;
    made->class_names = source->class_names;
    made->n_domains = source->n_domains;
    made->domain_names = source->domain_names;
    if (plan->n_names > 0) {
        made->n_domains = plan->n_names;
        made->domain_names = (char **)(uintptr_t)plan->names;
    }
}

mm_status mm_domains_create(const mm_dataset *source,
                            const mm_domains_plan *plan, mm_log *log,
                            mm_dataset **made)
{
    MM_TRY(check_source(source, plan));
    /* One task that holds everything: what the limit keeps. */
    mm_split_plan everything = {.strategy = MM_SPLIT_NONE,
                                .n_classes = source->n_classes,
                                .train_per_class = plan->train_per_class};
    mm_task_list kept = {0};
    MM_TRY(mm_task_list_init(source, &everything, &kept));

    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a data set");
    mm_dataset *d = calloc(1, sizeof *d);
    if (!d)
        goto done;
    const mm_task *task = &kept.tasks[0];
    expansion halves[2] = {
        {&source->train, task->train, task->n_train, 0, &d->train},
        {&source->test, source->same_halves ? NULL : task->test,
         source->same_halves ? 0 : task->n_test, (uint64_t)1 << 40, &d->test},
    };
    d->same_halves = source->same_halves;
    d->name = source->name;
    name_domains(source, plan, d);
    MM_TRY_GOTO(st, done, allocate(&halves[0], plan));
    MM_TRY_GOTO(st, done, allocate(&halves[1], plan));

    int64_t n_done = 0;
    int n_domains = plan->n_names > 0 ? plan->n_names : 1;
    mm_progress_begin(log, "packing", "images",
                      d->train.n_images + d->test.n_images);
    for (int half = 0; half < 2; half++)
        for (int domain = 0; domain < n_domains; domain++)
            MM_TRY_GOTO(st, done,
                        expand(&halves[half], plan, domain, &n_done, log));
    mm_progress_end(log);
    *made = d;
    d = NULL;
done:
    mm_domains_destroy(&d);
    mm_task_list_clear(&kept);
    return st;
}

void mm_domains_destroy(mm_dataset **made)
{
    if (!*made)
        return;
    mm_half *halves[2] = {&(*made)->train, &(*made)->test};
    for (int i = 0; i < 2; i++) {
        free((void *)(uintptr_t)halves[i]->pixels);
        free(halves[i]->labels);
        free(halves[i]->domains);
    }
    free(*made);
    *made = NULL;
}
