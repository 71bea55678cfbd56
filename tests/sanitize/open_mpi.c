/*
 * Linked into sanitized executables only, for the leak check at exit.
 *
 * Open MPI unloads its modules before that check, which then cannot name the
 * module that a report came from, so that the suppressions would not match:
 * modules stay mapped. And what starting MPI keeps is not looked at one by one:
 * naming hundreds of blocks took longer than most tests.
 */
#include <sanitizer/lsan_interface.h>

int dlclose(void *module);
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided);

int dlclose(void *module)
{
    (void)module;
    return 0;
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    __lsan_disable();
    int code = PMPI_Init_thread(argc, argv, required, provided);
    __lsan_enable();
    return code;
}
