"""A producer in a process of its own, which does what it is told: by whom it is run, where, and how it dies is the tests' business."""

import json
import os
import subprocess
import sys

import mlwatch


class Service:
    """Has a Monitor, or a text in `opened["error"]`. `user` is what it becomes before it opens it: uid, gid, other groups."""

    def __init__(self, ring_dir, *, prefix=(), user=None, umask=0o022, **options):
        options = {"model": "m", "n_classes": 2, "ring_bytes": 1 << 16, "dir": os.fspath(ring_dir), **options}
        command = [*prefix, sys.executable, __file__, json.dumps({"user": user, "umask": umask, "options": options})]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.opened = self._answer()
        self.path = self.opened.get("path")

    def _answer(self):
        return json.loads(self.process.stdout.readline())

    def write(self, rows):
        """Whether they are in the ring."""
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self):
        self.process.kill()
        self._end()

    def close(self):
        self.process.stdin.close()
        self._end()

    def _end(self):
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()


def _become(uid, gid, groups):
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _say(answer):
    print(json.dumps(answer), flush=True)


def _serve(user, umask, options):
    if user is not None:
        _become(*user)  # after the imports, which may be where only the tests' own user can read
    os.umask(umask)
    try:
        monitor = mlwatch.Monitor(**options)
    except OSError as why:
        return _say({"error": why.strerror, "errno": why.errno, "files": os.listdir(options["dir"])})
    _say({"path": monitor.path, "pid": os.getpid()})
    for rows in sys.stdin:
        _say(monitor.collect([[0.25, 0.75]] * int(rows)))
    monitor.close()


if __name__ == "__main__":
    _serve(**json.loads(sys.argv[1]))
