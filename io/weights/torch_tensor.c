/* Reads the description of one PyTorch tensor from its pickle: type, shape,
 * strides and storage, each checked. */

#include "io/weights/torch_tensor.h"

#include <stdio.h>
#include <string.h>

enum { MAX_WRAPPERS = 8 };

const char *const mm_torch_callables[] = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type",
    "torch._tensor._rebuild_from_type_v2",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
    "torchvision.transforms.functional.InterpolationMode",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.deque",
    "collections.Counter",
    "functools.partial",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "copyreg.__newobj__",
    "_codecs.encode",
    "builtins.getattr", /* Python 3.11 writes members of an enum so */
    "builtins.set",
    "builtins.frozenset",
    "builtins.slice",
    "builtins.range",
    "builtins.complex",
    "builtins.bytearray",
    "builtins.object",
    "__builtin__.getattr",
    "__builtin__.set",
    "__builtin__.frozenset",
    "__builtin__.slice",
    "__builtin__.xrange",
    "__builtin__.complex",
    "__builtin__.bytearray",
    "__builtin__.object",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    NULL,
};

/* Types of tensors by the names of storages ("torch." Name "Storage") and of
 * PyTorch's dtypes ("torch." name). */
static const struct {
    const char *storage, *dtype;
    mm_elem_type type;
} types[] = {
    {"Double", "float64", MM_ELEM_F64},
    {"Float", "float32", MM_ELEM_F32},
    {"Half", "float16", MM_ELEM_F16},
    {"BFloat16", "bfloat16", MM_ELEM_BF16},
    {"Float8_e4m3fn", "float8_e4m3fn", MM_ELEM_F8_E4M3},
    {"Float8_e5m2", "float8_e5m2", MM_ELEM_F8_E5M2},
    {"Float8_e8m0fnu", "float8_e8m0fnu", MM_ELEM_F8_E8M0},
    {"Long", "int64", MM_ELEM_I64},
    {"Int", "int32", MM_ELEM_I32},
    {"Short", "int16", MM_ELEM_I16},
    {"Char", "int8", MM_ELEM_I8},
    {"UInt64", "uint64", MM_ELEM_U64},
    {"UInt32", "uint32", MM_ELEM_U32},
    {"UInt16", "uint16", MM_ELEM_U16},
    {"Byte", "uint8", MM_ELEM_U8},
    {"Bool", "bool", MM_ELEM_BOOL},
};
enum { N_TYPES = sizeof types / sizeof *types };

static bool is_call_of(const mm_pickle_value *value, const char *name)
{
    return value && value->kind == MM_PICKLE_OBJECT &&
           mm_pickle_is_global(value->object.callable, name);
}

/* How a tensor is made: by which function, of which arguments, and where the
 * dtype is among them (0: nowhere). */
typedef struct recipe {
    const mm_pickle_value *args;
    int dtype_at;
} recipe;

enum { METADATA_AT = 6 }; /* without a dtype; else behind it */

static bool is_maker(const mm_pickle_value *callable, int *dtype_at)
{
    *dtype_at = 0;
    if (mm_pickle_is_global(callable, "torch._utils._rebuild_tensor_v3")) {
        *dtype_at = 6;
        return true;
    }
    return mm_pickle_is_global(callable, "torch._utils._rebuild_tensor_v2") ||
           mm_pickle_is_global(callable, "torch._utils._rebuild_tensor");
}

static const mm_pickle_value *argument(const mm_pickle_value *args, int i)
{
    return args && args->kind == MM_PICKLE_TUPLE && i < args->n_items
               ? args->items[i]
               : NULL;
}

