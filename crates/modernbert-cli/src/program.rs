//! Command-line arguments and errors shared by the programs of this workspace.

use anyhow::Context;
use burn_packed::device::{DeviceError, NamedDevice, compiled, pages_for_training, select};
use clap::Args;
use modernbert_files::wording::{printable, printable_lines};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The device argument, which all programs share.
#[derive(Args, Clone, Debug, Default)]
pub struct DeviceArgs {
    /// Computes on this device: flex (CPU), cuda, cuda:1, wgpu, vulkan, metal, tch; by default the one that the environment variable
    /// MODERNBERT_DEVICE names, else the first of cuda, metal, vulkan, wgpu, tch, flex that is compiled in and present.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

/// The environment variable that names the device.
const DEVICE_VARIABLE: &str = "MODERNBERT_DEVICE";

/// The device that the environment names; one that is empty counts as not set, as shells leave it.
fn device_variable(value: Option<std::ffi::OsString>) -> anyhow::Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    let name = value
        .to_str()
        .with_context(|| format!("{DEVICE_VARIABLE} is not UTF-8; name a device such as flex"))?;
    let name = name.trim();
    Ok((!name.is_empty()).then(|| name.to_string()))
}

/// Adds the variable to an error about the device that it names. An error of another variable names that one itself.
fn named_by(
    name: Option<&str>,
    selected: Result<NamedDevice, DeviceError>,
) -> anyhow::Result<NamedDevice> {
    match (name, selected) {
        (None, selected) => Ok(selected?),
        (Some(_), Err(error @ DeviceError::Instructions(_))) => Err(error.into()),
        (Some(_), selected) => {
            selected.with_context(|| format!("the environment variable {DEVICE_VARIABLE}"))
        }
    }
}

impl DeviceArgs {
    /// The chosen device.
    ///
    /// # Errors
    /// An unknown name, a backend that isn't compiled in, a machine without such a device.
    pub fn select(&self) -> anyhow::Result<NamedDevice> {
        if let Some(name) = &self.device {
            return Ok(select(Some(name))?);
        }
        let name = device_variable(std::env::var_os(DEVICE_VARIABLE))?;
        let selected = select(name.as_deref());
        named_by(name.as_deref(), selected)
    }

    /// As [`Self::select_for_training`], for one of several processes on this machine: where no GPU is named by its number, each process
    /// takes that of its own number.
    ///
    /// # Errors
    /// As for [`Self::select`].
    pub fn of_rank(&self, local_rank: usize) -> anyhow::Result<NamedDevice> {
        let named = self.select()?;
        let own = match named.name.as_str() {
            "cuda:0" if self.device.as_deref() != Some("cuda:0") => Self {
                device: Some(format!("cuda:{local_rank}")),
            },
            _ => self.clone(),
        };
        own.select_for_training()
    }

    /// The chosen device, its memory cut for training: see [`pages_for_training`].
    ///
    /// # Errors
    /// As for [`Self::select`].
    pub fn select_for_training(&self) -> anyhow::Result<NamedDevice> {
        let named = self.select()?;
        pages_for_training(&named.device);
        Ok(named)
    }
}

/// The first line of every program: device and kernels.
pub fn describe(device: &NamedDevice, dtype: &str) -> String {
    format!(
        "device {} (compiled in: {}), dtype {dtype}, kernels: {}",
        device.name,
        compiled().join(", "),
        burn_packed::ops::kernels_in_use(&device.device)
    )
}

/// The first error of [`say`] other than a closed pipe.
static UNSAID: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line of a program's output, with control characters of names as escapes. An error does not end the work: a closed pipe is ignored, and any other
/// error (a full disk) is reported at the end of the program, see [`main_with_code`].
pub fn say(text: &str) {
    use std::io::Write;
    if let Err(error) = writeln!(std::io::stdout(), "{}", printable_lines(text))
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        // Only the first error is reported.
        let _ = UNSAID.set(error);
    }
}

