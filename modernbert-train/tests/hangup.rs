//! Terminals that misbehave while the dashboard shows: one that is closed (the run is saved, and a run without a controlling terminal goes
//! on), an incomplete key sequence, a size beyond any screen.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use std::fs;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use place::{Place, WEIGHTS, text};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Longest wait for a step, and for the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The master and slave descriptors of a new pseudo-terminal with this number of rows and columns.
fn terminal(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = open(name, flags, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&slave, size).unwrap();
    (master, slave)
}

/// Starts `run` on a new terminal; `prefix` is a program that starts it, with its arguments.
fn start(place: &Place, prefix: &[&str], more: &[&str]) -> (Child, OwnedFd) {
    start_on(terminal(40, 120), place, prefix, more)
}

fn start_on(
    (master, slave): (OwnedFd, OwnedFd),
    place: &Place,
    prefix: &[&str],
    more: &[&str],
) -> (Child, OwnedFd) {
    let (recipe, out) = (place.path("recipe.toml"), place.path("out"));
    let mut words = prefix.to_vec();
    words.push(env!("CARGO_BIN_EXE_modernbert-train"));
    words.extend(["run", text(&recipe), "--out", text(&out)]);
    words.extend(["--device", "flex", "--set", "run.log_every_steps=1"]);
    words.extend(more);
    let child = Command::new(words[0])
        .args(&words[1..])
        .env_remove("MODERNBERT_DEVICE")
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    (child, master)
}

/// Reads the screen, so that the program is never blocked by a full terminal, until the log has a row and the dashboard shows.
fn wait_for_a_step(place: &Place, child: &mut Child, master: &OwnedFd) {
    let log = place.path("out").join("metrics.jsonl");
    rustix::fs::fcntl_setfl(master, OFlags::NONBLOCK).unwrap();
    let (started, mut screen) = (Instant::now(), Vec::new());
    let mut part = [0; 4096];
    let entered = |screen: &[u8]| screen.windows(8).any(|bytes| bytes == b"\x1b[?1049h");
    let has_row = || fs::read_to_string(&log).map_or(0, |rows| rows.lines().count()) > 0;
    while !(has_row() && entered(&screen)) {
        while let Ok(count @ 1..) = rustix::io::read(master, &mut part) {
            screen.extend_from_slice(&part[..count]);
        }
        let ended = child.try_wait().unwrap();
        assert!(
            started.elapsed() < PATIENCE && ended.is_none(),
            "{ended:?}: {}",
            String::from_utf8_lossy(&screen)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(child: &mut Child, master: Option<&OwnedFd>) -> ExitStatus {
    let started = Instant::now();
    let mut part = [0; 4096];
    loop {
        while let Some(Ok(1..)) = master.map(|master| rustix::io::read(master, &mut part)) {}
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the program did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_closed_terminal_saves_the_run() {
    let place = Place::new();
    // A session with the terminal as its controlling terminal: closing it sends SIGHUP.
    let long = ["--set", "run.total_tokens=40_000_000"];
    let (mut child, master) = start(&place, &["setsid", "--ctty"], &long);
    wait_for_a_step(&place, &mut child, &master);
    drop(master);
    assert_eq!(end(&mut child, None).code(), Some(130));
    let saved = fs::read_dir(place.path("out").join("checkpoints")).unwrap();
    assert_eq!(saved.count(), 1);
}

#[test]
fn a_run_without_a_controlling_terminal_goes_on() {
    let place = Place::new();
    let (mut child, master) = start(&place, &["setsid"], &[]);
    wait_for_a_step(&place, &mut child, &master);
    drop(master);
    let status = end(&mut child, None);
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(place.path("out").join(WEIGHTS).is_file());
}

#[test]
fn half_a_key_does_not_keep_the_run_from_ending() {
    let place = Place::new();
    let (mut child, master) = start(&place, &["setsid", "--ctty"], &[]);
    wait_for_a_step(&place, &mut child, &master);
    // Alt and a capital O begin the sequence of a function key.
    rustix::io::write(&master, b"\x1bO").unwrap();
    let status = end(&mut child, Some(&master));
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(place.path("out").join(WEIGHTS).is_file());
}

#[test]
fn a_terminal_beyond_any_screen_has_lines() {
    let place = Place::new();
    let huge = terminal(u16::MAX, u16::MAX);
    let (mut child, master) = start_on(huge, &place, &["setsid", "--ctty"], &[]);
    rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
    let status = end(&mut child, Some(&master));
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(place.path("out").join(WEIGHTS).is_file());
}
