//! What the programs of this workspace share.
//!
//! | module | contents |
//! |---|---|
//! | [`program`] | the device argument, exit codes, how a program reports its error |
//! | [`compiling`] | says on screen which GPU kernels are being compiled |
//! | [`plot`] | pictures |
//! | [`text`] | counts and durations for people |

pub mod compiling;
pub mod plot;
pub mod program;
pub mod text;

pub use program::{
    BAD_INPUT, DIFFERENT, DeviceArgs, INTERRUPTED, describe, main_with, main_with_code,
};