/* Through parameters and subclasses to the tensor itself. */
static bool find_recipe(const mm_pickle_value *value, recipe *r)
{
    for (int i = 0; i < MAX_WRAPPERS; i++) {
        if (!value || value->kind != MM_PICKLE_OBJECT)
            return false;
        const mm_pickle_value *args = value->object.args;
        if (is_maker(value->object.callable, &r->dtype_at)) {
            r->args = args;
            return true;
        }
        if (is_call_of(value, "torch._tensor._rebuild_from_type_v2") ||
            is_call_of(value, "torch._tensor._rebuild_from_type")) {
            r->args = argument(args, 2);
            return is_maker(argument(args, 0), &r->dtype_at);
        }
        if (!is_call_of(value, "torch._utils._rebuild_parameter") &&
            !is_call_of(value, "torch._utils._rebuild_parameter_with_state"))
            return false;
        value = argument(args, 0);
    }
    return false;
}

bool mm_torch_is_tensor(const mm_pickle_value *value)
{
    recipe unused;
    return find_recipe(value, &unused);
}

static mm_status malformed(const char *what)
{
    return mm_fail(MM_E_FORMAT, "its %s is malformed", what);
}

static bool is_type(const mm_pickle_value *global, const char *name,
                    const char *suffix)
{
    char full[64];
    snprintf(full, sizeof full, "torch.%s%s", name, suffix);
    return mm_pickle_is_global(global, full);
}

/* "UntypedStorage" under its several names: bytes, and the dtype says more. */
static bool is_untyped(const mm_pickle_value *global)
{
    return mm_pickle_is_global(global, "torch.UntypedStorage") ||
           mm_pickle_is_global(global, "torch.storage.UntypedStorage") ||
           mm_pickle_is_global(global, "torch.storage._UntypedStorage");
}

static mm_status read_type(const mm_pickle_value *global, bool is_dtype,
                           mm_torch_tensor *t)
{
    char name[MM_PICKLE_NAME_BYTES];
    if (!global || global->kind != MM_PICKLE_GLOBAL)
        return malformed("type");
    t->type = MM_ELEM_OTHER;
    for (int i = 0; i < N_TYPES; i++)
        if (is_dtype ? is_type(global, types[i].dtype, "")
                     : is_type(global, types[i].storage, "Storage"))
            t->type = types[i].type;
    mm_pickle_global_name(global, name);
    char *own = strncmp(name, "torch.", 6) == 0 ? name + 6 : name;
    char *suffix = strstr(own, "Storage");
    if (suffix)
        *suffix = '\0';
    snprintf(t->type_name, sizeof t->type_name, "%.15s", own);
    return MM_OK;
}

/* ("storage", type, key, location, number of elements) */
static mm_status read_storage(const mm_pickle_value *storage,
                              const mm_pickle_value *dtype, mm_torch_tensor *t)
{
    const mm_pickle_value *id =
        storage && storage->kind == MM_PICKLE_PERSISTENT ? storage->id : NULL;
    const mm_pickle_value *type = argument(id, 1), *key = argument(id, 2);
    const mm_pickle_value *n_elems = argument(id, 4);
    if (!mm_pickle_is_text(argument(id, 0), "storage") || !key ||
        key->kind != MM_PICKLE_TEXT || !n_elems ||
        n_elems->kind != MM_PICKLE_INT || n_elems->integer < 0)
        return malformed("storage");
    t->storage = key->text;
    t->storage_elems = n_elems->integer;
    MM_TRY(read_type(dtype ? dtype : type, dtype != NULL, t));
    if (is_untyped(type) && t->type != MM_ELEM_OTHER)
        t->storage_elems /= mm_elem_n_bytes(t->type);
    return MM_OK;
}

/* A tuple or list of numbers that are not negative; also of TorchScript, which
 * calls a function for it. */
