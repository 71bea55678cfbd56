/* Finds the tensors in what torch.save was given and names them as state_dict()
 * does, also in whole modules and wrapped dictionaries. */

#include "io/weights/torch_names.h"

#include "io/weights/torch_tensor.h"
#include "io/weights/weights_reader.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 64,       /* of modules in modules; also ends cycles */
    MAX_VISITS = 1 << 18, /* of modules, by whatever paths */
    MAX_NAME_BYTES = 1024,
    MAX_UNWRAPPED = 4 /* dictionaries around the one that is meant */
};

/* Where a walk has come to. */
typedef struct walk {
    mm_torch_names *names;
    int n_visits, depth;
    char prefix[MAX_NAME_BYTES]; /* of the module that it is in, with a dot */
    size_t prefix_bytes;
} walk;

static mm_status append_name(walk *w, const mm_pickle_value *key)
{
    if (key->kind != MM_PICKLE_TEXT)
        return mm_fail(MM_E_FORMAT, "a tensor's name is not a text");
    mm_pickle_text text = key->text;
    if (text.n_bytes > (int64_t)(MAX_NAME_BYTES - 2 - w->prefix_bytes))
        return mm_fail(MM_E_FORMAT, "a tensor's name is longer than %d bytes",
                       MAX_NAME_BYTES - 2);
    for (int64_t i = 0; i < text.n_bytes; i++)
        if ((unsigned char)text.data[i] < ' ')
            return mm_fail(MM_E_FORMAT,
                           "a tensor's name has a control character");
    memcpy(w->prefix + w->prefix_bytes, text.data, (size_t)text.n_bytes);
    w->prefix_bytes += (size_t)text.n_bytes;
    return MM_OK;
}

static mm_status add_tensor(walk *w, const mm_pickle_value *key,
                            const mm_pickle_value *tensor)
{
    mm_torch_names *names = w->names;
    size_t prefix_bytes = w->prefix_bytes;
    int n = names->n_entries;
    MM_TRY(append_name(w, key));
    if (n >= MM_MAX_TENSORS)
        return mm_fail(MM_E_FORMAT, "it holds more than %d tensors",
                       MM_MAX_TENSORS);
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * (size_t)n : 1;
        struct mm_torch_named *grown =
            realloc(names->entries, capacity * sizeof *grown);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for names");
        names->entries = grown;
    }
    char *name = strndup(w->prefix, w->prefix_bytes);
    if (!name)
        return mm_fail(MM_E_MEMORY, "no memory for names");
    names->entries[n] = (struct mm_torch_named){name, tensor};
    names->n_entries++;
    w->prefix_bytes = prefix_bytes;
    return MM_OK;
}

/* Older protocols make a set by a call with a list. */
static const mm_pickle_value *set_items(const mm_pickle_value *set)
{
    if (set && set->kind == MM_PICKLE_OBJECT && set->object.args->n_items == 1)
        return set->object.args->items[0];
    return set;
}

/* Of a dictionary (or NULL), those entries that are tensors. `except`: a set of
 * names, or NULL. */
static mm_status add_tensors(walk *w, const mm_pickle_value *dict,
                             const mm_pickle_value *except)
{
    for (int32_t i = 0; dict && i < dict->n_pairs; i++) {
        const mm_pickle_value *key = dict->pairs[2 * i];
        const mm_pickle_value *value = dict->pairs[2 * i + 1];
        bool wanted = mm_torch_is_tensor(value);
        for (int32_t j = 0; wanted && except && j < except->n_items; j++) {
            const mm_pickle_value *other = except->items[j];
            wanted = other->kind != MM_PICKLE_TEXT ||
                     key->kind != MM_PICKLE_TEXT ||
                     other->text.n_bytes != key->text.n_bytes ||
                     memcmp(other->text.data, key->text.data,
                            (size_t)key->text.n_bytes) != 0;
        }
        if (wanted)
            MM_TRY(add_tensor(w, key, value));
    }
    return MM_OK;
}

/* An object's attributes, or NULL. With slots, the state is a pair. */
static const mm_pickle_value *attributes(const mm_pickle_value *value)
{
    if (!value || value->kind != MM_PICKLE_OBJECT)
        return NULL;
    const mm_pickle_value *state = value->object.state;
    if (state && state->kind == MM_PICKLE_TUPLE && state->n_items == 2)
        state = state->items[0];
    return state && state->kind == MM_PICKLE_DICT ? state : NULL;
}

