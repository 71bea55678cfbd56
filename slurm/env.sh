# shellcheck shell=bash
# Site settings of the batch scripts: edit this file once for your cluster.
# A variable that is already set in the environment wins over this file.
#
# The first block is for Slurm when a job is submitted, so source this file
# before sbatch; sbatch's own options win over it:
#
#   . slurm/env.sh
#   sbatch slurm/train.sbatch --model ViT-B-16 ... --save runs/x
#   sbatch --partition=big --nodes=4 slurm/train.sbatch --model ViT-B-16 ...
#   sbatch --gpus-per-node=8 --ntasks-per-node=8 slurm/train.sbatch ...
#   sbatch --gpus-per-task=1 --ntasks-per-node=8 slurm/train.sbatch ...
#
# The last two are one rank per GPU: ranks see all GPUs of their node, and each
# takes the one of its number there; or each sees only its own. Give more cores
# per task (--cpus-per-task) where images have to be decoded.

# ---- at submission (empty: the cluster's default) ----------------------------
# Nodes, tasks per node and cores per task are the #SBATCH lines of each script:
# Slurm takes those from there or from sbatch's options only.
: "${MAGMAX_PARTITION:=}" # as in sinfo
: "${MAGMAX_ACCOUNT:=}"
: "${MAGMAX_QOS:=}"
: "${MAGMAX_TIME:=}" # time limit of a job, such as 12:00:00

# ---- inside the job ----------------------------------------------------------
# Modules to load, in order: "openmpi/4.1 hdf5/1.10"
: "${MAGMAX_MODULES:=}"

# How srun starts MPI ranks: `srun --mpi=list` names what the cluster has;
# Debian's Open MPI needs pmix.
: "${MAGMAX_SRUN:=--mpi=pmix --kill-on-bad-exit=1}"

# Folder of the programs. Empty: the installation or build around this file,
# else PATH.
: "${MAGMAX_BIN:=}"

# How often training may start again after its time was up.
: "${MAGMAX_MAX_RESTARTS:=50}"

# ---- nothing to edit below ---------------------------------------------------

[ -z "$MAGMAX_PARTITION" ] || export SBATCH_PARTITION="$MAGMAX_PARTITION"
[ -z "$MAGMAX_ACCOUNT" ] || export SBATCH_ACCOUNT="$MAGMAX_ACCOUNT"
[ -z "$MAGMAX_QOS" ] || export SBATCH_QOS="$MAGMAX_QOS"
[ -z "$MAGMAX_TIME" ] || export SBATCH_TIMELIMIT="$MAGMAX_TIME"

magmax_say() { printf 'magmax: %s\n' "$*" >&2; }

# magmax_program NAME: its path.
magmax_program() {
    local here folder
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    for folder in "$MAGMAX_BIN" "$here/../../../bin" \
        "$here/../build/release/bin" "$here/../build/bin"; do
        if [ -n "$folder" ] && [ -x "$folder/$1" ]; then
            printf '%s\n' "$folder/$1"
            return
        fi
    done
    if ! command -v "$1"; then
        magmax_say "$1 not found; set MAGMAX_BIN in $here/env.sh"
        return 1
    fi
}

# magmax_launch PROGRAM ARGUMENT...: run it on the job's tasks and wait.
# Signals reach it, which a launcher in the foreground would prevent. USR1 says
# that the job's time is nearly up (--signal in train.sbatch): the program is
# ended and the job queued again, to continue from its last checkpoint.
magmax_launch() {
    local program module srun_pid status=0
    for module in $MAGMAX_MODULES; do
        module load "$module"
    done
    program=$(magmax_program "$1") || return
    shift
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
        # Steps do not inherit it from the job.
        export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
    fi
    # SLURM_JOB_ID of one job of an array means all of them to scontrol.
    local job=$SLURM_JOB_ID
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    fi
    magmax_say "job $job start $((${SLURM_RESTART_COUNT:-0} + 1)):" \
        "$program $*"

    local time_is_up=no signalled=yes
    # shellcheck disable=SC2086 # several options in one variable
    srun $MAGMAX_SRUN "$program" "$@" &
    srun_pid=$!
    trap 'signalled=yes time_is_up=yes; kill -TERM "$srun_pid" || true' USR1
    trap 'signalled=yes; kill -TERM "$srun_pid" || true' TERM INT
    while [ "$signalled" = yes ]; do # a trap ends `wait` early
        signalled=no
        status=0
        wait "$srun_pid" || status=$?
    done
    trap - USR1 TERM INT

    if [ "$time_is_up" = yes ] && [ "$status" -ne 0 ]; then
        if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAGMAX_MAX_RESTARTS" ]; then
            magmax_say "time is up; started $MAGMAX_MAX_RESTARTS times" \
                "again already (MAGMAX_MAX_RESTARTS)"
        else
            magmax_say "time is up; queueing job $job again"
            scontrol requeue "$job"
            sleep 60 # until Slurm ends this script
        fi
    fi
    return "$status"
}
