//! Rows of every format from one input: every row has its file and line, and an error of the file ends the rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{formats::{Compression, Format, Rows}, memory::bounded};
use std::io::Cursor;

fuzz_target!(|data: &[u8]| {
    // Buffers of files and of the decompressor.
    bounded(data.len(), 1 << 20, || {
        for format in [Format::Text, Format::Jsonl, Format::Csv, Format::Tsv] {
            for compression in [Compression::None, Compression::Gzip] {
                let reader = Box::new(Cursor::new(data.to_vec()));
                let Ok(rows) = Rows::from_reader(reader, "fuzz", format, compression) else { continue };
                let mut last_line = 0;
                for row in rows {
                    match row {
                        Ok(row) => {
                            assert!(row.number() > last_line, "rows in the order of their lines");
                            last_line = row.number();
                            let _ = (row.text("text"), row.to_json());
                        }
                        Err(error) if error.is_of_a_row() => {}
                        Err(_) => break,
                    }
                }
            }
        }
    });
});
