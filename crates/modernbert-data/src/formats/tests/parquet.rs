//! Rows of Parquet.

use std::sync::Arc;

use ::parquet::basic::Compression;
#[cfg(feature = "zstd")]
use ::parquet::basic::ZstdLevel;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;

/// A Parquet file with an optional text, an id and a number for each row.
pub(crate) fn write_parquet(path: &Path, rows: &[Option<&str>], compression: Compression) {
    let schema =
        "message rows { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT32 id; REQUIRED INT32 year; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    // Two row groups, as large files have several.
    let mut id = 0;
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        let mut group = writer.next_row_group().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|&text| text.into()).collect();
        let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
        let ids: Vec<i32> = rows.iter().map(|_| (id, id += 1).0).collect();
        for _ in 0..2 {
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<Int32Type>()
                .write_batch(&ids, None, None)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_rows_of_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [Some("one"), Some("zwei ☃"), Some(" "), Some("four")];
    let expected = pairs(&[("0", "one"), ("1", "zwei ☃"), ("3", "four")]);
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(Default::default())),
        #[cfg(feature = "zstd")]
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ] {
        let path = folder.path().join(format!("{name}.parquet"));
        write_parquet(&path, &rows, compression);
        assert_eq!(texts(&path, &Fields::default()), expected, "{name}");
    }
    let path = folder.path().join("null.parquet");
    write_parquet(&path, &[Some("a"), None, Some("b")], Compression::SNAPPY);
    assert!(
        message(&path, &Fields::default()).contains("null.parquet:2: the field \"text\" is null")
    );
    let fields = Fields {
        text: "body".into(),
        ..Fields::default()
    };
    let missing = message(&path, &fields);
    assert!(
        missing.contains("no column \"body\" in the header, which has \"text\", \"id\", \"year\""),
        "{missing}"
    );
    let broken = folder.path().join("broken.parquet");
    let whole = fs::read(&path).unwrap();
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    assert!(message(&broken, &Fields::default()).contains("broken.parquet: not a Parquet file"));
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(
        &path,
        &[Some("one"), None, Some("three")],
        Compression::SNAPPY,
    );
    let good = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Rows::open(&path).map_or(0, |rows| rows.take(100).count())
    };
    assert_eq!(read(&good), 3);
    for at in 0..good.len() {
        for flip in [0xff, 0x01, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            read(&bytes);
        }
        read(&good[..at]);
    }
}
