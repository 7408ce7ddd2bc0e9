#!/usr/bin/env python3
"""Writes crates/modernbert-data/tests/fixtures/mds with MosaicML's own writer, for the tests of this project's reader.

Needs `pip install mosaicml-streaming` (0.13.0 was used). The writer uses few of that package's many dependencies: with `--stub` and the
unpacked wheels of mosaicml-streaming, zstd and catalogue on PYTHONPATH, the others are replaced by empty modules.
"""

import shutil
import sys
from pathlib import Path

if "--stub" in sys.argv:
    import importlib.abc
    import importlib.machinery
    from unittest.mock import MagicMock

    class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        """Imports empty modules for packages that are not installed."""

        WHOLE = {"torch", "torchvision", "transformers", "boto3", "botocore", "google", "azure", "oci", "paramiko", "snappy", "brotli", "xxhash", "pandas", "PIL", "tqdm", "requests", "huggingface_hub", "databricks", "pyarrow"}
        PARTS = {"streaming.multimodal", "streaming.text", "streaming.vision", "streaming.base.dataloader", "streaming.base.dataset", "streaming.base.local"}

        def find_spec(self, name, path, target=None):
            if name.split(".")[0] not in self.WHOLE and not any(name == p or name.startswith(p + ".") for p in self.PARTS):
                return None
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

        def create_module(self, spec):
            module = MagicMock()
            module.__path__ = []
            module.__spec__ = spec
            return module

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, Stub())

import numpy as np
from streaming.base.format.mds.writer import MDSWriter

OUT = Path(__file__).resolve().parent.parent / "crates/modernbert-data/tests/fixtures/mds"

shutil.rmtree(OUT, ignore_errors=True)

TEXTS = ["one\n", "zwei: größer ☃", "", "four " * 40]
TOKENS = [[1, 2, 3], [50281, 7, 50282], list(range(300)), [9]]


def write(name, columns, samples, **options):
    with MDSWriter(out=str(OUT / name), columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)


text = [{"text": text, "id": f"doc-{i}", "year": 1900 + i} for i, text in enumerate(TEXTS)]
columns = {"text": "str", "id": "str", "year": "int"}
write("text", columns, text)
write("text-zstd", columns, text, compression="zstd:3")
# Small shards, so that there are several.
write("text-shards", columns, text, size_limit=250)


def tokens(dtype):
    return [{"input_ids": np.array(ids, dtype), "id": i} for i, ids in enumerate(TOKENS)]


write("tokens-static", {"input_ids": "ndarray:uint16", "id": "int"}, tokens(np.uint16))
write("tokens-dynamic", {"input_ids": "ndarray", "id": "int"}, tokens(np.int64))
write("tokens-bytes", {"input_ids": "bytes"}, [{"input_ids": np.array(ids, np.int64).tobytes()} for ids in TOKENS])