static bool is_module(const mm_pickle_value *value)
{
    const mm_pickle_value *own = attributes(value);
    return own && mm_pickle_get(own, "_modules") &&
           mm_pickle_get(own, "_parameters");
}

static mm_status walk_module(walk *w, const mm_pickle_value *module,
                             bool is_script);

/* Modules among the entries of a dictionary (or NULL). */
static mm_status walk_modules(walk *w, const mm_pickle_value *dict,
                              bool is_script)
{
    for (int32_t i = 0; dict && i < dict->n_pairs; i++) {
        const mm_pickle_value *key = dict->pairs[2 * i];
        const mm_pickle_value *value = dict->pairs[2 * i + 1];
        if (!attributes(value) || mm_torch_is_tensor(value))
            continue;
        size_t prefix_bytes = w->prefix_bytes;
        MM_TRY(append_name(w, key));
        w->prefix[w->prefix_bytes++] = '.';
        MM_TRY(walk_module(w, value, is_script));
        w->prefix_bytes = prefix_bytes;
    }
    return MM_OK;
}

/* The order is that of state_dict(). */
static mm_status walk_module(walk *w, const mm_pickle_value *module,
                             bool is_script)
{
    const mm_pickle_value *own = attributes(module);
    if (w->depth == MAX_DEPTH || w->n_visits == MAX_VISITS)
        return mm_fail(MM_E_FORMAT,
                       "its modules are nested too deeply, or in themselves");
    w->depth++;
    w->n_visits++;
    if (is_script) {
        MM_TRY(add_tensors(w, own, NULL));
        MM_TRY(walk_modules(w, own, is_script));
    } else {
        const mm_pickle_value *except =
            set_items(mm_pickle_get(own, "_non_persistent_buffers_set"));
        MM_TRY(add_tensors(w, mm_pickle_get(own, "_parameters"), NULL));
        MM_TRY(add_tensors(w, mm_pickle_get(own, "_buffers"), except));
        MM_TRY(walk_modules(w, mm_pickle_get(own, "_modules"), is_script));
    }
    w->depth--;
    return MM_OK;
}

/* A model in a dictionary with other things, or NULL. */
static const mm_pickle_value *wrapped(const mm_pickle_value *dict)
{
    static const char *const keys[] = {"state_dict", "model_state_dict",
                                       "model", "module"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const mm_pickle_value *value = mm_pickle_get(dict, keys[i]);
        if (value && (is_module(value) ||
                      (value->n_pairs > 0 && !mm_torch_is_tensor(value))))
            return value;
    }
    return NULL;
}

static bool all_start_with(const mm_torch_names *names, const char *prefix)
{
    for (int i = 0; i < names->n_entries; i++)
        if (strncmp(names->entries[i].name, prefix, strlen(prefix)) != 0)
            return false;
    return names->n_entries > 0;
}

/* DistributedDataParallel and torch.compile name a model so. */
static void strip_prefixes(mm_torch_names *names)
{
    static const char *const prefixes[] = {"module.", "_orig_mod."};
    for (int i = 0; i < 2;) {
        size_t n_bytes = strlen(prefixes[i]);
        if (!all_start_with(names, prefixes[i])) {
            i++;
            continue;
        }
        for (int j = 0; j < names->n_entries; j++) {
            char *name = names->entries[j].name;
            memmove(name, name + n_bytes, strlen(name + n_bytes) + 1);
        }
        i = 0;
    }
}

mm_status mm_torch_names_read(const mm_pickle_value *root, bool is_script,
                              mm_torch_names *names)
{
    walk w = {.names = names};
    for (int i = 0; i < MAX_UNWRAPPED && !is_script && wrapped(root); i++)
        root = wrapped(root);
    if (is_script || is_module(root)) {
        names->kind =
            is_script ? MM_WEIGHTS_TORCHSCRIPT : MM_WEIGHTS_TORCH_MODULE;
        if (attributes(root))
            MM_TRY(walk_module(&w, root, is_script));
    } else {
        names->kind = MM_WEIGHTS_TORCH_DICT;
        MM_TRY(add_tensors(&w, root, NULL));
    }
    if (names->n_entries == 0)
        return mm_fail(MM_E_FORMAT,
                       "it holds no tensors that belong to a model: neither a "
                       "dictionary of tensors nor a module");
    strip_prefixes(names);
    return MM_OK;
}

void mm_torch_names_clear(mm_torch_names *names)
{
    for (int i = 0; i < names->n_entries; i++)
        free(names->entries[i].name);
    free(names->entries);
    *names = (mm_torch_names){0};
}
