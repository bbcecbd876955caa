"""A Slurm of our own on one machine: a controller, and nodes that are processes and own GPUs that are none.

    python tests/slurm.py FOLDER [NODES]

starts one and says what to export; an end of input, or Ctrl-C, stops it. Everything listens on the loopback
address, and all state lies in FOLDER. It wants root, for daemons that start tasks of any user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "scancel")
"""Of Debian's munge, slurmctld, slurmd and slurm-client."""

CONFIGURATION = """\
ClusterName=study
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
# Without cgroups a step is followed by its processes' parents: kernels leave the process group.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
GresTypes=gpu
# Silent for ten seconds is dead; a node that comes back is taken, its old steps are ended.
SlurmdTimeout=10
KillWait=10
ReturnToService=2
PartitionName=all Nodes=ALL Default=YES OverSubscribe=NO
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Gres=gpu:{cpus}\n"


def missing() -> str:
    """Why no Slurm can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)}: not found (apt-get install slurmctld slurmd slurm-client munge)"
    if os.geteuid():
        return "a Slurm of our own wants root"
    host = socket.gethostname().split(".")[0]
    try:
        local = socket.gethostbyname(host).startswith("127.")
    except OSError:
        local = False
    return "" if local else f"{host} is not 127.0.0.1 in /etc/hosts: Slurm would listen elsewhere"


class Slurm:
    """A controller, and nodes of so many CPUs and as many GPUs; ``environment`` leads clients to it."""

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 1) -> None:
        self.folder, self.nodes = folder, [f"n{i + 1}" for i in range(nodes)]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        host = socket.gethostname().split(".")[0]
        ports = _free_ports(nodes + 1)
        text = CONFIGURATION.format(folder=folder, host=host, port=ports.pop())
        for name in self.nodes:
            text += NODE.format(name=name, host=host, port=ports.pop(), cpus=cpus)
        for name in ("munge", "state", *self.nodes):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "munge/key").write_bytes(os.urandom(1024))
        (folder / "munge/key").chmod(0o600)
        (folder / "slurm.conf").write_text(text)
        gpus = [folder / f"gpu{i}" for i in range(cpus)]
        for gpu in gpus:
            gpu.touch()
        lines = [f"NodeName={','.join(self.nodes)} Name=gpu File={gpu}\n" for gpu in gpus]
        (folder / "gres.conf").write_text("".join(lines))

    def call(self, *words: str) -> str:
        """The output of one of Slurm's commands."""
        environment = os.environ | self.environment
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

    def start(self) -> None:
        """Start what does not run, and wait until every node takes work."""
        munge = self.folder / "munge"
        if not self._daemon("munge/pid"):
            files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
            files["seed-file"] = "seed"
            self.call("munged", "--force", *(f"--{word}={munge / name}" for word, name in files.items()))
        if not self._daemon("slurmctld.pid"):
            self.call("slurmctld", "-f", self.environment["SLURM_CONF"])
        for node in self.nodes:
            if not self._daemon(f"{node}.pid"):
                self.call("slurmd", "-N", node, "-f", self.environment["SLURM_CONF"])
        wait(lambda: self.up() == set(self.nodes), 60)

    def stop(self) -> None:
        """End all daemons and all that they run; the folder stays."""
        self.send(signal.SIGKILL, *self.nodes)
        for name in ("slurmctld.pid", "munge/pid"):
            self._end(self._daemon(name))

    def up(self) -> set[str]:
        """The nodes that take work or are at it."""
        found = self.call("sinfo", "--responding", "-hN", "-tidle,mix,alloc,comp", "-o%N")
        return set(found.split())

    def send(self, signum: int, *nodes: str) -> None:
        """Send a signal to nodes, as if to a machine: to their daemons and to every process of a step."""
        found = [p for node in nodes for p in [self._daemon(f"{node}.pid"), *self.processes(node)] if p]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signum)
        if signum == signal.SIGKILL:
            psutil.wait_procs(found, 10)

    def processes(self, node: str) -> list[psutil.Process]:
        """Those of a node's steps, each step's keeper before its tasks."""
        tasks = [p for p in psutil.process_iter() if self._node_of(p) == node]
        keepers = {p.parent() for p in tasks if p.parent() and "slurmstepd" in p.parent().name()}
        return [*keepers, *tasks]

    def restart_controller(self) -> None:
        """Stop it in order and start it: killed, it would forget the last jobs, and their srun wait on."""
        self._end(self._daemon("slurmctld.pid"), signal.SIGTERM)
        self.start()

    def _node_of(self, process: psutil.Process) -> str:
        """The node of ours that a process is a task of, or none."""
        try:
            environment = process.environ()
        except psutil.Error:
            return ""
        ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
        return environment.get("SLURMD_NODENAME", "") if ours else ""

    def _daemon(self, name: str) -> psutil.Process | None:
        """The process of a pid file, where it is one of ours and alive."""
        path = self.folder / name
        try:
            process = psutil.Process(int(path.read_text())) if path.exists() else None
            return process if process and str(self.folder) in " ".join(process.cmdline()) else None
        except (psutil.NoSuchProcess, ValueError):
            return None

    def _end(self, process: psutil.Process | None, signum: int = signal.SIGKILL) -> None:
        if process:
            process.send_signal(signum)
            process.wait(20)


def wait(holds: Callable[[], bool], seconds: float) -> None:
    """Until something holds, or fail."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come to pass within {seconds:g} s")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main() -> None:
    if len(sys.argv) not in (2, 3) or missing():
        sys.exit(missing() or __doc__)
    slurm = Slurm(Path(sys.argv[1]).resolve(), int((sys.argv[2:] or ["2"])[0]))
    try:
        slurm.start()
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}", flush=True)
        sys.stdin.read()
    finally:
        slurm.stop()


if __name__ == "__main__":
    main()
