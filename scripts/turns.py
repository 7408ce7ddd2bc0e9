"""Programs that measure alternately: a line with a name in, a line of JSON out. Shared by bench-cpu and bench-cpu-peers."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Program:
    def __init__(self, command, environment):
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def turn(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended in the middle of `{name}`; see its message above")
        return json.loads(line)

    def peak_mib(self):
        """Most memory that the process has had so far."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def resident_mib(self):
        """Memory of the process now, without files that are mapped."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def built(name):
    """The path of a program of the workspace, built for release with the whole workspace's features."""
    build = ["cargo", "build", "--release", "--workspace", "--bin", name, "--message-format=json-render-diagnostics"]
    messages = subprocess.run(build, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    paths = [json.loads(line).get("executable") for line in messages]
    return next(path for path in paths if path and path.endswith(name))
