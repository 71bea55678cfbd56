#!/bin/bash
# A Slurm cluster of two nodes on this machine, out of Debian's packages,
# without systemd and apart from any Slurm that the machine may have.
#
#   cluster.sh up DIR      start it; all its files are in DIR
#   cluster.sh down DIR    end it, and every job
#
# Then SLURM_CONF=DIR/slurm.conf makes sbatch, squeue, scontrol, ... talk to it.
# Needs root. Exit code 77 where that, or a package, is missing.
set -euo pipefail

say() { printf 'cluster: %s\n' "$*" >&2; }

check_needs() {
    local program
    if [ "$(id -u)" -ne 0 ]; then
        say "needs root"
        exit 77
    fi
    for program in munged slurmctld slurmd sbatch; do
        if ! command -v "$program" >/dev/null; then
            say "$program is missing"
            exit 77
        fi
    done
}

write_config() {
    local dir=$1 host ports
    host=$(hostname -s)
    # Three free ports, outside the range from which the kernel assigns any.
    read -r -a ports <<<"$(/usr/bin/python3 -c '
import random, socket
low = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
ports, sockets = [], []
while len(ports) < 3:
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(low // 2, low)))
    except OSError:
        continue
    sockets.append(s)
    ports.append(s.getsockname()[1])
print(*ports)')"
    mkdir -p "$dir"/{state,spool-n1,spool-n2,tmp-n1,tmp-n2}

    cat >"$dir/slurm.conf" <<EOF
ClusterName=magmax
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.sock
CryptoType=crypto/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$dir/task-prolog.sh
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
TmpFS=$dir/tmp-%n
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
# The machine may be slow, or stand still for a while.
SlurmdTimeout=3600
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=600
UnkillableStepTimeout=600
KillWait=5
MinJobAge=3600
JobRequeue=1
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[${ports[1]},${ports[2]}] CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10
EOF
    # GPUs that Slurm can count: /dev/null under other names.
    mknod "$dir/gpu0" c 1 3 && mknod "$dir/gpu1" c 1 3
    echo "NodeName=n[1-2] Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"

    # v1 is asked for because v2 insists on a mounted /sys/fs/cgroup; nothing here
    # uses either.
    printf "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n" >"$dir/cgroup.conf"

    # The nodes share one machine: each gets its own place for shared memory,
    # and ranks that outnumber cores yield while they wait.
    cat >"$dir/task-prolog.sh" <<EOF
#!/bin/bash
echo "export OMPI_MCA_btl_vader_backing_directory=$dir/tmp-\$SLURMD_NODENAME"
echo "export OMPI_MCA_mpi_yield_when_idle=1"
EOF
    chmod 755 "$dir" "$dir/task-prolog.sh"
}

up() {
    local dir=$1
    check_needs
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    # Sockets and credentials want a path that only root can write.
    chmod 755 "$dir"
    write_config "$dir"
    export SLURM_CONF=$dir/slurm.conf
    head -c 128 /dev/urandom >"$dir/munge.key"
    chmod 400 "$dir/munge.key"
    if ! { start_daemons "$dir" && wait_for_nodes; }; then
        give_up "$dir"
    fi
}

start_daemons() {
    munged --force --key-file="$1/munge.key" --socket="$1/munge.sock" \
        --pid-file="$1/munged.pid" --log-file="$1/munged.log" \
        --seed-file="$1/munged.seed" &&
        slurmctld -c && slurmd -N n1 && slurmd -N n2
}

wait_for_nodes() {
    for _ in $(seq 1200); do
        if [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null |
            head -n 1)" = 2 ]; then
            return
        fi
        sleep 0.5
    done
    say "the nodes did not come up in 600 s"
    return 1
}

give_up() {
    say "failed to start; the ends of its logs:"
    tail -n 20 "$1"/*.log >&2 || true
    down "$1"
    exit 1
}

# runs PID: is the process there, and not merely waiting to be reaped?
runs() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" \
        2>/dev/null) || return 1
    [ "$state" != Z ]
}

# end NAME DIR: end a daemon by its process id.
end() {
    local pid_file=$2/$1.pid pid
    [ -s "$pid_file" ] || return 0
    pid=$(cat "$pid_file")
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 600); do
        runs "$pid" || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

down() {
    local dir=$1 name
    [ -d "$dir" ] || return 0
    dir=$(cd "$dir" && pwd)
    export SLURM_CONF=$dir/slurm.conf
    if [ -s "$dir/slurmctld.pid" ]; then
        timeout 120 scancel --user=root 2>/dev/null || true
        for _ in $(seq 240); do
            [ -n "$(timeout 120 squeue --noheader 2>/dev/null)" ] || break
            sleep 0.5
        done
    fi
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        end "$name" "$dir"
    done
}

case ${1:-} in
up) up "$2" ;;
down) down "$2" ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
