"""What the comparisons of bench/ share: engines with data roots of their own, and times side by side."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time


class Failed(Exception):
    pass


def run(command, environment=None, check=True):
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stderr.decode()}")
    return done.stdout.decode()


def lean(command, environment=None):
    """Runs a command as a shell would, without the pipes of `run`, which would be a good part of a short one's time."""
    null = [(os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in range(3)]
    pid = os.posix_spawnp(command[0], command, os.environ if environment is None else environment,
                          file_actions=null)
    _, status = os.waitpid(pid, 0)
    if status:
        raise Failed(f"{' '.join(command)}: {os.waitstatus_to_exitcode(status)}")


def timed(command, environment=None):
    """Seconds of a command. What others left to write is written before."""
    os.sync()
    start = time.monotonic()
    run(command, environment)
    return time.monotonic() - start


def busybox_root(path):
    """A root filesystem of busybox and all its applets."""
    busybox = next(p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p))
    os.makedirs(f"{path}/bin")
    os.makedirs(f"{path}/etc")
    shutil.copy(busybox, f"{path}/bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            os.symlink("busybox", f"{path}/bin/{applet}")
    with open(f"{path}/etc/passwd", "w") as f:
        f.write("root:x:0:0:root:/root:/bin/sh\n")


def disk(path):
    """Bytes a directory takes."""
    return int(run(["du", "-sxB1", path]).split()[0]) if os.path.exists(path) else 0


class Wherry:
    """An engine that keeps its layers in one form."""

    def __init__(self, binary, base, form, more=""):
        self.root = f"{base}/{form}"
        with open(f"{base}/{form}.toml", "w") as f:
            f.write(f'storage = "{form}"\n{more}')
        self.command = [binary, "--config", f"{base}/{form}.toml", "--data-root", self.root,
                        "--run-root", f"{base}/{form}-run"]

    def stop(self):
        pass


class Docker:
    """A dockerd of our own, with a data root of its own and without networks, unless it is in a network
    namespace of its own."""

    def __init__(self, base, networks=False):
        self.root = f"{base}/docker"
        socket = f"unix://{base}/docker.sock"
        self.command = ["docker", "-H", socket]
        self.log = open(f"{base}/docker.log", "w")
        self.daemon = subprocess.Popen(
            ["dockerd", "--data-root", self.root, "--exec-root", f"{base}/run/docker", "--pidfile",
             f"{base}/docker.pid", "-H", socket,
             *([] if networks else ["--bridge", "none", "--iptables=false", "--ip6tables=false"])],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(120):
            time.sleep(0.25)
            if self.daemon.poll() is not None:
                break
            if subprocess.run([*self.command, "info"], capture_output=True).returncode == 0:
                return
        self.stop()
        raise Failed("dockerd does not start")

    def stop(self):
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.log.close()


class Podman:
    """podman with storage of its own, and with limits and a runtime that work where limits can't be raised and
    the hierarchies of cgroups are mixed."""

    def __init__(self, base):
        self.root = f"{base}/podman"
        settings = f"{base}/containers.conf"
        with open(settings, "w") as f:
            f.write('[containers]\ndefault_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]\n'
                    '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n')
        self.command = ["env", f"CONTAINERS_CONF={settings}", "podman", "--root", self.root,
                        "--runroot", f"{base}/run/podman", "--storage-driver", "overlay"]
        run([*self.command, "info"])

    def stop(self):
        pass


def enter(script):
    """Begins anew in a network namespace and a mount namespace of our own."""
    if os.environ.get("WHERRY_BENCH_INSIDE"):
        return
    os.environ["WHERRY_BENCH_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private",
                          sys.executable, os.path.abspath(script), *sys.argv[1:]])


def workplace(prefix):
    """A directory for a comparison, after `enter`; what engines keep in /run goes to its `run`, which is a tmpfs, as
    /run is on a host."""
    base = tempfile.mkdtemp(prefix=prefix)
    os.mkdir(f"{base}/run")
    run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", f"{base}/run"])
    return base


def leave(base):
    """Removes what `workplace` made."""
    run(["umount", "-l", f"{base}/run"], check=False)
    shutil.rmtree(base, ignore_errors=True)


def others(base, networks=False):
    """The engines besides ours that work here."""
    found = {}
    makers = [("docker", ["docker", "dockerd"], lambda base: Docker(base, networks)), ("podman", ["podman"], Podman)]
    for name, needs, make in makers:
        if not all(map(shutil.which, needs)):
            print(f"{name}: not here, left out")
            continue
        try:
            found[name] = make(base)
        except Failed as error:
            print(f"{name}: does not work here, left out: {str(error).splitlines()[0]}")
    return found


class Times:
    """Times of several things, in rounds; and when to stop."""

    def __init__(self, seconds, least=1, most=7):
        self.end = time.monotonic() + seconds
        self.least, self.most = least, most
        self.all = {}
        self.rounds = 0

    def more(self):
        """Whether there is time for another round."""
        if self.rounds >= self.most:
            return False
        if self.rounds >= self.least and time.monotonic() >= self.end:
            return False
        self.rounds += 1
        return True

    def late(self):
        """Slow things are left out when half of the time is gone, once there is one time of them."""
        return self.rounds > 1 and time.monotonic() >= self.end

    def note(self, what, seconds):
        self.all.setdefault(what, []).append(seconds)

    def print(self, floor):
        base = statistics.median(self.all[floor])
        width = max(map(len, self.all))
        for what, times in self.all.items():
            median = statistics.median(times)
            print(f"  {what:{width}}  median {median:7.3f} s  best {min(times):7.3f} s"
                  f"  {median / base:6.2f} of {floor}  ({len(times)})")


def fail(text):
    sys.exit(text)
