#!/usr/bin/env python3
"""Writes small random models of BERT and RoBERTa with transformers, and the outputs that this project must reproduce from them.

    pip install torch "transformers>=5"
    python scripts/families_fixtures.py                 # writes modernbert/tests/fixtures/families
    python scripts/families_fixtures.py --real FOLDER   # writes minilm.json there, from a folder with all-MiniLM-L6-v2, whose weights are not committed
    python scripts/families_fixtures.py --check FOLDER EXPECTED.json   # compares a folder that this project wrote; exit code 1 where it differs

Each folder has the files of `save_pretrained`, the weights rounded to f16, and is a model of one class. `expected.json` of a family has the ids and types of
two sequences, one of them a pair, with hidden states and logits in f32. `old_names` in BERT's folder is the masked language model under the names of 2018: `gamma`, `beta`, the
prefix `bert.`, with the pooler and the head of next-sentence prediction beside it.
"""

import json
import math
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).resolve().parent.parent / "modernbert/tests/fixtures/families"
CLASSES = {
    "encoder": "Model",
    "masked_lm": "ForMaskedLM",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "question": "ForQuestionAnswering",
    "choice": "ForMultipleChoice",
}
PREFIXES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}
TEXT = ("a small boat", "the boats of the old harbour leave early, and the market sells fish")
REAL = [
    "A man is eating food.",
    "The stock market fell by 3.5% on Tuesday, analysts said; why?",
    "naïve Café — 東京 is the capital of Japan",
    "fn main() { println!(\"hello\"); }",
]


def rounded(tensor):
    return [float(f"{x:.8g}") for x in tensor.detach().double().flatten().tolist()]


def wordpiece():
    """A WordPiece tokenizer as BertTokenizerFast writes it."""
    words = "a b c d e f g h i k l m n o p r s t u v y ##a ##b ##d ##e ##f ##g ##h ##i ##k ##l ##n ##o ##r ##s ##t ##u ##v ##y , . ?".split()
    words += "the of and small boat boats market sells fish old leave early ##bour har".split()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + words
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(vocabulary[:5])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer, vocabulary


def byte_level():
    """A byte-level tokenizer as RobertaTokenizerFast writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([" ".join(TEXT)] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def write_tokenizer(family, folder):
    if family == "bert":
        tokenizer, _ = wordpiece()
        names = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    else:
        tokenizer = byte_level()
        names = {"tokenizer_class": "RobertaTokenizer", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "model_max_length": 48}, indent=2) + "\n")
    return tokenizer


def config_of(family, key, vocabulary):
    config = getattr(transformers, PREFIXES[family] + "Config")
    more = {} if family == "bert" else {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    return config(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_act="gelu" if family == "bert" else "gelu_new",
        max_position_embeddings=48 if family == "bert" else 50,
        layer_norm_eps=1e-12 if family == "bert" else 1e-5,
        initializer_range=0.2,
        classifier_dropout=None if family == "bert" else 0.25,
        num_labels={"question": 2, "choice": 1}.get(key, 3),
        **more,
    )


def randomize(model):
    """Every parameter random, biases and norms too, with the values of f16."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            norm = "norm" in name.lower() and name.endswith("weight")
            values = torch.randn(parameter.shape) * (0.1 if norm or name.endswith("bias") else 0.25) + (1.0 if norm else 0.0)
            parameter.copy_(values.half().float())
    return model.eval()


def inputs_of(tokenizer, family):
    """Ids and types of a text and of a pair, by the tokenizer's own template."""
    encodings = [tokenizer.encode(TEXT[1]), tokenizer.encode(*TEXT)]
    types = [e.type_ids if family == "bert" else [0] * len(e.ids) for e in encodings]
    return [e.ids for e in encodings], types


def padded(ids, types, pad):
    width = max(map(len, ids))
    fill = lambda rows, value: torch.tensor([row + [value] * (width - len(row)) for row in rows])
    return {"input_ids": fill(ids, pad), "token_type_ids": fill(types, 0), "attention_mask": fill([[1] * len(row) for row in ids], 0)}


def outputs(model, key, ids, types, pad):
    batch = padded(ids, types, pad)
    with torch.no_grad():
        if key == "choice":
            return {"logits": rounded(model(**{k: v[None] for k, v in batch.items()}).logits)}
        found = model(**batch, output_hidden_states=True)
    real = lambda state: [rounded(row[: len(one)]) for row, one in zip(state, ids)]
    if key == "encoder":
        return {"hidden_states": [real(state) for state in found.hidden_states]}
    if key == "question":
        return {"start": real(found.start_logits), "end": real(found.end_logits)}
    return {"logits": rounded(found.logits) if key == "sequence" else real(found.logits)}


