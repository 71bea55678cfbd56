/* What all readers and writers of HDF5 files share: errors as mm_status,
 * settings, scalar texts, and the check of format and version. */

#include "io/hdf5/hdf5_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REASON_BYTES = 400 };

/* Longest text that is read, against files that claim more. */
static const size_t max_text_bytes = (size_t)256 << 20;

/* A file whose closing failed (a full disk) stays half open inside HDF5, which
 * crashes on it when it cleans up: when the process exits, and when MPI ends if
 * MPI was there before HDF5. So HDF5 starts first, and never cleans up; all is
 * closed by then. */
__attribute__((constructor)) static void start(void)
{
    H5dont_atexit();
    H5open();
}

static herr_t take_innermost(unsigned n, const H5E_error2_t *error, void *data)
{
    char *reason = data;
    if (n == 0 && error->desc)
        snprintf(reason, REASON_BYTES, "%s", error->desc);
    return 0;
}

mm_status mm_h5_fail(mm_status status, const char *path, const char *what)
{
    char reason[REASON_BYTES] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, reason);
    /* Of a failed system call, only the system's words. */
    char *system = strstr(reason, "error message = '");
    if (system) {
        memmove(reason, system + 17, strlen(system + 17) + 1);
        reason[strcspn(reason, "'")] = '\0';
    }
    return mm_fail(status, "%.500s: %s%s%s", path, what, *reason ? ": " : "",
                   reason);
}

bool mm_h5_is_file(int fd)
{
    static const char signature[] = "\x89HDF\r\n\x1a\n";
    char start[8];
    for (off_t at = 0; at <= 1 << 20; at = at ? 2 * at : 512)
        if (pread(fd, start, 8, at) == 8 && memcmp(start, signature, 8) == 0)
            return true;
    return false;
}

static mm_status access_properties(const char *path, hid_t *properties)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    *properties = H5Pcreate(H5P_FILE_ACCESS);
    if (*properties < 0 ||
        H5Pset_libver_bounds(*properties, H5F_LIBVER_V18, H5F_LIBVER_LATEST) <
            0 ||
        H5Pset_fclose_degree(*properties, H5F_CLOSE_STRONG) < 0 ||
        H5Pset_file_locking(*properties, false, true) < 0)
        return mm_h5_fail(MM_E_IO, path, "HDF5 refuses its settings");
    return MM_OK;
}

mm_status mm_h5_create(const char *path, hid_t *file)
{
    hid_t access = MM_H5_NONE, creation = MM_H5_NONE;
    mm_status st = access_properties(path, &access);
    if (st != MM_OK)
        goto done;
    creation = H5Pcreate(H5P_FILE_CREATE);
    if (creation < 0 || H5Pset_obj_track_times(creation, false) < 0 ||
        H5Pset_link_creation_order(creation, H5P_CRT_ORDER_TRACKED |
                                                 H5P_CRT_ORDER_INDEXED) < 0)
        MM_TRY_GOTO(st, done,
                    mm_h5_fail(MM_E_IO, path, "HDF5 refuses its settings"));
    st = MM_H5_GET(*file, path, "cannot be created",
                   H5Fcreate(path, H5F_ACC_TRUNC, creation, access));
done:
    mm_h5_close(&creation);
    mm_h5_close(&access);
    return st;
}

mm_status mm_h5_open(const char *path, bool to_write, hid_t *file)
{
    hid_t access = MM_H5_NONE;
    mm_status st = access_properties(path, &access);
    if (st == MM_OK) {
        *file = H5Fopen(path, to_write ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access);
        if (*file < 0)
            st = mm_h5_fail(to_write ? MM_E_IO : MM_E_FORMAT, path,
                            "HDF5 cannot open it");
    }
    mm_h5_close(&access);
    return st;
}

mm_status mm_h5_finish(const char *path, hid_t *file)
{
    mm_status st = MM_H5(path, "cannot be written", H5Fclose(*file));
    *file = MM_H5_NONE;
    return st;
}

