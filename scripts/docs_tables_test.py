#!/usr/bin/env python3
"""Tests scripts/docs-tables on pages and logs made up here: every kind of table, and everything it must refuse.

    scripts/docs_tables_test.py
"""

import gzip, importlib.machinery, json, pathlib, subprocess, sys, tempfile, types, unittest

PROGRAM = pathlib.Path(__file__).resolve().parent / "docs-tables"


def train(step, loss, tokens, tok_s=100.0):
    return {"split": "train", "step": step, "loss": loss, "tokens": tokens, "tok_s": tok_s}


def evaluation(step, loss, tokens, **more):
    return {"split": "eval", "step": step, "loss": loss, "tokens": tokens, **more}


class Tables(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.runs = pathlib.Path(self.folder.name) / "docs/runs"
        self.runs.mkdir(parents=True)
        self.page = self.runs / "page.md"

    def run_of(self, name, rows, recipe="recipe.toml", log="metrics.jsonl.gz"):
        folder = self.runs / "page" / name
        folder.mkdir(parents=True)
        if recipe:
            (folder / recipe).write_text("")
        with gzip.open(folder / log, "wt") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        return folder

    def tables(self, *more):
        return subprocess.run([sys.executable, PROGRAM, "--runs", self.runs, *more], capture_output=True, text=True)

    def made(self, block):
        """The lines of the table of a block, which a check then finds current."""
        self.page.write_text(f"# Page\n\n<!-- docs-tables: {block} -->\n<!-- docs-tables: end -->\n")
        done = self.tables()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.tables("--check").returncode, 0)
        return self.page.read_text().splitlines()[3:-1]

    def refused(self, said, *, check=True):
        before = self.page.read_text() if self.page.exists() else None
        done = self.tables(*["--check"] if check else [])
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(said, done.stderr)
        if before is not None:
            self.assertEqual(self.page.read_text(), before)

    def test_losses(self):
        self.run_of("a", [train(1, 4.0, 10), train(2, 2.0, 20), evaluation(2, 9.0, 20)])
        self.run_of("b", [train(1, 5.0, 10), train(2, 2.0, 20)])
        lines = self.made("losses rows=2 page/a page/b")
        self.assertEqual(lines[2:4], ["| 1 | 4.0000 | 5.0000 | +25.00 % |", "| 2 | 2.0000 | 2.0000 | +0.00 % |"])
        self.assertEqual(lines[-1], "Largest difference of 2 logged means: +25.00 %, at step 1.")

    def test_held_out(self):
        rows = [evaluation(5, 4.5, 251), evaluation(9, 4.25, 500), evaluation(10, 4.125, 600)]
        self.run_of("a", rows)
        lines = self.made("held-out tokens=250,600 'page/a=a run, full batch'")
        self.assertEqual(lines[0], "| held-out loss after | 0.25 k tokens | 0.6 k tokens | steps |")
        self.assertEqual(lines[2], "| a run, full batch | 4.500 | 4.125 | 10 |")
        self.page.write_text("<!-- docs-tables: held-out tokens=700 page/a -->\n<!-- docs-tables: end -->\n")
        self.refused("no evaluation after 700 tokens")

    def test_final(self):
        # With two degrees of freedom p is 1 - t / sqrt(t * t + 2), here of t = 6.28.
        for name, ends in [("first", [4.552, 4.561, 4.434]), ("second", [4.418, 4.43, 4.356])]:
            for seed, end in enumerate(ends, 1):
                self.run_of(f"{name}-{seed}", [evaluation(1, 9.0, 1), evaluation(2, end, 2)])
        lines = self.made("final seeds=1,2,3 page/first page/second=another")
        self.assertEqual(lines[2], "| first | 4.552 | 4.561 | 4.434 | 4.516 | 0.071 |  |  | 3 |  |")
        self.assertEqual(lines[3], "| another | 4.418 | 4.430 | 4.356 | 4.401 | 0.040 | -0.114 | 0.032 | 3 | 0.024 |")

    def test_probabilities_of_students_distribution(self):
        loader = importlib.machinery.SourceFileLoader("docs_tables", str(PROGRAM))
        module = types.ModuleType("docs_tables")
        module.__file__ = str(PROGRAM)
        loader.exec_module(module)
        # Quantiles of printed tables, and 1 degree of freedom, where p is 1 - 2 / pi * atan(t).
        for t, freedom, p in [(12.706, 1, 0.05), (2.776, 4, 0.05), (4.604, 4, 0.01), (2.228, 10, 0.05), (1.96, 100000, 0.05), (1, 1, 0.5), (0, 3, 1)]:
            self.assertAlmostEqual(module.student(t, freedom), p, delta=1e-4)

    def test_time(self):
        # 10 seconds for the first 1000 tokens, 5 for the next 1000.
        self.run_of("a", [train(3, 5.1, 1000, 100.0), evaluation(3, 1.0, 1000), train(6, 4.4, 2000, 200.0)])
        lines = self.made("time losses=5.5,4.5,4 page/a")
        self.assertEqual(lines[2], "| a | 10.0 (3) | 15.0 (6) |  | 15.0 (6) | 2 k |")

    def test_time_of_repetitions(self):
        for repeat, speed in [(1, 100.0), (2, 200.0), (3, 50.0)]:
            self.run_of(f"a-{repeat}", [train(3, 5.0, 1000, speed)])
        lines = self.made("time losses=5.5 repeats=1,2,3 page/a")
        self.assertEqual(lines[2], "| a | 5.0 (3) | 5.0 (3) | 1 k | 20.0 |")
        self.run_of("a-4", [train(3, 5.1, 1000)])
        self.page.write_text("<!-- docs-tables: time losses=5.5 repeats=1,4 page/a -->\n<!-- docs-tables: end -->\n")
        self.refused("the repetitions of a have other losses")

    def test_phases_and_positions(self):
        rows = []
        for phase, step, tokens in [("first", 2, 1_000_000), ("second", 3, 1_500_000)]:
            rows.append(train(step - 1, 4.0, tokens - 1) | {"phase": phase, "packing": 0.9})
            rows.append(train(step, 3.0, tokens) | {"phase": phase, "packing": 1.0})
            rows.append(evaluation(step, 2.5, tokens, phase=phase, masked_accuracy=0.25))
        folder = self.run_of("a", rows)
        lines = self.made("phases page/a")
        self.assertEqual(lines[2], "| first | 1.00 M | 2 | 95.0 % | 2.500 | 25.0 % |")
        self.assertEqual(lines[3], "| second | 0.50 M | 1 | 95.0 % | 2.500 | 25.0 % |")
        part = lambda begun, end, loss: {"from": begun, "to": end, "loss": loss, "tokens": end - begun}
        rows = [{"phase": phase, "positions": [part(0, 8, loss), part(8, 32, loss + 0.5)]} for phase, loss in [("first", 3.0), ("second", 2.0)]]
        with gzip.open(folder / "positions.jsonl.gz", "wt") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        lines = self.made("positions page/a")
        self.assertEqual(lines[0], "| position | 0 to 8 | 8 to 32 |")
        self.assertEqual(lines[2:], ["| after first | 3.000 | 3.500 |", "| after second | 2.000 | 2.500 |", "| predicted tokens | 8 | 24 |"])

    def test_evaluations_and_spans(self):
        folder = self.run_of("a", [evaluation(7, 0.5, 9, score=0.25)], recipe="command.sh")
        lines = self.made("evaluations columns=loss,score page/a")
        self.assertEqual(lines[2:], ["| 1 | 7 | 0.5000 | 0.2500 |"])
        rows = [
            {"label": ["B-x", "I-x", "O", "B-y"], "prediction": ["B-x", "I-x", "O", "O"]},
            # A tag that continues nothing begins a span; B begins a second one.
            {"label": ["I-x", "B-x", "I-y"], "prediction": ["B-x", "I-x", "I-y"]},
        ]
        with gzip.open(folder / "predictions.jsonl.gz", "wt") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        lines = self.made("spans page/a")
        self.assertEqual(lines[2], "| x | 3 | 2 | 0.5000 | 0.3333 | 0.4000 |")
        self.assertEqual(lines[3], "| y | 2 | 1 | 1.0000 | 0.5000 | 0.6667 |")
        self.assertEqual(lines[4], "| all | 5 | 3 | 0.6667 | 0.4000 | 0.5000 |")

    def test_a_table_that_is_not_that_of_its_log_is_found_and_written_again(self):
        self.run_of("a", [train(1, 4.0, 10)])
        self.made("losses rows=1 page/a")
        good = self.page.read_text()
        self.page.write_text(good.replace("4.0000", "3.9000"))
        self.refused("docs/runs/page.md: a table is not what its logs say")
        self.assertEqual(self.tables().returncode, 0)
        self.assertEqual(self.page.read_text(), good)

    def test_a_table_needs_a_block_or_a_reason(self):
        for table in ["| a | b |\n|---|---:|\n| 1 | 2 |\n", "a | b\n--- | ---\n1 | 2\n", "<table><tr><td>1</td></tr></table>\n"]:
            self.page.write_text(f"Text.\n\n{table}")
            self.refused("docs/runs/page.md:3: a table that is neither")
            self.refused("docs/runs/page.md:3: a table that is neither", check=False)
            # A reason is of one table, and says something.
            self.page.write_text(f"<!-- not regenerated: the log is lost -->\n{table}\n{table}")
            self.refused("a table that is neither")
            self.page.write_text(f"<!-- not regenerated: -->\n{table}")
            self.refused("a table that is neither")
            self.page.write_text(f"<!-- not regenerated: the log is lost -->\n\n{table}")
            done = self.tables("--check")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("1 with a reason why not", done.stdout)
        self.page.write_text("```text\n| a | b |\n|---|---|\n```\n\nA rule:\n\n---\n")
        self.assertEqual(self.tables("--check").returncode, 0)

    def test_what_belongs_to_no_table_is_refused(self):
        self.run_of("a", [train(1, 4.0, 10)])
        for text, said in [
            ("<!-- not regenerated: the log is lost -->\n\nText.\n", "page.md:1: a reason without a table"),
            ("<!-- docs-tables: losses rows=1 page/a -->\n| a |\n|---|\n", "page.md:1: a block of docs-tables without"),
            ("<!-- docs-tables: end -->\n", "page.md:1: a block of docs-tables without"),
            ("Text. <!-- docs-tables: losses rows=1 page/a -->\n<!-- docs-tables: end -->\n", "without beginning or end"),
        ]:
            self.page.write_text(text)
            self.refused(said)

    def test_a_block_that_cannot_be_made_is_refused(self):
        self.run_of("a", [train(1, 4.0, 10)])
        for block, said in [
            ("plot page/a", "page.md:1: unknown kind of table plot"),
            ("losses rows=1", "names no run"),
            ("losses page/a", "rows"),
            ("losses rows=1 page/nowhere", "metrics.jsonl.gz of nowhere can't be read"),
            ("spans page/a", "predictions.jsonl.gz of a can't be read"),
            ("evaluations columns=score seeds=1 page/a", "seeds"),
        ]:
            self.page.write_text(f"<!-- docs-tables: {block} -->\n<!-- docs-tables: end -->\n")
            self.refused(said)

    def test_a_run_keeps_its_recipe_and_its_log(self):
        self.run_of("no-recipe", [], recipe=None)
        self.refused("docs/runs/page/no-recipe: keep metrics.jsonl.gz")
        (self.runs / "page/no-recipe/command.sh").write_text("finetune\n")
        self.assertEqual(self.tables("--check").returncode, 0)
        self.run_of("no-log", [], log="other.gz")
        self.refused("docs/runs/page/no-log: keep metrics.jsonl.gz")


if __name__ == "__main__":
    unittest.main()