def main():
    for number, family in enumerate(PREFIXES):
        torch.manual_seed(17 + number)
        expected = {}
        (OUT / family).mkdir(parents=True, exist_ok=True)
        tokenizer = write_tokenizer(family, OUT / family)
        for key, ending in CLASSES.items():
            if family == "xlm-roberta" and key not in ("encoder", "sequence"):
                continue  # RoBERTa's under another name
            folder = OUT / family / key
            config = config_of(family, key, tokenizer.get_vocab_size())
            model = randomize(getattr(transformers, PREFIXES[family] + ending)(config))
            ids, types = inputs_of(tokenizer, family)
            expected |= {"ids": ids, "types": types, "text": TEXT[1], "pair": TEXT}
            expected[key] = outputs(model, key, ids, types, config.pad_token_id)
            model.half().save_pretrained(folder)
        if family == "bert":
            old_names(expected)
        (OUT / family / "expected.json").write_text(json.dumps(expected) + "\n")
    vocabulary = "\n".join(wordpiece()[1]) + "\n"
    (OUT / "bert/vocab.txt").write_text(vocabulary)
    for weights in OUT.rglob("model.safetensors"):
        # The tests copy them back: no file of weights is committed under that name.
        weights.rename(weights.with_name("weights.bin"))


def old_names(expected):
    """The masked language model under the names of BERT's first files, with what such files have beside it."""
    source, folder = OUT / "bert/masked_lm", OUT / "bert/old_names"
    folder.mkdir(exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in tensors.items()}
    old["bert.pooler.dense.weight"] = torch.zeros(16, 16).half()
    old["bert.pooler.dense.bias"] = torch.zeros(16).half()
    old["cls.seq_relationship.weight"] = torch.zeros(2, 16).half()
    old["cls.seq_relationship.bias"] = torch.zeros(2).half()
    old["bert.embeddings.position_ids"] = torch.arange(48)[None]
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ["BertForPreTraining"]
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def real(folder):
    """Vectors and hidden states of all-MiniLM-L6-v2: mean over the tokens, scaled to length one, as sentence-transformers computes them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).float().eval()
    rows = []
    for text in REAL + [" ".join(REAL) * 3]:
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            found = model(**batch, output_hidden_states=True)
        vector = torch.nn.functional.normalize(found.last_hidden_state.mean(1))[0]
        states = [rounded(state[0, -1]) for state in found.hidden_states] if len(rows) == 1 else []
        rows.append({"text": text, "ids": batch["input_ids"][0].tolist(), "vector": rounded(vector), "states_of_last_token": states})
    (OUT / "minilm.json").write_text(json.dumps(rows, ensure_ascii=False) + "\n")


def check(folder, expected):
    """Loads a folder that this project wrote and compares its outputs with those of the folder it was made of."""
    folder, expected = Path(folder), json.loads(Path(expected).read_text())
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    key = next(k for k, ending in CLASSES.items() if name.endswith(ending))
    # The encoder's folder has no pooler, which nothing here reads.
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    missing = [one for one in info["missing_keys"] if "pooler" not in one]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = outputs(model.float().eval(), key, expected["ids"], expected["types"], model.config.pad_token_id)
    flat = lambda value: [x for part in value for x in flat(part)] if isinstance(value, list) else [value]
    worst = max(abs(a - b) for k in found for a, b in zip(flat(found[k]), flat(expected[key][k]), strict=True))
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    types = auto(*expected["pair"]).get("token_type_ids", [0] * len(expected["types"][1]))
    same = auto(*expected["pair"])["input_ids"] == expected["ids"][1] and types == expected["types"][1]
    bad = missing or info["unexpected_keys"] or info["mismatched_keys"] or not worst < 1e-5 or not same or tokenizer is None
    print(f"{folder}: {name}, largest difference {worst:.1e}, missing {missing}, unexpected {sorted(info['unexpected_keys'])}, pairs {'as' if same else 'unlike'} before")
    return bool(bad) or math.isnan(worst)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--real"]:
        real(sys.argv[2])
    elif sys.argv[1:2] == ["--check"]:
        sys.exit(check(*sys.argv[2:4]))
    else:
        main()
