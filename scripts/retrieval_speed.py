#!/usr/bin/env python3
"""Measures faiss's exact search over random vectors as modernbert-retrieval/examples/exact_search.rs measures this project's.

    pip install numpy faiss-cpu
    OMP_NUM_THREADS=1 python scripts/retrieval_speed.py 50000 250

Arguments: number of vectors, number of queries. Vectors have 768 components in f32; the best 10 are searched. Use one thread: several
threads wait for each other in a busy loop on a machine with other load, which counts as processor time.
"""

import sys
import time

import faiss
import numpy as np

vectors, queries, dimension = int(sys.argv[1]), int(sys.argv[2]), 768
generator = np.random.default_rng(0)
base = generator.uniform(-1, 1, (vectors, dimension)).astype(np.float32)
base /= np.linalg.norm(base, axis=1, keepdims=True)
questions = generator.uniform(-1, 1, (queries, dimension)).astype(np.float32)
index = faiss.IndexFlatIP(dimension)
index.add(base)
for _ in range(5):
    start, processor = time.perf_counter(), time.process_time()
    index.search(questions, 10)
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    speed = 2 * vectors * queries * dimension / processor / 1e9
    print(f"faiss f32 {vectors} vectors, {queries} queries: wall {wall:.3f} s, processor {processor:.2f} s, {speed:.1f} GFLOP per processor second")
