/*
 * Linked into sanitized executables only, for the leak check at exit.
 *
 * Open MPI unloads its modules before that check, which then cannot name the
 * module that a report came from, so that the suppressions would not match:
 * modules stay mapped. And what starting MPI keeps, and what the threads do
 * that it starts, is not looked at one by one: naming a single block reads the
 * debug information of every library, which took longer than most programs run.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sanitizer/lsan_interface.h>
#include <stdbool.h>
#include <stdlib.h>

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided);

static _Thread_local bool is_starting_mpi;

int dlclose(void *module)
{
    (void)module;
    return 0;
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    __lsan_disable();
    is_starting_mpi = true;
    int code = PMPI_Init_thread(argc, argv, required, provided);
    is_starting_mpi = false;
    __lsan_enable();
    return code;
}

typedef struct thread_start {
    void *(*main)(void *);
    void *argument;
} thread_start;

static void *run_unlooked_at(void *argument)
{
    thread_start start = *(thread_start *)argument;
    free(argument);
    __lsan_disable();
    void *result = start.main(start.argument);
    __lsan_enable();
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*main)(void *), void *argument)
{
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                  void *);
    *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    if (!is_starting_mpi)
        return create(thread, attributes, main, argument);
    thread_start *start = malloc(sizeof *start);
    if (!start)
        return EAGAIN;
    *start = (thread_start){main, argument};
    int code = create(thread, attributes, run_unlooked_at, start);
    if (code != 0)
        free(start);
    return code;
}
