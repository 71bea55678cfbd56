#ifndef MAGMAX_COMM_MPI_ROLL_H
#define MAGMAX_COMM_MPI_ROLL_H

#include "comm/mpi/mpi_comm.h"
#include "src/base/clock.h"

/*
 * The roll of the ranks: who answers, and what it says of itself; private to
 * comm/mpi/. Whoever calls these functions is the only thread in MPI.
 *
 * Every rank is connected to the first MM_ROLL_CALLERS ranks, and those to
 * all. They call the whole roll. Any other rank asks only them: one of them
 * that answers has the others' names, or has not come itself. So a job of 1000
 * ranks makes 16 connections a rank, and 999 on each caller, instead of 999 on
 * all, and its longest roll call is 999 notes of 80 bytes each way, twice.
 */
enum { MM_ROLL_CALLERS = 16 };

/** What a rank says of itself. */
typedef enum mm_presence {
    MM_MISSING,   /* nothing */
    MM_COMPUTING, /* it has not come yet, but is well                       */
    MM_UNREADY,   /* it waits, and its own device has not finished its part */
    MM_READY      /* it waits for others alone                              */
} mm_presence;

typedef struct mm_roll mm_roll;

/** Memory  Gives *roll, freed by mm_roll_destroy. Ranks: local. */
mm_status mm_roll_create(mm_comm *comm, mm_roll **roll);
void mm_roll_destroy(mm_roll **roll);

/** Whether this rank calls the whole roll. */
bool mm_roll_is_caller(const mm_roll *roll);

/** When notes were last looked for, on mm_clock_s. */
double mm_roll_looked_s(const mm_roll *roll);

/** Take in what has come, and answer what was asked. */
mm_status mm_roll_look(mm_roll *roll, mm_presence mine);

/**
 * Ask all that this rank asks; who has not answered is missing. To be done once
 * when all are well: transports make connections when they are first used, and
 * not while a third rank is stuck.
 */
mm_status mm_roll_call(mm_roll *roll, mm_presence mine);

/** Ask the same ranks once more; an answer to either question is one. */
mm_status mm_roll_ask_again(mm_roll *roll, mm_presence mine);

/** This rank has a wait behind it: something has moved. */
void mm_roll_passed(mm_roll *roll);

/** Say that this rank is about to end the job. */
mm_status mm_roll_tell_verdict(mm_roll *roll);

/** Lowest rank that has said so, or -1. */
int mm_roll_speaker(const mm_roll *roll);

/** Of the last roll: how many ranks said `what`, and the lowest, or -1. */
int mm_roll_count(const mm_roll *roll, mm_presence what);
int mm_roll_lowest(const mm_roll *roll, mm_presence what);

/** Whether every rank has answered both times that it was asked, waited each
 * time, and has passed no wait in between. */
bool mm_roll_stands_still(const mm_roll *roll);

/** "rank 3 (host a, process 17), rank 5 (...) and 2 more"; "" for none. */
void mm_roll_names(const mm_roll *roll, mm_presence what, char *text,
                   size_t n_chars);

#endif