/// True if standard output was closed when the process began (Linux).
static CLOSED: AtomicBool = AtomicBool::new(false);

/// True if standard input was closed when the process began, or can't be read (Linux).
static UNREADABLE: AtomicBool = AtomicBool::new(false);

/// Checks standard output and input before `main`: the runtime of Rust opens /dev/null in place of a closed stream. A program's output would then be
/// lost without an error, and its input empty. Rust also treats an input that can't be read as an empty one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
// SAFETY: the C library calls the functions of this section once, before `main`; this one needs nothing that is initialized later.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: the call only asks for the flags of a descriptor, which may be closed.
        if unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1 {
            CLOSED.store(true, Ordering::Relaxed);
        }
        // SAFETY: as above.
        let input = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_GETFL) };
        if input == -1 || input & libc::O_ACCMODE == libc::O_WRONLY {
            UNREADABLE.store(true, Ordering::Relaxed);
        }
    }
    look
};

/// Refuses a standard input that was closed when the program began (`<&-`), or that can't be read. Programs that are asked to read it call this.
///
/// # Errors
/// A closed or unreadable standard input.
pub fn check_stdin() -> anyhow::Result<()> {
    if UNREADABLE.load(Ordering::Relaxed) {
        anyhow::bail!(
            "standard input is closed or can't be read, and the texts are to be read there; connect it to a file or a pipe, or name a file"
        );
    }
    Ok(())
}

/// Refuses a standard output that was closed when the program began (`>&-`). Commands whose lines are their result call this before the work.
///
/// # Errors
/// A closed standard output.
pub fn check_stdout() -> anyhow::Result<()> {
    if CLOSED.load(Ordering::Relaxed) {
        anyhow::bail!(
            "standard output is closed, and the results are printed there; send them to a file or another program, or to /dev/null"
        );
    }
    Ok(())
}

/// The reader of standard output closed the pipe, as in `| head`.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct ReaderGone;

/// The error of a program whose results can't be written to standard output. If the reader closed the pipe, the program that returns this error
/// ends without a message, with exit code [`READER_GONE`].
pub fn unwritten(error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return ReaderGone.into();
    }
    anyhow::Error::new(error)
        .context("the results can't be written to standard output; send them elsewhere")
}

/// Exit code for input that can't be used.
pub const BAD_INPUT: u8 = 2;

/// Exit code of a comparison that found differences.
pub const DIFFERENT: u8 = 1;

/// Exit code of a run that was interrupted: 128 plus the number of SIGINT, as in shells.
pub const INTERRUPTED: u8 = 130;

/// Exit code of a program whose results nobody reads any more: 128 plus the number of SIGPIPE, as in shells.
pub const READER_GONE: u8 = 141;

/// Reads the program's arguments. A usage error ends the process with exit code 2; control characters in the arguments it shows are escapes.
pub fn parse<T: clap::Parser>() -> T {
    let error = match T::try_parse() {
        Ok(arguments) => return arguments,
        Err(error) => error,
    };
    // The text of --help and --version is the program's own.
    if !error.use_stderr() {
        error.exit();
    }
    use std::io::Write;
    let given = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    // Standard error may be closed; the exit code is left.
    let _ = write!(std::io::stderr(), "{}", usage_text::<T>(given, &error));
    std::process::exit(i32::from(BAD_INPUT))
}

/// A usage error, with the arguments in it as escapes: the error of the same arguments without control characters.
fn usage_text<T: clap::Parser>(given: impl Iterator<Item = String>, error: &clap::Error) -> String {
    let plain = given.map(|argument| printable(&argument).into_owned());
    let text = T::try_parse_from(plain).err();
    let text = text.map_or_else(|| error.to_string(), |plain| plain.to_string());
    printable_lines(&in_plain_words(&text)).into_owned()
}