void mm_h5_close(hid_t *handle)
{
    if (*handle >= 0) {
        switch (H5Iget_type(*handle)) {
        case H5I_FILE:
            H5Fclose(*handle);
            break;
        case H5I_GENPROP_LST:
            H5Pclose(*handle);
            break;
        case H5I_ATTR:
            H5Aclose(*handle);
            break;
        case H5I_DATASPACE:
            H5Sclose(*handle);
            break;
        case H5I_DATATYPE:
            H5Tclose(*handle);
            break;
        default:
            H5Oclose(*handle);
        }
    }
    *handle = MM_H5_NONE;
}

mm_status mm_h5_contiguous(const char *path, hid_t *properties)
{
    *properties = H5Pcreate(H5P_DATASET_CREATE);
    if (*properties < 0 || H5Pset_layout(*properties, H5D_CONTIGUOUS) < 0 ||
        H5Pset_alloc_time(*properties, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(*properties, H5D_FILL_TIME_NEVER) < 0 ||
        H5Pset_obj_track_times(*properties, false) < 0)
        return mm_h5_fail(MM_E_IO, path, "HDF5 refuses its settings");
    return MM_OK;
}

int64_t mm_h5_offset(hid_t dataset)
{
    hid_t space = H5Dget_space(dataset);
    hssize_t n_elems = H5Sget_simple_extent_npoints(space);
    mm_h5_close(&space);
    if (n_elems == 0)
        return 0;
    haddr_t offset = H5Dget_offset(dataset);
    return offset == HADDR_UNDEF || offset > INT64_MAX ? -1 : (int64_t)offset;
}

static hid_t text_type(size_t n_bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, n_bytes ? n_bytes : 1) < 0 ||
                      H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
                      H5Tset_cset(type, H5T_CSET_UTF8) < 0))
        mm_h5_close(&type);
    return type;
}

mm_status mm_h5_write_text_attribute(const char *path, hid_t object,
                                     const char *name, const char *text)
{
    hid_t type = text_type(strlen(text)), space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    mm_status st = MM_OK;
    if (attribute < 0 || H5Awrite(attribute, type, text) < 0)
        st = mm_h5_fail(MM_E_IO, path, "cannot write an attribute");
    mm_h5_close(&attribute);
    mm_h5_close(&space);
    mm_h5_close(&type);
    return st;
}

mm_status mm_h5_write_int_attribute(const char *path, hid_t object,
                                    const char *name, int value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I32LE, space,
                                 H5P_DEFAULT, H5P_DEFAULT);
    mm_status st = MM_OK;
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT, &value) < 0)
        st = mm_h5_fail(MM_E_IO, path, "cannot write an attribute");
    mm_h5_close(&attribute);
    mm_h5_close(&space);
    return st;
}

mm_status mm_h5_write_text(const char *path, hid_t file, const char *name,
                           const char *text)
{
    hid_t type = text_type(strlen(text)), space = H5Screate(H5S_SCALAR);
    hid_t properties = MM_H5_NONE, dataset = MM_H5_NONE;
    mm_status st = mm_h5_contiguous(path, &properties);
    if (st == MM_OK)
        dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties,
                             H5P_DEFAULT);
    if (st == MM_OK && (dataset < 0 || H5Dwrite(dataset, type, H5S_ALL, H5S_ALL,
                                                H5P_DEFAULT, text) < 0))
        st = mm_h5_fail(MM_E_IO, path, "cannot write a text");
    mm_h5_close(&dataset);
    mm_h5_close(&properties);
    mm_h5_close(&space);
    mm_h5_close(&type);
    return st;
}

