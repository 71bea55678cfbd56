#ifndef MAGMAX_COMM_COMM_H
#define MAGMAX_COMM_COMM_H

#include "src/base/log.h"
#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * The ranks of a job and their collectives, on hosts. All collectives are
 * blocking unless said otherwise, must be called by every rank in the same
 * order (comm/check_same.h checks it), and return the same status everywhere.
 * Counts are int64_t whatever the transport takes. A failure of the transport
 * is MM_E_COMM, after which only mm_comm_abort is left.
 *
 * One thread of a rank uses it. Once ranks are watched, a second one calls MPI
 * as well, but never at the same time.
 */
typedef struct mm_comm mm_comm;

/**
 * Join the job. Works under a launcher and, as one rank, without.
 *
 * Memory   Gives *comm, freed by mm_comm_destroy, which leaves the job.
 * Ranks    Collective, both; once a process, before and after all else.
 * Errors   MM_E_COMM.
 */
mm_status mm_comm_create(int *argc, char ***argv, mm_comm **comm);
void mm_comm_destroy(mm_comm **comm);

/** This rank, and how many there are. Ranks: local, as all that asks what the
 * communicator knows. */
int mm_comm_rank(const mm_comm *comm);
int mm_comm_n_ranks(const mm_comm *comm);

/** Ranks that share this one's host, and this one's place among them. Ranks:
 * local. */
int mm_comm_node_rank(const mm_comm *comm);
int mm_comm_n_node_ranks(const mm_comm *comm);

/** This rank's host, by the lowest rank there. Ranks: local. */
int mm_comm_node(const mm_comm *comm);

/**
 * This rank's share of the host's cores: each core that the process may run on
 * counts 1 / (ranks of this host that may run on it); the sum, rounded down, at
 * least 1. OMP_NUM_THREADS, where set, wins.
 *
 * Ranks    Local.
 */
int mm_comm_n_threads(const mm_comm *comm);

/** Cores that this process may run on, and cores of the host. Ranks: local. */
int mm_comm_n_cores(const mm_comm *comm);
int mm_comm_n_host_cores(const mm_comm *comm);

/** Whether what this rank prints on stderr ends on a terminal: directly, or
 * through a launcher's pipe. */
bool mm_comm_stderr_is_terminal(void);

/** How mm_comm_watch waits. */
typedef struct mm_comm_watch_plan {
    double limit_s; /* how long a rank waits for one that is silent; 0: no limit
                       and for any, as if ranks were not watched */
    mm_log *log;    /* of ranks that wait long for one that works; or NULL */
    void (*end)(void *context); /* ends the job, as the message says why: called
                       where a wait would return MM_E_COMM; NULL: it returns */
    void *context;
} mm_comm_watch_plan;

/**
 * From now on no rank waits without limit for one that is dead or stuck: every
 * collective, and a reducer's waits, end with a message that names it.
 *
 * Nothing is sent as long as waits end in time. A rank that has waited for half
 * of the limit sends liveness probes, and every rank replies: where it waits
 * itself; by mm_comm_poll between mm_comm_begin_compute and
 * mm_comm_end_compute; and elsewhere, however long a file takes to be read or
 * written, by a second thread. Ranks that reply and have not come yet are
 * waited for, and named in the log. A rank whose process is stopped or gone, or
 * that neither polls nor waits while it computes, does not reply.
 *
 * The limit counts the time that a rank itself was running, and at most 0.05 s
 * each time that it gets a core: a job that is suspended as a whole goes on
 * afterwards, and one on starved cores has longer.
 *
 * Memory   Keeps what the plan points to until the last collective.
 * Ranks    Collective, same limit. Does nothing for one rank.
 * Timing   Blocking. Later failures: after the limit, or half of it and 2 s
 *          where that is longer.
 * Errors   MM_E_COMM naming the ranks that do not come; MM_E_IO where the
 *          system refuses a thread, MM_E_ARG where the MPI library does; as
 *          agreed.
 */
mm_status mm_comm_watch(mm_comm *comm, const mm_comm_watch_plan *plan);

/**
 * Between the two this rank computes: what takes longer than the limit without
 * a poll, or a collective, is stuck, and sends no replies. They may be nested.
 *
 * Ranks    Local.
 */
void mm_comm_begin_compute(mm_comm *comm);
void mm_comm_end_compute(mm_comm *comm);

/** Reply to liveness probes, from a rank that computes. Cheap, and callable
 * from mm_stream_set_poll; what fails here fails again in the next collective.
 * Ranks: local. */
void mm_comm_poll(void *comm);

/** End every rank at once; for a broken transport only. Ranks: one suffices. */
_Noreturn void mm_comm_abort(mm_comm *comm, int exit_code);

/**
 * Agree on how a step went: every rank gets the status and the message of the
 * lowest rank that failed, its message prefixed with "rank N: " where the job
 * has several ranks and not all of them failed; MM_OK where none failed.
 *
 * Ranks    Collective, any status; MM_E_COMM is returned as it is.
 */
mm_status mm_comm_agree(mm_comm *comm, mm_status status);
#if defined __clang_analyzer__ && !defined MM_DEFINES_AGREE
/* It sees one source at a time: a failure stays one. */
#define mm_comm_agree(comm, status)                       \
    ({                                                    \
        mm_status mine_ = (status);                       \
        mm_status agreed_ = (mm_comm_agree)(comm, mine_); \
        mine_ == MM_OK ? agreed_ : mine_;                 \
    })
#endif

/** Wait until every rank has come here. Ranks: collective. */
mm_status mm_comm_barrier(mm_comm *comm);

/** Copy root's bytes to every rank. Ranks: collective, same n_bytes, root. */
mm_status mm_comm_broadcast(mm_comm *comm, void *data, int64_t n_bytes,
                            int root);

/** recv[n_ranks * n_bytes] on every rank, in rank order. Ranks: collective,
 * same n_bytes. */
mm_status mm_comm_allgather(mm_comm *comm, const void *send, int64_t n_bytes,
                            void *recv);

/**
 * Bring every rank's bytes together on rank 0, in rank order; the counts may
 * differ.
 *
 * Memory   recv: rank 0, [sum of all n_bytes]; ignored elsewhere.
 * Ranks    Collective.
 */
mm_status mm_comm_collect(mm_comm *comm, const void *send, int64_t n_bytes,
                          void *recv);

/** Element-wise sums over ranks, in place, same bits on every rank. Ranks:
 * collective, same n. */
mm_status mm_comm_sum_double(mm_comm *comm, double *values, int64_t n);
mm_status mm_comm_sum_int64(mm_comm *comm, int64_t *values, int64_t n);

#endif