/// Messages of Rust's readers of numbers with what is expected.
fn in_plain_words(text: &str) -> String {
    let words = [
        (
            "invalid digit found in string",
            "write a whole number such as 8, without a fraction, an exponent or a unit",
        ),
        (
            "cannot parse integer from empty string",
            "write a whole number such as 8",
        ),
        (
            "number too large to fit in target type",
            "the number is too large",
        ),
        (
            "number too small to fit in target type",
            "the number is too small",
        ),
        ("invalid float literal", "write a number such as 0.5"),
        (
            "cannot parse float from empty string",
            "write a number such as 0.5",
        ),
    ];
    words
        .iter()
        .fold(text.to_owned(), |text, (of_rust, plain)| {
            text.replace(of_rust, plain)
        })
}

/// Runs a program: prints an error as one message and turns it into exit code 2.
pub fn main_with(run: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    main_with_code(|| run().map(|()| ExitCode::SUCCESS))
}

/// Runs a program with exit codes of its own; see [`main_with`]. Where [`say`] could not write, success becomes exit code 2.
pub fn main_with_code(run: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    keep_freed_memory();
    report_file_limits();
    crate::compiling::announce();
    let error = match start_threads().and_then(|()| run()) {
        Ok(code) => match UNSAID.get() {
            Some(unsaid) if code == ExitCode::SUCCESS => {
                format!("the work is done, but standard output can't be written ({unsaid})")
            }
            _ => return code,
        },
        Err(error) if error.is::<ReaderGone>() => return ExitCode::from(READER_GONE),
        Err(error) => one_message(&error),
    };
    // Standard error may be closed; the exit code is left.
    tell(&format!("error: {error}"));
    ExitCode::from(BAD_INPUT)
}

/// Refuses an invalid number of threads in the environment: rayon would use all cores without a message. An empty value counts
/// as not set, and 0 means all cores, as in rayon.
fn check_threads(name: &str, value: Option<std::ffi::OsString>) -> anyhow::Result<()> {
    let value = value.unwrap_or_default();
    let asked = value.to_string_lossy();
    let is_good = asked.is_empty()
        || asked
            .parse::<usize>()
            .is_ok_and(|threads| threads <= MOST_THREADS);
    anyhow::ensure!(
        is_good,
        "{name} is {asked}; set 1 to {MOST_THREADS}, or 0 for all cores, or leave it out"
    );
    Ok(())
}

/// Largest number of threads that the environment may ask for.
const MOST_THREADS: usize = 1024;

/// Starts the threads that computations share: later, a system that refuses them would be a panic.
fn start_threads() -> anyhow::Result<()> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    check_threads(VARIABLE, std::env::var_os(VARIABLE))?;
    match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a cause, the threads were there already.
        Err(error) if std::error::Error::source(&error).is_some() => anyhow::bail!(
            "the program's threads can't be started ({error}); allow more processes and memory (ulimit -u, ulimit -v), or set {VARIABLE} to \
             fewer"
        ),
        _ => Ok(()),
    }
}

/// Makes a write beyond the limit on the size of files (`ulimit -f`) an error with the file's name. By default the system ends the process.
fn report_file_limits() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: SIGXFSZ is ignored instead of ending the process; no handler is installed, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Lets the C library keep up to 1 GiB of freed memory for the next layer.
///
/// On a CPU every operation allocates and frees tensors of a few megabytes. By default glibc returns freed memory to the system, which
/// clears and maps the same pages again soon after: up to a fifth of an encoder's pass (docs/lab-log.md).
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BLOCKS_OF_THEIR_OWN_FROM: libc::c_int = 256 << 20;
        const KEPT: libc::c_int = 1 << 30;
        // SAFETY: mallopt only sets two numbers of the allocator, and no other thread runs yet that could do so too. Where it
        // refuses, everything works as before.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCKS_OF_THEIR_OWN_FROM);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// The error and its causes in one line; a cause whose text is in the line already is left out.
