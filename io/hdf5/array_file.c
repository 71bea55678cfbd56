/* Writes small HDF5 files of a few arrays each, and reads lists of strings from
 * them. */

#include "io/hdf5/array_file.h"

#include "io/file.h"
#include "io/hdf5/hdf5_strings.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static mm_status write_numbers(const char *path, hid_t file,
                               const mm_array *array)
{
    hid_t stored = array->type == MM_ARRAY_F32 ? H5T_IEEE_F32LE : H5T_STD_I32LE;
    hid_t held =
        array->type == MM_ARRAY_F32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_INT32;
    hid_t space = MM_H5_NONE, properties = MM_H5_NONE, dataset = MM_H5_NONE;
    hsize_t dims[2] = {(hsize_t)array->shape[0], (hsize_t)array->shape[1]};
    mm_status st;

    MM_TRY_GOTO(st, done,
                MM_H5_GET(space, path, "bad shape",
                          H5Screate_simple(array->n_dims, dims, NULL)));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(path, &properties));
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, path, "cannot create a dataset",
                          H5Dcreate2(file, array->name, stored, space,
                                     H5P_DEFAULT, properties, H5P_DEFAULT)));
    if (H5Sget_simple_extent_npoints(space) > 0)
        st = MM_H5(path, "cannot write a dataset",
                   H5Dwrite(dataset, held, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                            array->data));
done:
    mm_h5_close(&dataset);
    mm_h5_close(&properties);
    mm_h5_close(&space);
    return st;
}

static mm_status write_one(const char *path, hid_t file, const mm_array *array)
{
    switch (array->type) {
    case MM_ARRAY_TEXT:
        return mm_h5_write_text(path, file, array->name, array->data);
    case MM_ARRAY_STRINGS:
        return mm_h5_write_strings(path, file, array->name, array->data,
                                   array->shape[0]);
    case MM_ARRAY_F32:
    case MM_ARRAY_I32:
        break;
    }
    return write_numbers(path, file, array);
}

static mm_status write_all(const char *path, const mm_array *arrays,
                           int n_arrays)
{
    hid_t file = MM_H5_NONE;
    mm_status st = mm_h5_create(path, &file);
    for (int i = 0; st == MM_OK && i < n_arrays; i++)
        st = write_one(path, file, &arrays[i]);
    if (st == MM_OK)
        st = mm_h5_finish(path, &file);
    mm_h5_close(&file);
    return st;
}

mm_status mm_array_file_write(const char *path, const mm_array *arrays,
                              int n_arrays)
{
    char *tmp_path;
    if (asprintf(&tmp_path, "%s.tmp", path) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = write_all(tmp_path, arrays, n_arrays);
    if (st == MM_OK)
        st = mm_file_commit(tmp_path, path);
    if (st != MM_OK)
        unlink(tmp_path);
    free(tmp_path);
    return st;
}

mm_status mm_array_file_read_strings(const char *path, const char *name,
                                     int64_t most, char ***strings, int64_t *n)
{
    *strings = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    bool is_hdf5 = mm_h5_is_file(fd);
    close(fd);
    if (!is_hdf5)
        return MM_OK;
    hid_t file = MM_H5_NONE;
    mm_status st = mm_h5_open(path, false, &file);
    if (st == MM_OK)
        st = mm_h5_read_strings(path, file, name, most, strings, n);
    mm_h5_close(&file);
    return st;
}
