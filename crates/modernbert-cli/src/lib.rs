//! Code shared by the programs of this workspace.
//!
//! | module | contents |
//! |---|---|
//! | [`program`] | the device argument, exit codes, how a program reports its error |
//! | [`compiling`] | messages about GPU kernels that are being compiled |
//! | [`plot`] | plots as PNG files |
//! | [`text`], [`counter`] | counts and durations for people, progress |

pub mod compiling;
pub mod counter;
pub mod plot;
pub mod program;
pub mod text;

pub use program::{
    BAD_INPUT, DIFFERENT, DeviceArgs, INTERRUPTED, READER_GONE, check_stdin, check_stdout,
    describe, main_with, main_with_code, parse, say, tell, unwritten,
};