fn one_message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if message.is_empty() {
            message = text;
        } else if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
    }
    // Names in it come from files, arguments and variables.
    bounded(&printable(&message))
}

/// Characters of a message at most.
const LONGEST: usize = 4000;

/// A message without the middle of a value that a file has at any length; place and remedy are at its ends.
fn bounded(message: &str) -> String {
    let count = message.chars().count();
    if count <= LONGEST {
        return message.to_string();
    }
    let first: String = message.chars().take(LONGEST / 2).collect();
    let last: String = message.chars().skip(count - LONGEST / 2).collect();
    format!("{first} … {last}")
}

/// Prints a line to standard error for a person to see beside the output, in the form of messages. A closed standard error ends no work.
pub fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_number_of_threads_that_is_none_is_refused() {
        let check = |value: &str| check_threads("RAYON_NUM_THREADS", Some(value.into()));
        for good in ["", "0", "1", "1024"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["many", "-1", "1.5", " 2", "1025", "99999999999999999999999"] {
            let message = check(bad).unwrap_err().to_string();
            let said = format!("RAYON_NUM_THREADS is {bad}; set 1 to 1024");
            assert!(message.contains(&said), "{message}");
        }
        assert!(check_threads("RAYON_NUM_THREADS", None).is_ok());
    }

    #[test]
    fn an_error_names_the_variable_that_caused_it() {
        let message = |error| {
            let error = named_by(Some("flex"), Err(error)).err();
            one_message(&error.unwrap())
        };
        let unit = "MODERNBERT_CPU_UNIT: unknown instruction set \"a\\nb\"";
        assert_eq!(message(DeviceError::Instructions(unit.into())), unit);
        let name = "gpu\nerror: 5".to_string();
        let device = message(DeviceError::Unknown { name });
        assert!(
            device.starts_with("the environment variable MODERNBERT_DEVICE: unknown device"),
            "{device}"
        );
        assert!(!device.contains('\n'), "{device}");
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let error = anyhow::anyhow!("a\u{1b}[31m\nerror: b").context("c\r");
        assert_eq!(one_message(&error), r"c\r: a\u001b[31m\nerror: b");
    }

    #[test]
    fn usage_errors_show_arguments_as_escapes() {
        #[derive(clap::Parser, Debug)]
        struct Program {
            #[arg(long)]
            count: u32,
        }
        for (given, shown) in [
            (
                ["x", "--count", "a\u{1b}[31m\nerror: b"],
                r"a\u001b[31m\nerror: b",
            ),
            (["x", "--\nerror: b", "c"], r"--\nerror: b"),
            (["x", "a\tb", "c"], r"a\tb"),
        ] {
            let error = <Program as clap::Parser>::try_parse_from(given).unwrap_err();
            let text = usage_text::<Program>(given.map(String::from).into_iter(), &error);
            assert!(text.contains(shown), "{text}");
            let errors = text.lines().filter(|line| line.starts_with("error"));
            assert_eq!(errors.count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn a_long_value_loses_its_middle() {
        let error = anyhow::anyhow!("a.json: key is {}; correct it", "é".repeat(100_000));
        let message = one_message(&error);
        assert!(message.chars().count() <= LONGEST + 3);
        assert!(message.starts_with("a.json: key is é") && message.ends_with("é; correct it"));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let read = |text: &str| device_variable(Some(text.into())).unwrap();
        assert_eq!(read(""), None);
        assert_eq!(read("  "), None);
        assert_eq!(read("cuda:1").as_deref(), Some("cuda:1"));
        assert_eq!(device_variable(None).unwrap(), None);
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStringExt;
            let broken = std::ffi::OsString::from_vec(vec![0xff]);
            let message = device_variable(Some(broken)).unwrap_err().to_string();
            assert!(message.contains("MODERNBERT_DEVICE"), "{message}");
        }
    }
}
