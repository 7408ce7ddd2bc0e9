"""Trials of scripts/hostile: how a trial is run and judged, and the models and runs from which the trials begin."""
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

LIMIT_SECONDS, LIMIT_KILOBYTES = 60, 2_000_000
ACCEPT, REFUSE, EITHER = {0}, {2}, {0, 2}


class Round:
    """All trials: where they run, what came of them."""

    def __init__(self, arguments):
        self.bin = pathlib.Path(arguments.bin).resolve()
        self.only = arguments.only
        self.log = open(arguments.log, "w") if arguments.log else None
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="hostile-"))
        self.count, self.failed, self.skipped, self.codes = 0, [], [], {}
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("HF_", "MODERNBERT_", "HUGGING"))}
        self.env |= {"HF_HUB_OFFLINE": "1", "MODERNBERT_DEVICE": "flex", "HOME": str(self.place / "home"), "RUST_BACKTRACE": "0"}

    def command(self, program, *arguments):
        return [str(self.bin / program), *map(os.fspath, arguments)]

    def trial(self, name, command, expected=REFUSE, says=(), never=(), stdin=b"", env=None, cwd=None, keep=(), stdout=None,
              send=None, limit=LIMIT_SECONDS, usage=False):
        """Runs one trial. `says`: parts of the message; `keep`: files whose content must not change; `send`: (seconds, signal) pairs."""
        if self.only and self.only not in name:
            return None
        before = {path: digest(path) for path in keep}
        started = time.time()
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout or out, stderr=err, env=self.env | (env or {}),
                                   cwd=cwd or self.place, preexec_fn=default_signals)
        try:
            if stdin is not None:
                process.stdin.write(stdin)
                process.stdin.close()
        except BrokenPipeError:
            pass
        pending, code, peak = sorted(send or []), None, 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss
                process.returncode = code
                break
            now = time.time() - started
            if pending and now >= pending[0][0]:
                process.send_signal(pending.pop(0)[1])
            if now > limit:
                process.kill()
                _, _, usage = os.wait4(process.pid, 0)
                code, peak, process.returncode = "hang", usage.ru_maxrss, -9
                break
            time.sleep(0.01)
        err.seek(0)
        message = err.read().decode(errors="replace")
        out.seek(0)
        self.shown = out.read().decode(errors="replace")
        faults = []
        if code not in expected:
            faults.append(f"exit {code}, expected {sorted(expected)}")
        if "panicked" in message or "panicked" in self.shown:
            faults.append("panicked")
        if peak > LIMIT_KILOBYTES:
            faults.append(f"{peak // 1000} MB of memory")
        errors = [line for line in message.splitlines() if line.startswith("error:")]
        if code == 2 and len(errors) != 1 and not usage:
            faults.append(f"{len(errors)} messages")
        if code == 2:
            text = message + self.shown
            faults += [f"no {part!r} in the message" for part in says if part not in text]
        faults += [f"{part!r} in the message" for part in never if part in message]
        faults += [f"{path} changed" for path in keep if digest(path) != before[path]]
        self.count += 1
        self.codes[code] = self.codes.get(code, 0) + 1
        # A child's peak includes this script's own memory from before it became the program.
        floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = f"{peak // 1000} MB" if peak > floor else f"up to {floor // 1000} MB"
        line = f"{name}\texit {code}\t{time.time() - started:.1f} s\t{memory}\t{(errors or message.splitlines() or [''])[-1][:400]}"
        if self.log:
            print(line, file=self.log, flush=True)
        if faults:
            self.failed.append(name)
            print(f"FAILED {line}\n       {'; '.join(faults)}", flush=True)
        return code

    def skip(self, name, reason):
        if not self.only or self.only in name:
            self.skipped.append(name)
            print(f"skipped {name}: {reason}")


def default_signals():
    """Ctrl-C reaches a program also where the shell started this script in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def digest(path):
    path = pathlib.Path(path)
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    if path.is_dir():
        return {str(p.relative_to(path)): digest(p) for p in sorted(path.rglob("*")) if p.is_symlink() or p.is_file()}
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def read_tensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]])
            for name, t in header.items()}


def write_tensors(path, tensors, edit=None):
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    if edit:
        edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


WORDS = "the cat sat on a mat and read one fine or dull film about rust code with its own long story".split()


def sentence(i):
    return " ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(4 + i % 12)) + "."


RECIPE = """[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 4
num_attention_heads = 2
local_attention = 16
global_rope_theta = 10_000.0
max_position_embeddings = 64
initializer_range = 0.08
[data]
corpus = "corpus.jsonl"
tokenizer = "train"
tokenizer_vocab = 320
eval_bytes = 1500
sequence_length = 32
[batch]
tokens = 64
micro_batches = 2
[optimizer]
learning_rate = 3e-3
[run]
total_tokens = 3_000
eval_every_tokens = 1_500
eval_tokens = 512
log_every_steps = 2
[checkpoint]
every_steps = 8
"""


def prepare(r):
    """A run, and a model with each head."""
    place = r.place
    (place / "home").mkdir()
    rows = "".join(json.dumps({"text": " ".join(sentence(i + k) for k in range(4))}) + "\n" for i in range(300))
    (place / "corpus.jsonl").write_text(rows)
    (place / "tiny.toml").write_text(RECIPE)
    subprocess.run(r.command("modernbert-train", "run", "tiny.toml", "--out", "run", "--lines"), cwd=place, env=r.env, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(r.command("modernbert-train", "export", "run", "mlm"), cwd=place, env=r.env, check=True, stdout=subprocess.DEVNULL)
    mlm = place / "mlm"
    config, tensors = json.loads((mlm / "config.json").read_text()), read_tensors(mlm / "model.safetensors")
    rows = lambda n: ("F32", [n, 32], floats(*[((i * 37) % 19 - 9) / 10 for i in range(32 * n)]))
    for name, architecture, labels in [("cls", "SequenceClassification", 2), ("tok", "TokenClassification", 3),
                                       ("qa", "QuestionAnswering", 2)]:
        folder = place / name
        shutil.copytree(mlm, folder)
        changed = config | {"architectures": [f"ModernBertFor{architecture}"]}
        if name != "qa":
            changed["id2label"] = {str(i): f"L{i}" if name == "cls" else ["O", "B-X", "I-X"][i] for i in range(labels)}
        (folder / "config.json").write_text(json.dumps(changed))
        more = {k: v for k, v in tensors.items() if not k.startswith("decoder")}
        more["classifier.weight"], more["classifier.bias"] = rows(labels), ("F32", [labels], floats(*[0.0] * labels))
        write_tensors(folder / "model.safetensors", more)
    subprocess.run(r.command("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "shards"), cwd=place,
                   env=r.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table = "text,label\n" + "".join(f"\"{sentence(i)}\",{'good' if i % 2 else 'bad'}\n" for i in range(40))
    (place / "train.csv").write_text(table)
    (place / "dev.csv").write_text(table)


def model_with(r, number, base="mlm", **files):
    """A copy of a model with other files: bytes, text, or a function of the path."""
    folder = r.place / "models" / number
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(r.place / base, folder)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if path.exists():
            path.unlink()
        if callable(content):
            content(path)
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
