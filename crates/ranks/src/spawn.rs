//! The ranks of one machine, started and watched by a separate process.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two checks of the processes.
const PAUSE: Duration = Duration::from_millis(50);

/// Ranks that were started on this machine.
#[derive(Debug)]
pub struct Local {
    ranks: Vec<Child>,
    /// The status of each rank that has ended.
    ended: Vec<Option<ExitStatus>>,
}

/// Names the path in an error.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Opens a log to append to it, never through a link.
///
/// # Errors
/// A link, or anything else that is no regular file; an error of the operating system.
pub fn log_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Without NONBLOCK a named pipe would wait for a reader forever.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "no regular file; remove it");
    if is_link {
        return Err(at(path)(refused()));
    }
    let file = options.open(path).map_err(at(path))?;
    match file.metadata().map_err(at(path))?.is_file() {
        true => Ok(file),
        false => Err(at(path)(refused())),
    }
}

/// Makes the system send SIGHUP, which saves a run, to the process that `command` will start when the calling thread ends, even by SIGKILL.
/// Other systems than Linux have no such request: there the ranks continue.
#[cfg(target_os = "linux")]
pub fn end_with_this_process(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id();
    let request = move || {
        // SAFETY: a system call with two integers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the request.
        match std::os::unix::process::parent_id() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(request) };
}

/// As above; this system has no such request.
#[cfg(not(target_os = "linux"))]
pub fn end_with_this_process(_command: &mut Command) {}

/// Sends SIGHUP to a process that has not been waited for; nothing on systems without it.
pub fn hang_up(child: &Child) {
    #[cfg(unix)]
    // SAFETY: no memory is involved, and a child that has not been waited for keeps its number.
    unsafe {
        libc::kill(child.id() as libc::pid_t, libc::SIGHUP);
    }
    #[cfg(not(unix))]
    let _ = child;
}

/// The end of the ranks: status of the first one that failed.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The first rank that failed, or rank 0.
    pub rank: usize,
    /// Its status.
    pub status: ExitStatus,
    /// True if every rank ended with the same code.
    pub is_alike: bool,
}

impl Local {
    /// Starts `size` ranks of `command`, which returns the same command for each.
    ///
    /// On Linux the ranks receive SIGHUP when the calling thread ends. Rank 0 has this process's input and output. The output of rank `i` is appended to `rank-i.log` in `logs`, which is created.
    ///
    /// # Errors
    /// A file that can't be written, a program that can't be started, no free port.
    pub fn start(size: usize, logs: &Path, command: impl Fn() -> Command) -> io::Result<Self> {
        // Closed again before rank 0 listens there: another process could take it in between, which rank 0 would report.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut local = Self {
            ranks: Vec::new(),
            ended: vec![None; size],
        };
        if size > 1 {
            std::fs::create_dir_all(logs).map_err(at(logs))?;
        }
        for rank in 0..size {
            let mut command = command();
            for (name, value) in [
                ("RANK", rank),
                ("WORLD_SIZE", size),
                ("LOCAL_RANK", rank),
                ("LOCAL_WORLD_SIZE", size),
                ("MASTER_PORT", usize::from(port)),
            ] {
                command.env(name, value.to_string());
            }
            command.env("MASTER_ADDR", "127.0.0.1");
            if rank > 0 {
                let log = log_file(&logs.join(format!("rank-{rank}.log")))?;
                command
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log);
            }
            end_with_this_process(&mut command);
            // On an error, dropping `local` ends the ranks that have been started.
            local.ranks.push(command.spawn()?);
        }
        Ok(local)
    }

    /// The process of a rank.
    pub fn id(&self, rank: usize) -> u32 {
        self.ranks[rank].id()
    }

    /// Waits until all ranks have ended. Once one has failed, the others have `grace` to end by themselves and are then killed.
    /// `forward` is called every few milliseconds, to pass on signals.
    ///
    /// # Errors
    /// A process that can't be waited for.
    pub fn wait(mut self, grace: Duration, mut forward: impl FnMut(&Self)) -> io::Result<Ended> {
        let mut failed: Option<((usize, ExitStatus), Instant)> = None;
        while self.ended.iter().any(Option::is_none) {
            forward(&self);
            for (rank, child) in self.ranks.iter_mut().enumerate() {
                if self.ended[rank].is_none() {
                    self.ended[rank] = child.try_wait()?;
                    if let Some(status) = self.ended[rank]
                        && !status.success()
                    {
                        failed.get_or_insert(((rank, status), Instant::now()));
                    }
                }
            }
            if failed.is_some_and(|(_, since)| since.elapsed() > grace) {
                self.kill();
            }
            thread::sleep(PAUSE);
        }
        let first = (0, self.ended[0].unwrap_or_default());
        let (rank, status) = failed.map_or(first, |(failed, _)| failed);
        let has_code =
            |ended: &Option<ExitStatus>| ended.is_some_and(|ended| ended.code() == status.code());
        Ok(Ended {
            rank,
            status,
            is_alike: status.code().is_some() && self.ended.iter().all(has_code),
        })
    }

    /// Sends SIGHUP to all ranks that have not ended.
    pub fn hang_up(&self) {
        for (child, ended) in self.ranks.iter().zip(&self.ended) {
            if ended.is_none() {
                hang_up(child);
            }
        }
    }

    fn kill(&mut self) {
        for child in &mut self.ranks {
            // One that has ended already can't be killed.
            let _ = child.kill();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
        for child in &mut self.ranks {
            let _ = child.wait();
        }
    }
}
