#ifndef MAGMAX_COMM_MPI_PROBE_H
#define MAGMAX_COMM_MPI_PROBE_H

#include "comm/mpi/mpi_comm.h"

/*
 * Liveness probes: which ranks reply, and in what state; private to comm/mpi.
 * A thread that calls these functions is the only one in MPI. Ranks: local, all
 * of it; no rank waits for another here.
 *
 * Every rank is connected to the first MM_N_COORDINATORS ranks, and those to
 * all. They probe every rank. Any other rank probes only them: one of them that
 * replies has the others' names, or has not come itself. So a job of 1000 ranks
 * makes 16 connections a rank, and 999 on each coordinator, instead of 999 on
 * all, and its longest probe is 999 messages of 80 bytes each way, twice.
 */
enum { MM_N_COORDINATORS = 16 };

/** What is known of a rank, by its last message. */
typedef enum mm_rank_state {
    MM_RANK_SILENT,      /* it has not replied                              */
    MM_RANK_BUSY,        /* it has not come yet, but is well                */
    MM_RANK_DEVICE_BUSY, /* it waits, and its own device has not finished its
                            part */
    MM_RANK_WAITING      /* it waits for others alone                       */
} mm_rank_state;

typedef struct mm_probe mm_probe;

/** Memory  Gives *probe, freed by mm_probe_destroy. */
mm_status mm_probe_create(mm_comm *comm, mm_probe **probe);
void mm_probe_destroy(mm_probe **probe);

/** Whether this rank probes every other. */
bool mm_probe_is_coordinator(const mm_probe *probe);

/** When mm_probe_serve was last called, on mm_clock_s. */
double mm_probe_served_s(const mm_probe *probe);

/** Receive what has come, and reply to probes with `mine`. */
mm_status mm_probe_serve(mm_probe *probe, mm_rank_state mine);

/**
 * Probe the ranks that this one probes; those are silent until they reply. To
 * be done once when all are well: transports make connections when they are
 * first used, and not while a third rank is stuck.
 */
mm_status mm_probe_start(mm_probe *probe, mm_rank_state mine);

/** Probe the same ranks once more; a reply to either counts. */
mm_status mm_probe_repeat(mm_probe *probe, mm_rank_state mine);

/** A wait of this rank has ended: the job has made progress. */
void mm_probe_count_wait(mm_probe *probe);

/** Tell the others that this rank is about to report and to end the job. */
mm_status mm_probe_announce_report(mm_probe *probe);

/** Lowest rank that has announced its report, or -1. */
int mm_probe_reporter(const mm_probe *probe);

/** How many of the probed ranks, this one included, are in a state, and the
 * lowest of them, or -1. */
int mm_probe_count(const mm_probe *probe, mm_rank_state state);
int mm_probe_lowest(const mm_probe *probe, mm_rank_state state);

/** Whether every rank has replied to both probes, waited each time, and has
 * ended no wait in between. */
bool mm_probe_is_deadlock(const mm_probe *probe);

/** "rank 3 (host a, process 17), rank 5 (...) and 2 more"; "" for none. */
void mm_probe_names(const mm_probe *probe, mm_rank_state state, char *text,
                    size_t n_chars);

#endif
