//! Messages as bytes.

use std::io::{self, Read, Write};

/// Little-endian bytes of numbers.
pub(crate) fn bytes_of(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The numbers of [`bytes_of`]; a rest of fewer than four bytes is ignored.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers
        .iter()
        .map(|&four| f32::from_le_bytes(four))
        .collect()
}

/// A frame: the unit that one process sends to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The first frame of a rank: number, size of its world, terms.
    Hello(Vec<Vec<u8>>),
    /// A rank's messages in operation number `sequence`.
    Data {
        /// Counts the operations of a connection.
        sequence: u64,
        /// One message, or one for each rank.
        messages: Vec<Vec<u8>>,
    },
    /// A rank ends: its number and its reason.
    Leave(Vec<Vec<u8>>),
}

/// The longest message of a rank.
pub(crate) const LONGEST: u64 = 1 << 36;
/// The longest message of a process that has not said who it is: a stranger's bytes must not fill the memory.
pub(crate) const LONGEST_HELLO: u64 = 1 << 16;
/// The first bytes of every frame; the digit is the version of this format.
const MAGIC: [u8; 4] = *b"MBR1";

impl Frame {
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (kind, sequence, messages) = match self {
            Self::Hello(messages) => (0u8, 0, messages),
            Self::Data { sequence, messages } => (1, *sequence, messages),
            Self::Leave(messages) => (2, 0, messages),
        };
        out.write_all(&MAGIC)?;
        out.write_all(&[kind])?;
        out.write_all(&sequence.to_le_bytes())?;
        out.write_all(&(messages.len() as u64).to_le_bytes())?;
        for message in messages {
            out.write_all(&(message.len() as u64).to_le_bytes())?;
            out.write_all(message)?;
        }
        out.flush()
    }

    /// Reads a frame whose messages have at most `longest` bytes.
    pub(crate) fn read(input: &mut impl Read, longest: u64) -> io::Result<Self> {
        let mut magic = [0; 5];
        input.read_exact(&mut magic)?;
        if magic[..4] != MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a message of a rank",
            ));
        }
        let sequence = read_u64(input)?;
        let count = bounded(read_u64(input)?, LONGEST_HELLO)?;
        let mut messages = Vec::new();
        for _ in 0..count {
            let length = bounded(read_u64(input)?, longest)?;
            let mut message = Vec::new();
            // Grows as bytes arrive: a false length allocates nothing.
            if input.take(length).read_to_end(&mut message)? as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            messages.push(message);
        }
        match magic[4] {
            0 => Ok(Self::Hello(messages)),
            1 => Ok(Self::Data { sequence, messages }),
            2 => Ok(Self::Leave(messages)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message of an unknown kind",
            )),
        }
    }
}

fn read_u64(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn bounded(length: u64, longest: u64) -> io::Result<u64> {
    if length > longest {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message too long",
        ));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let frames = [
            Frame::Hello(vec![b"3".to_vec(), Vec::new()]),
            Frame::Data {
                sequence: 9,
                messages: vec![bytes_of([1.5, -0.0]), vec![7; 70_000]],
            },
            Frame::Leave(vec![b"2".to_vec(), b"no memory".to_vec()]),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        for frame in &frames {
            assert_eq!(&Frame::read(&mut input, LONGEST).unwrap(), frame);
        }
        assert_eq!(
            Frame::read(&mut input, LONGEST).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn strangers_are_refused_before_anything_is_allocated() {
        let read = |bytes: &[u8]| {
            Frame::read(&mut &bytes[..], LONGEST)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), "not a message of a rank");
        let mut long = b"MBR1\x01".to_vec();
        long.extend([0; 8]);
        long.extend(1u64.to_le_bytes());
        long.extend(u64::MAX.to_le_bytes());
        assert_eq!(read(&long), "a message too long");
        let end = long.len() - 8;
        long.truncate(end);
        long.extend(LONGEST.to_le_bytes());
        assert!(
            Frame::read(&mut long.as_slice(), LONGEST).is_err(),
            "cut short"
        );
    }
}
