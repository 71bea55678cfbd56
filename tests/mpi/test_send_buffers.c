/* What ranks that wait ask each other stays in memory until MPI has sent it.
 *
 * ctest: ranks=2
 */
#include "comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* A message that is on its way as far as its sender can tell. */
typedef struct message {
    MPI_Request request;
    const void *buffer;
    char content[256]; /* when it was sent */
    size_t n_bytes;
} message;

enum { MOST_HELD = 256, ENOUGH = 2 };
static message held[MOST_HELD];
static int n_held, n_to[2];
static bool is_holding;
static char enough_path[96]; /* of a file: rank 0 has asked often enough */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void hold(const void *data, int count, int to, MPI_Request request)
{
    message *m = &held[n_held++];
    m->request = request;
    m->buffer = data;
    m->n_bytes = (size_t)count;
    memcpy(m->content, data, m->n_bytes);
    if (++n_to[to] == ENOUGH && to == 1)
        close(open(enough_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
}

/** In place of MPI's, which it calls. */
int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag,
              MPI_Comm comm, MPI_Request *request)
{
    int code = PMPI_Isend(data, count, type, to, tag, comm, request);
    pthread_mutex_lock(&lock);
    if (is_holding && code == MPI_SUCCESS && type == MPI_BYTE &&
        n_held < MOST_HELD && (size_t)count <= sizeof held[0].content)
        hold(data, count, to, *request);
    pthread_mutex_unlock(&lock);
    return code;
}

/** No message that is held has arrived. */
int MPI_Test(MPI_Request *request, int *is_over, MPI_Status *status)
{
    bool is_held = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; is_holding && i < n_held; i++)
        is_held |= held[i].request == *request;
    pthread_mutex_unlock(&lock);
    if (!is_held)
        return PMPI_Test(request, is_over, status);
    *is_over = 0;
    return MPI_SUCCESS;
}

typedef struct scene {
    mm_comm *comm;
    int rank;
    char folder[64];
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    const mm_comm_watch_plan watch = {.limit_s = 0.5};
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    snprintf(s->folder, sizeof s->folder, "/tmp/magmax-mpi-XXXXXX");
    if ((s->rank == 0 && !mkdtemp(s->folder)) ||
        mm_comm_broadcast(s->comm, s->folder, sizeof s->folder, 0) != MM_OK)
        return 1;
    snprintf(enough_path, sizeof enough_path, "%s/enough", s->folder);
    return mm_comm_watch(s->comm, &watch) != MM_OK;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_comm_barrier(s->comm);
    if (s->rank == 0) {
        unlink(enough_path);
        rmdir(s->folder);
    }
    mm_comm_destroy(&s->comm);
    free(s);
    return 0;
}

static void begin_holding(void)
{
    pthread_mutex_lock(&lock);
    is_holding = true;
    pthread_mutex_unlock(&lock);
}

/** Whether all that was held is as it was sent. */
static bool end_holding(void)
{
    bool is_same = true;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_held; i++)
        is_same &= !memcmp(held[i].buffer, held[i].content, held[i].n_bytes);
    is_holding = false;
    pthread_mutex_unlock(&lock);
    return is_same;
}

static void what_is_under_way_is_not_touched(void **state)
{
    const scene *s = *state;
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
    begin_holding();
    /* Rank 0 waits meanwhile, and asks; a thread of this one answers. */
    while (s->rank == 1 && access(enough_path, F_OK) != 0)
        usleep(10000);
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
    assert_true(end_holding());
    assert_true(s->rank == 1 || n_to[1] >= ENOUGH);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(what_is_under_way_is_not_touched),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
