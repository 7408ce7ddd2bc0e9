#!/usr/bin/env python3
"""Loads a tokenizer that this project trained with Hugging Face's libraries and writes their ids of some texts, for a test of this project.

    pip install tokenizers transformers
    UPDATE_DOCS=1 cargo test --workspace --lib -- a_trained_tokenizer_is_that_of_hugging_face   # writes tokenizer.json
    python scripts/tokenizer_fixtures.py            # writes python.json beside it
    python scripts/tokenizer_fixtures.py FOLDER     # checks the tokenizer of any folder, writes nothing

The folder is crates/modernbert-files/src/tokenizer/fixtures. Exit code 1: the two libraries disagree, or a text does not come back.
"""

import json
import sys
import unicodedata
import zlib
from pathlib import Path

import tokenizers
import transformers

FIXTURES = Path(__file__).resolve().parent.parent / "crates/modernbert-files/src/tokenizer/fixtures"

TEXTS = [
    "",
    "The market sells fish.",
    "the boats counted twice",
    "  two spaces before, one after ",
    "line\nbreak\r\n\ttab    and      runs of spaces",
    "fn main() { let x = 0x7f; }",
    "it's, they'll, we've, I'd, you're",
    "12 128 2048 7.5% 1e-3",
    "cafe\u0301 and caf\u00e9 are one word after NFC",
    "naïve façade Straße naß über",
    "Рынок открывается рано",
    "市場は朝早く開き",
    "emoji 🚤⚓ and a family 👩‍👩‍👧",
    "a [MASK] boat and a[MASK]boat",
    "[CLS] in the text [SEP] too [PAD][UNK]",
    "\u0000 control \u001b[0m and \ufeff marks \u200b",
    "ﬁ ligature, Å angstrom, 한국어 and 한국어",
]
PAIRS = [("The market", "sells fish."), ("", "second alone"), ("a [MASK]", "[MASK] b")]


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURES
    path = folder / "tokenizer.json"
    plain = tokenizers.Tokenizer.from_file(str(path))
    whole = transformers.AutoTokenizer.from_pretrained(folder)
    for name, token in whole.special_tokens_map.items():
        assert plain.token_to_id(token) is not None, f"{name}: {token} is not in the vocabulary"
    specials = {name: plain.token_to_id(f"[{name}]") for name in ("UNK", "CLS", "SEP", "PAD", "MASK")}
    cases = []
    for text in TEXTS:
        ids = plain.encode(text).ids
        assert ids == whole(text)["input_ids"], text
        assert ids[0] == specials["CLS"] and ids[-1] == specials["SEP"], text
        bare = plain.encode(text, add_special_tokens=False).ids
        decoded = plain.decode(bare, skip_special_tokens=False)
        # [MASK] swallows the white space on its left.
        if "[" not in text:
            assert decoded == unicodedata.normalize("NFC", text), (text, decoded)
        cases.append({"text": text, "ids": ids, "decoded": decoded})
    pairs = []
    for first, second in PAIRS:
        ids = plain.encode(first, second).ids
        assert ids == whole(first, second)["input_ids"], (first, second)
        pairs.append({"first": first, "second": second, "ids": ids})
    found = {
        "tokenizer_crc32": zlib.crc32(path.read_bytes()),
        "libraries": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__},
        "vocab_size": plain.get_vocab_size(),
        "model_max_length": whole.model_max_length,
        "specials": specials,
        "cases": cases,
        "pairs": pairs,
    }
    if len(sys.argv) == 1:
        (folder / "python.json").write_text(json.dumps(found, ensure_ascii=True, indent=1) + "\n")
    print(f"{path}: {found['vocab_size']} ids, {len(cases)} texts and {len(pairs)} pairs alike in both libraries")


if __name__ == "__main__":
    main()
