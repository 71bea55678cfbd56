/* Lists of UTF-8 strings in HDF5 files, written and read as one block of
 * memory. */

#include "io/hdf5/hdf5_strings.h"

#include "src/base/names.h"
#include "src/base/utf8.h"

#include <stdlib.h>

/* UTF-8 strings of variable length; below 0 where HDF5 refuses. */
static hid_t string_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, H5T_VARIABLE) < 0 ||
                      H5Tset_cset(type, H5T_CSET_UTF8) < 0))
        mm_h5_close(&type);
    return type;
}

static mm_status write_valid(const char *path, hid_t file, const char *name,
                             char *const *strings, int64_t n)
{
    hid_t type = string_type(), space = MM_H5_NONE, properties = MM_H5_NONE;
    hid_t dataset = MM_H5_NONE;
    hsize_t size = (hsize_t)n;
    mm_status st;

    if (type < 0)
        MM_TRY_GOTO(st, done,
                    mm_h5_fail(MM_E_IO, path, "HDF5 refuses its settings"));
    MM_TRY_GOTO(
        st, done,
        MM_H5_GET(space, path, "bad shape", H5Screate_simple(1, &size, NULL)));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(path, &properties));
    /* HDF5 must set their references. */
    H5Pset_fill_time(properties, H5D_FILL_TIME_IFSET);
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, path, "cannot create a dataset",
                          H5Dcreate2(file, name, type, space, H5P_DEFAULT,
                                     properties, H5P_DEFAULT)));
    if (n > 0)
        st = MM_H5(
            path, "cannot write a dataset",
            H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, strings));
done:
    mm_h5_close(&dataset);
    mm_h5_close(&properties);
    mm_h5_close(&space);
    mm_h5_close(&type);
    return st;
}

mm_status mm_h5_write_strings(const char *path, hid_t file, const char *name,
                              const char *const *strings, int64_t n)
{
    char **stored = calloc((size_t)n + 1, sizeof *stored);
    mm_status st =
        stored ? MM_OK
               : mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name);
    for (int64_t i = 0; st == MM_OK && i < n; i++) {
        stored[i] = mm_utf8_escape(strings[i]);
        if (!stored[i])
            st = mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name);
    }
    if (st == MM_OK)
        st = write_valid(path, file, name, stored, n);
    for (int64_t i = 0; stored && i < n; i++)
        free(stored[i]);
    free(stored);
    return st;
}

/* The strings, which HDF5 allocates one by one, as one block. */
static mm_status copy_strings(const char *path, const char *name, hid_t dataset,
                              hid_t space, hid_t type, int64_t n,
                              char ***strings)
{
    char **held = calloc((size_t)n + 1, sizeof *held);
    if (!held)
        return mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name);
    mm_status st = MM_OK;
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, held) < 0)
        st = mm_h5_fail(MM_E_FORMAT, path, "cannot read strings");
    else
        st = mm_names_copy((const char *const *)held, n, strings);
    MM_ASSERT(st != MM_OK || *strings);
    for (int64_t i = 0; st == MM_OK && i < n; i++)
        st = mm_utf8_unescape((*strings)[i]);
    if (st != MM_OK) {
        free(*strings);
        *strings = NULL;
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, held);
    free(held);
    return st;
}

/* HDF5 converts strings of no other kind to those of variable length. */
static mm_status check_list(const char *path, const char *name, hid_t stored,
                            hid_t space, int64_t most, int64_t *n)
{
    hsize_t size = 0;
    if (H5Tis_variable_str(stored) <= 0 ||
        H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &size, NULL) < 0 || size < 1 ||
        size > (hsize_t)most)
        return mm_fail(MM_E_FORMAT,
                       "%s: %s must be a list of 1 to %lld variable-length "
                       "strings",
                       path, name, (long long)most);
    *n = (int64_t)size;
    return MM_OK;
}

mm_status mm_h5_read_strings(const char *path, hid_t file, const char *name,
                             int64_t most, char ***strings, int64_t *n)
{
    *strings = NULL;
    *n = 0;
    htri_t there = H5Lexists(file, name, H5P_DEFAULT);
    if (there == 0)
        return MM_OK;
    hid_t dataset = MM_H5_NONE, stored = MM_H5_NONE, space = MM_H5_NONE;
    hid_t type = MM_H5_NONE;
    int64_t size = 0;
    mm_status st;
    if (there < 0 || (dataset = H5Dopen2(file, name, H5P_DEFAULT)) < 0 ||
        (stored = H5Dget_type(dataset)) < 0 ||
        (space = H5Dget_space(dataset)) < 0 || (type = string_type()) < 0)
        MM_TRY_GOTO(st, done,
                    mm_h5_fail(MM_E_FORMAT, path, "cannot open strings"));
    MM_TRY_GOTO(st, done, check_list(path, name, stored, space, most, &size));
    /* What HDF5 converts to must have the stored character set. */
    H5Tset_cset(type, H5Tget_cset(stored));
    MM_TRY_GOTO(st, done,
                copy_strings(path, name, dataset, space, type, size, strings));
    *n = size;
done:
    mm_h5_close(&type);
    mm_h5_close(&space);
    mm_h5_close(&stored);
    mm_h5_close(&dataset);
    return st;
}