/* One scalar string from an attribute or a dataset. */
static mm_status read_text(const char *path, const char *name, hid_t object,
                           hid_t type, hid_t space, char **text)
{
    bool is_attribute = H5Iget_type(object) == H5I_ATTR;
    if (H5Tget_class(type) != H5T_STRING ||
        H5Sget_simple_extent_npoints(space) != 1)
        return mm_fail(MM_E_FORMAT, "%s: %s is not one text", path, name);
    size_t n_bytes = H5Tget_size(type);
    if (H5Tis_variable_str(type) > 0) {
        char *value = NULL;
        herr_t bad = is_attribute ? H5Aread(object, type, &value)
                                  : H5Dread(object, type, H5S_ALL, H5S_ALL,
                                            H5P_DEFAULT, &value);
        if (bad < 0)
            return mm_h5_fail(MM_E_FORMAT, path, "cannot read a text");
        *text = strdup(value ? value : "");
        H5free_memory(value);
    } else {
        if (n_bytes > max_text_bytes)
            return mm_fail(MM_E_FORMAT, "%s: %s is too long", path, name);
        *text = calloc(1, n_bytes + 1);
        herr_t bad = 0;
        if (*text)
            bad = is_attribute ? H5Aread(object, type, *text)
                               : H5Dread(object, type, H5S_ALL, H5S_ALL,
                                         H5P_DEFAULT, *text);
        if (bad < 0) {
            free(*text);
            *text = NULL;
            return mm_h5_fail(MM_E_FORMAT, path, "cannot read a text");
        }
    }
    if (!*text)
        return mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name);
    return MM_OK;
}

mm_status mm_h5_read_text_attribute(const char *path, hid_t object,
                                    const char *name, char **text)
{
    *text = NULL;
    htri_t there = H5Aexists(object, name);
    if (there == 0)
        return MM_OK;
    hid_t attribute = there > 0 ? H5Aopen(object, name, H5P_DEFAULT) : -1;
    if (attribute < 0)
        return mm_h5_fail(MM_E_FORMAT, path, "cannot read an attribute");
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    mm_status st = read_text(path, name, attribute, type, space, text);
    mm_h5_close(&space);
    mm_h5_close(&type);
    mm_h5_close(&attribute);
    return st;
}

mm_status mm_h5_read_text(const char *path, hid_t file, const char *name,
                          char **text)
{
    *text = NULL;
    htri_t there = H5Lexists(file, name, H5P_DEFAULT);
    if (there == 0)
        return MM_OK;
    hid_t dataset = there > 0 ? H5Dopen2(file, name, H5P_DEFAULT) : -1;
    if (dataset < 0)
        return mm_h5_fail(MM_E_FORMAT, path, "cannot open a text");
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    mm_status st = read_text(path, name, dataset, type, space, text);
    mm_h5_close(&space);
    mm_h5_close(&type);
    mm_h5_close(&dataset);
    return st;
}

static mm_status read_version(const char *path, hid_t file, int *version)
{
    *version = 1;
    hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
    if (attribute < 0)
        return mm_h5_fail(MM_E_FORMAT, path, "has no format_version");
    hid_t space = H5Aget_space(attribute);
    mm_status st = MM_OK;
    if (H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(attribute, H5T_NATIVE_INT, version) < 0)
        st = mm_h5_fail(MM_E_FORMAT, path, "format_version is not a number");
    mm_h5_close(&space);
    mm_h5_close(&attribute);
    return st;
}

mm_status mm_h5_check_format(const char *path, hid_t file, const char *format,
                             bool *is_format)
{
    char *text;
    *is_format = false;
    MM_TRY(mm_h5_read_text_attribute(path, file, "format", &text));
    if (!text)
        return MM_OK;
    mm_status st = MM_OK;
    int version = 1;
    if (strcmp(text, format) == 0) {
        *is_format = true;
        st = read_version(path, file, &version);
    } else if (strncmp(text, "magmax-", 7) == 0) {
        st = mm_fail(MM_E_FORMAT, "%s is a %s, not a %s", path, text, format);
    }
    if (st == MM_OK && version != 1)
        st = mm_fail(MM_E_FORMAT,
                     "%s has format version %d; this program reads version 1",
                     path, version);
    free(text);
    return st;
}
