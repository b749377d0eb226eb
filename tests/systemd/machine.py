"""A machine with a real systemd: booted in a container over this very system, whose files it sees and does not change.

Takes root, systemd-nspawn, and a Debian underneath. The network is the container's own: nothing but loopback."""

import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]

# No step takes longer on a slow machine, unless something is broken.
DEADLINE = 40


def until(condition, what, deadline=DEADLINE):
    """Looks again and again, until `condition` gives something."""
    ends = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what}: not within {deadline} s"
        time.sleep(0.02)
    return found


class Machine:
    def __init__(self, name):
        self.name = name
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="b2bp-systemd-"))
        self.root = self.work / "root"
        self.nspawn = None
        self.init = None
        # What simulators in there were asked.
        self.calls = []

    def boot(self):
        work = self.work
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "b2bp", work)
        for folder in ("upper", "work", "root"):
            (work / folder).mkdir()
        layers = f"lowerdir=/,upperdir={work}/upper,workdir={work}/work"
        _run("mount", "-t", "overlay", "b2bp", "-o", layers, self.root)
        (self.root / "etc/machine-id").write_text("")
        # Services of this host have no part in it.
        for link in (self.root / "etc/systemd/system").glob("*.wants/*"):
            link.unlink()
        with (work / "console").open("w") as console:
            self.nspawn = subprocess.Popen(
                ["systemd-nspawn", "-q", "--private-network", "-D", self.root, "-b", "--register=no", "--keep-unit",
                 # Wherever they are on this host: its /tmp, say, is not this machine's.
                 f"--bind-ro={PROJECT}:/srv/project", f"--bind-ro={sys.prefix}:/srv/python",
                 f"--machine={self.name}", "systemd.unit=basic.target"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )
        self.init = until(self._find_init, "the container starts")
        until(lambda: self.run("systemctl", "is-active", "basic.target").stdout == "active\n", "systemd is up")

    def _find_init(self):
        """The child of nspawn that is number 1 in there; the first of its children only makes that one."""
        for child in pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split():
            try:
                facts = pathlib.Path(f"/proc/{child}/status").read_text()
            except FileNotFoundError:
                continue
            if re.search(r"(?m)^NSpid:\t\d+\t1$", facts):
                return child
        return None

    def command(self, *words, user=None):
        """The words that run a command in there, as root or another user."""
        enter = ["nsenter", "-t", self.init, "-a", "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]
        become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
        return [*enter, *become, *map(str, words)]

    def run(self, *words, user=None, stdin=None):
        """Runs a command in there. What it said and how it ended is in the answer."""
        return subprocess.run(self.command(*words, user=user), input=stdin, capture_output=True, text=True, timeout=120)

    def ok(self, *words, **options):
        """The same, and it must succeed. What it printed."""
        ended = self.run(*words, **options)
        said = f"{ended.stdout}{ended.stderr}"
        assert ended.returncode == 0, f"{shlex.join(map(str, words))}: exit {ended.returncode}\n{said}"
        return ended.stdout

    def start(self, *words, user=None, **options):
        """Starts a command in there and does not wait for it."""
        return subprocess.Popen(self.command(*words, user=user), text=True, **options)

    def write(self, path, text, mode=0o644):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def unit(self, name, text):
        self.write(f"/etc/systemd/system/{name}", text)
        self.ok("systemctl", "daemon-reload")

    def show(self, unit, prop):
        return self.ok("systemctl", "show", "--value", "-p", prop, unit).strip()

    def journal(self, *arguments):
        return self.ok("journalctl", "--no-pager", "-o", "cat", *arguments)

    def end(self):
        if self.nspawn:
            self.nspawn.terminate()
            try:
                self.nspawn.wait(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        for mounted in (self.root, self.work):
            subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
        self.work.rmdir()


def _run(*words):
    subprocess.run([str(word) for word in words], check=True)
