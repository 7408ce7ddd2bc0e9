#!/usr/bin/env python3
"""Compiles the kernel sources in a folder (see ../check-kernels) with NVRTC and ptxas, for each of their architectures.

    python3 scripts/kernels/check.py FOLDER [--only PART_OF_A_NAME] [--json FILE]

Needs no GPU. NVRTC, CUDA's headers and ptxas come from PyPI: nvidia-cuda-nvrtc-cu12, nvidia-cuda-runtime-cu12, nvidia-cuda-nvcc-cu12
(or from CUDA_PATH). Prints registers, spilled bytes, shared memory, thread blocks per multiprocessor and seconds of compilation; exits
with 1 where a kernel doesn't compile, spills more than the allowed bytes, or has its WGMMA instructions serialized.
"""
import argparse
import ctypes
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

# Registers, threads and bytes of shared memory of a multiprocessor; a block takes 1 KiB more than it asks for.
MULTIPROCESSORS = {"80": (65536, 2048, 164), "86": (65536, 1536, 100), "89": (65536, 1536, 100), "90a": (65536, 2048, 228)}
# Bytes a thread may spill: a few registers outside the loops cost nothing that could be measured.
ALLOWED_SPILL = 32


def package_folder(name):
    """Folder of one of NVIDIA's wheels on the path of this interpreter, or None."""
    for base in sys.path:
        folder = pathlib.Path(base) / "nvidia" / name
        if folder.is_dir():
            return folder
    return None


def toolkit():
    """NVRTC's library, the headers, ptxas."""
    cuda = pathlib.Path(os.environ.get("CUDA_PATH", "/usr/local/cuda"))
    nvrtc, runtime, nvcc = (package_folder(name) for name in ("cuda_nvrtc", "cuda_runtime", "cuda_nvcc"))
    libraries = sorted((nvrtc / "lib").glob("libnvrtc.so*")) if nvrtc else sorted((cuda / "lib64").glob("libnvrtc.so*"))
    include = runtime / "include" if runtime else cuda / "include"
    ptxas = nvcc / "bin" / "ptxas" if nvcc else shutil.which("ptxas") or cuda / "bin" / "ptxas"
    if not libraries or not include.is_dir() or not pathlib.Path(ptxas).exists():
        sys.exit("NVRTC, CUDA's headers or ptxas not found: pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12")
    return libraries[-1], include, ptxas


class Compiler:
    def __init__(self):
        library, self.include, self.ptxas = toolkit()
        self.nvrtc = ctypes.CDLL(str(library))

    def ptx(self, text, architecture):
        """PTX of a source, with the options CubeCL's runtime gives."""
        program = ctypes.c_void_p()
        self.nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None)
        options = [f"--gpu-architecture=sm_{architecture}", f"--include-path={self.include}", "-lineinfo"]
        status = self.nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
        if status != 0:
            raise ValueError(self.read(program, "ProgramLog"))
        return self.read(program, "PTX")

    def read(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.nvrtc, f"nvrtcGet{what}")(program, text)
        return text.value.decode()

    def assemble(self, ptx, architecture, keep=None):
        """Registers, bytes spilled, and the assembler's warnings."""
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "kernel.ptx"
            source.write_text(ptx)
            run = subprocess.run(
                [self.ptxas, "-v", f"-arch=sm_{architecture}", source, "-o", keep or pathlib.Path(folder) / "kernel.cubin"],
                capture_output=True, text=True,
            )
        if run.returncode != 0:
            raise ValueError(run.stderr)
        registers = int(re.search(r"Used (\d+) registers", run.stderr).group(1))
        spilled = max(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", run.stderr))
        warnings = [line for line in run.stderr.splitlines() if "serialized" in line or "Performance Loss" in line]
        return registers, spilled, warnings


def fitting(architecture, units, registers, shared):
    """Thread blocks of this kernel that share a multiprocessor."""
    all_registers, threads, kilobytes = MULTIPROCESSORS[architecture]
    per_warp = -(-registers * 32 // 256) * 256
    warps = units // 32
    return min(all_registers // (per_warp * warps), threads // units, kilobytes * 1024 // (shared + 1024))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="", help="kernels whose name has this in it")
    parser.add_argument("--architectures", default="80,86,89,90a")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path, help="keep PTX and machine code here")
    args = parser.parse_args()
    compiler = Compiler()
    rows, failed = [], []
    print(f"{'kernel':<44} {'sm':>4} {'registers':>9} {'spilled':>8} {'shared':>7} {'blocks':>6} {'nvrtc s':>8} {'ptxas s':>8}")
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    for line in (args.folder / "index").read_text().splitlines():
        name, architectures, units, shared = line.split()
        if args.only not in name:
            continue
        text = (args.folder / f"{name}.cu").read_text()
        for architecture in architectures.split(","):
            if architecture not in args.architectures.split(","):
                continue
            try:
                start = time.perf_counter()
                ptx = compiler.ptx(text, architecture)
                middle = time.perf_counter()
                keep = None
                if args.keep:
                    keep = args.keep / f"{name}.sm_{architecture}.cubin"
                    keep.with_suffix(".ptx").write_text(ptx)
                registers, spilled, warnings = compiler.assemble(ptx, architecture, keep)
                end = time.perf_counter()
            except ValueError as error:
                print(f"{name:<44} {architecture:>4} doesn't compile:\n{error}")
                failed.append(name)
                continue
            blocks = fitting(architecture, int(units), registers, int(shared))
            if spilled > ALLOWED_SPILL or warnings or blocks < 1:
                failed.append(f"{name} for sm_{architecture}")
            row = dict(kernel=name, sm=architecture, units=int(units), registers=registers, spilled=spilled, shared=int(shared), blocks=blocks,
                       nvrtc_s=middle - start, ptxas_s=end - middle, warnings=warnings)
            rows.append(row)
            print(f"{name:<44} {architecture:>4} {registers:>9} {spilled:>8} {shared:>7} {blocks:>6} {row['nvrtc_s']:>8.2f} {row['ptxas_s']:>8.2f}",
                  *warnings, flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if failed:
        print("failed:", *sorted(set(failed)), sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
