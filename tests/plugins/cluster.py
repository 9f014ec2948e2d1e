"""A single-node Slurm cluster on this machine, run as root and without systemd, for tests."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

# Reasons for the less obvious settings:
#   cred_expire=15              otherwise a requeued job waits two minutes before it restarts
#   proctrack/linuxproc, task/none, cgroup.conf   work without cgroups, which containers lack
#   config_overrides            uses the node as described here, not as detected
#   partition high              preempts jobs in main, which are requeued
CONFIG = """\
ClusterName=practical
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=15
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=5
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
InactiveLimit=0
KillWait=5
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} \
ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
"""


def reason_to_skip() -> str | None:
    """Return why no cluster can be started here, or None if one can."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "a Slurm of one's own is started as root here"


class Cluster:
    """A cluster with its files in `folder`; commands need `environment` to reach it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o755)
        config = CONFIG.format(folder=folder, host=host, cpus=max(2, os.cpu_count() or 2))
        (folder / "slurm.conf").write_text(config)
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        munge = folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)

    def start(self) -> None:
        munge = self.folder / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self.call("munged", "--force", *options, f"--seed-file={munge / 'seed'}")
        self.call("slurmctld")
        self.call("slurmd")
        self.wait_for(lambda: self.call("sinfo", "-h", "-o", "%T").strip() == "idle", 60)

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode and command[0] != "sinfo":  # which fails until the controller is up
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def queue(self, fields: str = "%i %T") -> list[str]:
        return self.call("squeue", "--noheader", "--array", f"--format={fields}").splitlines()

    @staticmethod
    def wait_for(condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{seconds} s were not enough")
            time.sleep(0.1)

    def stop(self) -> None:
        if (self.folder / "slurmctld.pid").exists():  # missing if the start failed earlier
            self.call("scancel", "--user=root")
        pid_files = [self.folder / name for name in ("slurmd.pid", "slurmctld.pid", "munge/pid")]
        for pid_file in filter(Path.exists, pid_files):
            pid = int(pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            self.wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30)
