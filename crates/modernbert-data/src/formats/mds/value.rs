//! Values of a sample: text and arrays of token ids.

use super::shard::Value;
use crate::formats::reason::Reason;

/// A value that can name a sample.
pub(super) fn name(value: Value) -> Option<String> {
    let encoding = value.column.encoding.as_str();
    if matches!(encoding, "str" | "str_int") {
        let text = String::from_utf8(value.bytes.to_vec()).ok()?;
        return (!text.is_empty()).then_some(text);
    }
    let array = integers(Type::of(encoding)?, value.bytes).ok()?;
    array.first().map(i128::to_string)
}

/// A text.
pub(super) fn text(value: Value) -> Result<String, Reason> {
    match value.column.encoding.as_str() {
        "str" | "bytes" => String::from_utf8(value.bytes.to_vec())
            .map_err(|error| format!("column {}: {error}", value.column.name).into()),
        other => Err(format!(
            "column {} is of encoding {other:?}, a text is \"str\"",
            value.column.name
        )
        .into()),
    }
}

/// Token ids.
pub(super) fn tokens(value: Value) -> Result<Vec<u32>, Reason> {
    let encoding = value.column.encoding.as_str();
    let named = |reason: Reason| Reason::from(format!("column {}: {reason}", value.column.name));
    let (kind, bytes) = if encoding == "bytes" {
        (Type::I64, value.bytes)
    } else if let Some(arguments) = encoding.strip_prefix("ndarray") {
        array(arguments.trim_start_matches(':'), value.bytes).map_err(named)?
    } else {
        let reason = format!("encoding {encoding:?}, tokens are \"ndarray\" or \"bytes\"");
        return Err(named(reason.into()));
    };
    integers(kind, bytes)
        .map_err(named)?
        .into_iter()
        .map(|id| u32::try_from(id).map_err(|_| named(format!("{id} is no token id").into())))
        .collect()
}

/// Integer types of arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

impl Type {
    /// The type of an array or of a scalar column, by name.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "uint8" => Self::U8,
            "int8" => Self::I8,
            "uint16" => Self::U16,
            "int16" => Self::I16,
            "uint32" => Self::U32,
            "int32" => Self::I32,
            "uint64" => Self::U64,
            "int64" | "int" => Self::I64,
            _ => return None,
        })
    }

    /// The type an array without one in its encoding begins with.
    fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            8 => Self::U8,
            9 => Self::I8,
            16 => Self::U16,
            17 => Self::I16,
            32 => Self::U32,
            33 => Self::I32,
            64 => Self::U64,
            65 => Self::I64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 => 8,
        }
    }
}

/// Type and values of an array. Type or shape precede the values where the encoding doesn't name them.
fn array<'a>(arguments: &str, mut bytes: &'a [u8]) -> Result<(Type, &'a [u8]), Reason> {
    let mut byte = || -> Result<u8, Reason> {
        let (&first, rest) = bytes.split_first().ok_or("an array is cut short")?;
        bytes = rest;
        Ok(first)
    };
    let (name, shape) = arguments.split_once(':').unwrap_or((arguments, ""));
    let kind = if name.is_empty() {
        let code = byte()?;
        Type::of_code(code).ok_or_else(|| format!("arrays of type {code} are no token ids"))?
    } else {
        Type::of(name).ok_or_else(|| format!("arrays of {name} are no token ids"))?
    };
    if shape.is_empty() {
        // Number of axes and, in the lower two bits, the width of each axis' length.
        let axes = byte()?;
        let lengths = usize::from(axes >> 2) << (axes & 3);
        if axes >> 2 != 1 {
            return Err(format!("an array of {} axes, tokens have one", axes >> 2).into());
        }
        bytes = bytes.get(lengths..).ok_or("an array is cut short")?;
    }
    Ok((kind, bytes))
}

fn integers(kind: Type, bytes: &[u8]) -> Result<Vec<i128>, Reason> {
    if !bytes.len().is_multiple_of(kind.size()) {
        return Err(format!("{} bytes are no whole number of {kind:?}", bytes.len()).into());
    }
    let signed = matches!(kind, Type::I8 | Type::I16 | Type::I32 | Type::I64);
    let read = |chunk: &[u8]| {
        let mut wide = [0u8; 16];
        wide[..chunk.len()].copy_from_slice(chunk);
        let value = i128::from_le_bytes(wide);
        let bits = 8 * chunk.len() as u32;
        if signed && value >> (bits - 1) == 1 {
            value - (1i128 << bits)
        } else {
            value
        }
    };
    Ok(bytes.chunks_exact(kind.size()).map(read).collect())
}
