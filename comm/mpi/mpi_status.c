/* MPI's error codes as statuses. */

#include "comm/mpi/mpi_comm.h"

mm_status mm_mpi_failed(int code, const char *call)
{
    if (code == MPI_SUCCESS)
        return MM_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return mm_fail(MM_E_COMM, "%.60s: %.300s", call, text);
}