static mm_status read_numbers(const mm_pickle_value *value, const char *what,
                              int *n, int64_t numbers[MM_MAX_DIMS])
{
    if (is_call_of(value, "torch.Size") ||
        is_call_of(value, "torch.jit._pickle.build_intlist"))
        value = argument(value->object.args, 0);
    if (!value ||
        (value->kind != MM_PICKLE_TUPLE && value->kind != MM_PICKLE_LIST))
        return malformed(what);
    if (value->n_items > MM_MAX_DIMS)
        return mm_fail(MM_E_FORMAT, "it has %d dimensions, at most %d are read",
                       value->n_items, MM_MAX_DIMS);
    *n = value->n_items;
    for (int i = 0; i < *n; i++) {
        const mm_pickle_value *item = value->items[i];
        if (item->kind != MM_PICKLE_INT || item->integer < 0)
            return malformed(what);
        numbers[i] = item->integer;
    }
    return MM_OK;
}

/* The number of elements, how far they reach, and whether in order. */
static mm_status measure(mm_torch_tensor *t)
{
    bool overflow = false;
    t->n_elems = 1;
    t->span_elems = 1;
    t->is_contiguous = true;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        int64_t reach;
        if (t->shape[i] > 1 && t->strides[i] != t->n_elems)
            t->is_contiguous = false;
        overflow |=
            __builtin_mul_overflow(t->n_elems, t->shape[i], &t->n_elems);
        overflow |=
            __builtin_mul_overflow(t->shape[i] - 1, t->strides[i], &reach);
        overflow |=
            __builtin_add_overflow(t->span_elems, reach, &t->span_elems);
        if (t->shape[i] == 0)
            break;
    }
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] == 0) {
            t->n_elems = t->span_elems = t->off_elems = 0;
            t->is_contiguous = true;
            return MM_OK;
        }
    if (overflow || t->off_elems > t->storage_elems - t->span_elems)
        return mm_fail(MM_E_FORMAT,
                       "its shape, strides or offset reach out of its storage "
                       "of %lld elements",
                       (long long)t->storage_elems);
    /* Expanded tensors repeat elements; without this, a small file could claim
     * any size. */
    if (t->n_elems > t->storage_elems)
        return mm_fail(MM_E_FORMAT,
                       "it has %lld elements in a storage of %lld; save a "
                       "contiguous() copy",
                       (long long)t->n_elems, (long long)t->storage_elems);
    return MM_OK;
}

/* A view of "minus" or "conjugate" shares its storage and differs in a mark. */
static mm_status check_marks(const recipe *r)
{
    static const char *const marks[] = {"neg", "conj"};
    const mm_pickle_value *metadata =
        argument(r->args, METADATA_AT + (r->dtype_at ? 1 : 0));
    for (int i = 0; metadata && i < 2; i++) {
        const mm_pickle_value *mark = mm_pickle_get(metadata, marks[i]);
        if (mark && (mark->kind != MM_PICKLE_BOOL || mark->integer))
            return mm_fail(MM_E_FORMAT,
                           "it is a view that PyTorch marks as \"%s\"; save a "
                           "resolve_%s() copy",
                           marks[i], marks[i]);
    }
    return MM_OK;
}

mm_status mm_torch_tensor_read(const mm_pickle_value *value,
                               mm_torch_tensor *tensor)
{
    recipe r;
    int n_strides;
    *tensor = (mm_torch_tensor){0};
    if (!find_recipe(value, &r))
        return malformed("tensor");
    const mm_pickle_value *offset = argument(r.args, 1);
    const mm_pickle_value *dtype =
        r.dtype_at ? argument(r.args, r.dtype_at) : NULL;
    if (r.dtype_at && !dtype)
        return malformed("type");
    MM_TRY(check_marks(&r));
    MM_TRY(read_storage(argument(r.args, 0), dtype, tensor));
    if (!offset || offset->kind != MM_PICKLE_INT || offset->integer < 0)
        return malformed("offset");
    tensor->off_elems = offset->integer;
    MM_TRY(read_numbers(argument(r.args, 2), "shape", &tensor->n_dims,
                        tensor->shape));
    MM_TRY(read_numbers(argument(r.args, 3), "stride", &n_strides,
                        tensor->strides));
    if (n_strides != tensor->n_dims)
        return malformed("stride");
    return measure(tensor);
}
