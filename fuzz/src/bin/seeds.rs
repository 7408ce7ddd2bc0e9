//! Writes a few valid inputs per target into `corpus/`, from which the fuzzer starts.

use modernbert_fuzz::config::ModernBertConfig;
use modernbert_fuzz::shard::{ShardWriter, TokenizerHash};
use modernbert_fuzz::tokenizer::{TrainOptions, train::train};
use safetensors::{Dtype, serialize, tensor::TensorView};
use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, content: &[u8]| -> Result<(), Box<dyn Error>> {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), content)?)
    };

    for (name, dtype, width) in [("f32", Dtype::F32, 4), ("bf16", Dtype::BF16, 2), ("i64", Dtype::I64, 8)] {
        let bytes = vec![0; 6 * width];
        let tensors = [
            ("a", TensorView::new(dtype, vec![2, 3], &bytes)?),
            ("b", TensorView::new(dtype, vec![], &bytes[..width])?),
        ];
        put("safetensors", name, &serialize(tensors, None)?)?;
    }
    put("sharded_index", "two", br#"{"metadata":{"total_size":16},"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}"#)?;
    put("sharded_index", "one", br#"{"weight_map":{"x":"a.safetensors"}}"#)?;

    put("config", "base", ModernBertConfig::base().to_json_string().as_bytes())?;
    let mut labelled = ModernBertConfig::of_shape(4, 32, 48, 2).with_every_n(1);
    labelled.id2label = Some(vec!["no".into(), "yes".into()]);
    put("config", "labels", labelled.to_json_string().as_bytes())?;
    put("config", "old", br#"{"model_type":"modernbert","num_hidden_layers":3,"global_attn_every_n_layers":2,"local_rope_theta":-1}"#)?;

    let options = TrainOptions { vocab_size: 320, ..TrainOptions::default() };
    put("tokenizer", "trained", train(["one two three one two"], &options)?.to_json()?.as_bytes())?;

    for (name, vocab) in [("narrow", 100), ("wide", 100_000)] {
        let path = corpus.join("token_shard").join(name);
        let mut writer = ShardWriter::create(&path, vocab, TokenizerHash([7; 32]))?;
        for sample in [&[1, 2, 3][..], &[], &[4]] {
            writer.push(sample)?;
        }
        writer.commit()?;
    }

    for (name, rows) in [
        ("csv", "\u{feff}id,text,label\r\n1,\"a \"\"b\"\", c\nd\",x\r\n2,e,y\r\n"),
        ("tsv", "id\ttext\n1\t\"a\n"),
        ("jsonl", "{\"text\":\"a\",\"id\":18446744073709551617}\n\"b\"\n{\"text\":null,\"x\":[{\"y\":\"]\"}]}\n"),
    ] {
        put("rows", name, rows.as_bytes())?;
    }
    let mut mds = br#"{"version":2,"shards":[{"format":"mds","version":2,"column_names":["text"],"column_encodings":["str"],"column_sizes":[null],"compression":null,"raw_data":{"basename":"shard.00000.mds","bytes":19},"zip_data":null,"samples":1}]}"#.to_vec();
    mds.push(0);
    // One sample: count, two offsets, length of the text, the text.
    for word in [1u32, 12, 19, 3] {
        mds.extend(word.to_le_bytes());
    }
    mds.extend(b"one");
    put("mds", "one", &mds)?;
    Ok(())
}
