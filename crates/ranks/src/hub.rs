//! The connection between ranks: a star with rank 0 in its center.
//!
//! A reader thread per connection puts frames into one queue, so that the end of any rank is noticed while rank 0 waits for another, and
//! so that two peers that send at the same time cannot block each other.

use std::collections::VecDeque;
use std::io::{self, BufReader, BufWriter};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::RankError;
use crate::wire::{Frame, LONGEST, LONGEST_HELLO};
use crate::world::World;
use crate::{ConnectOptions, Term};

/// Pause between two attempts to connect, or to accept.
const PAUSE: Duration = Duration::from_millis(20);
/// Time that a rank waits beyond the limit, so that rank 0 can name the missing ranks first.
const GRACE: Duration = Duration::from_secs(10);

/// Messages that rank 0 sends after an operation.
enum Reply {
    /// The same messages to every rank.
    Same(Vec<Vec<u8>>),
    /// The messages of each rank.
    Each(Vec<Vec<Vec<u8>>>),
}

/// A frame of a rank, or the end of its connection.
type Arrived = (usize, io::Result<Frame>);

/// The connections of a rank: on rank 0 to all others, on the others to rank 0.
#[derive(Debug)]
pub(crate) struct Link {
    rank: usize,
    size: usize,
    sequence: u64,
    silence: Duration,
    peers: Vec<(usize, TcpStream)>,
    inbox: Receiver<Arrived>,
    /// Frames that arrived while [`Self::ended`] looked for the end of a rank, oldest first.
    early: VecDeque<Arrived>,
    /// The error that made the connection unusable.
    broken: Option<String>,
}

impl Link {
    pub(crate) fn connect(
        world: &World,
        terms: &[Term],
        options: &ConnectOptions,
    ) -> Result<Self, RankError> {
        let (sender, inbox) = channel();
        let mut link = Self {
            rank: world.rank,
            size: world.size,
            sequence: 0,
            silence: options.silence,
            peers: Vec::new(),
            inbox,
            early: VecDeque::new(),
            broken: None,
        };
        if world.rank == 0 {
            let accepted = link.accept(world, terms, options);
            // The ranks that are connected already receive the reason.
            accepted.map_err(|error| link.fail(error))?;
        } else {
            link.connect_to_rank_0(world, terms, options)?;
        }
        for (rank, stream) in &link.peers {
            let stream = stream
                .try_clone()
                .map_err(|_| RankError::Lost { rank: *rank })?;
            read_in_background(*rank, stream, sender.clone());
        }
        // Every rank is here, and all agree.
        link.all_gather(&[])?;
        Ok(link)
    }

    /// Rank 0: waits for all others.
    fn accept(
        &mut self,
        world: &World,
        terms: &[Term],
        options: &ConnectOptions,
    ) -> Result<(), RankError> {
        // Ranks of one host need no port that other hosts can reach.
        let host = if is_loopback(&world.address) {
            "127.0.0.1"
        } else {
            "0.0.0.0"
        };
        let failed = |source| RankError::Listen {
            address: format!("{host}:{}", world.port),
            source,
        };
        let listener = TcpListener::bind((host, world.port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let end = Instant::now() + options.start;
        while self.peers.len() + 1 < world.size {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > end {
                        let here = self.peers.iter().map(|(rank, _)| *rank);
                        return Err(RankError::Absent {
                            missing: missing(world.size, here),
                            seconds: options.start.as_secs(),
                        });
                    }
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
            // Without a buffer, which could swallow the beginning of the next frame.
            if let Ok(Frame::Hello(hello)) =
                prepare(&stream, left).and_then(|()| Frame::read(&mut &stream, LONGEST_HELLO))
            {
                let rank = self.check(&hello, world, terms).inspect_err(|error| {
                    let reason = error.to_string().into_bytes();
                    // It may be gone; what counts is rank 0's own error.
                    let _ = send(&stream, &Frame::Leave(vec![reason]));
                })?;
                stream.set_read_timeout(None).map_err(failed)?;
                self.peers.push((rank, stream));
            }
            // Anything else, such as a scanner of ports, is not a rank.
        }
        self.peers.sort_by_key(|(rank, _)| *rank);
        Ok(())
    }

    /// The rank that says `hello`.
    fn check(&self, hello: &[Vec<u8>], world: &World, terms: &[Term]) -> Result<usize, RankError> {
        let text = |at: usize| {
            let bytes = hello.get(at).map_or(&[][..], Vec::as_slice);
            String::from_utf8_lossy(bytes).into_owned()
        };
        let stranger = |reason: String| RankError::Stranger { reason };
        let rank: usize = text(0)
            .parse()
            .map_err(|_| stranger("gave no number of a rank".to_string()))?;
        let differs = |name: &str, first: &str, other: String| RankError::Disagree {
            name: name.to_string(),
            first: first.to_string(),
            rank,
            other,
        };
        if text(1) != world.size.to_string() {
            return Err(differs(
                "the number of ranks",
                &world.size.to_string(),
                text(1),
            ));
        }
        if rank == 0 || rank >= world.size {
            return Err(stranger(format!(
                "calls itself rank {rank} of {}",
                world.size
            )));
        }
        if self.peers.iter().any(|(known, _)| *known == rank) {
            return Err(stranger(format!("is a second rank {rank}")));
        }
        for (index, (name, value)) in terms.iter().enumerate() {
            let (other_name, other) = (text(2 + 2 * index), text(3 + 2 * index));
            if other_name != *name {
                return Err(differs("the settings to compare", name, other_name));
            }
            if other != *value {
                return Err(differs(name, value, other));
            }
        }
        if hello.len() != 2 + 2 * terms.len() {
            return Err(differs(
                "the number of settings to compare",
                &terms.len().to_string(),
                (hello.len() / 2 - 1).to_string(),
            ));
        }
        Ok(rank)
    }

    /// Another rank: connects to rank 0.
    fn connect_to_rank_0(
        &mut self,
        world: &World,
        terms: &[Term],
        options: &ConnectOptions,
    ) -> Result<(), RankError> {
        let end = Instant::now() + options.start;
        let stream = loop {
            let tried = reach(&world.address, world.port);
            match tried {
                Ok(stream) => break stream,
                Err(source) if Instant::now() > end => {
                    return Err(RankError::Connect {
                        rank: world.rank,
                        address: format!("{}:{}", world.address, world.port),
                        seconds: options.start.as_secs(),
                        source,
                    });
                }
                Err(_) => thread::sleep(PAUSE),
            }
        };
        let mut hello = vec![
            world.rank.to_string().into_bytes(),
            world.size.to_string().into_bytes(),
        ];
        for (name, value) in terms {
            hello.push(name.clone().into_bytes());
            hello.push(value.clone().into_bytes());
        }
        let sent = prepare(&stream, GRACE)
            .and_then(|()| stream.set_read_timeout(None))
            .and_then(|()| send(&stream, &Frame::Hello(hello)));
        sent.map_err(|_| RankError::Lost { rank: 0 })?;
        self.peers.push((0, stream));
        Ok(())
    }

    pub(crate) fn all_gather(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        self.exchange(vec![message.to_vec()], |all, _| {
            Reply::Same(all.into_iter().flatten().collect())
        })
    }

    pub(crate) fn all_to_all(&mut self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RankError> {
        self.exchange(messages, |all, size| {
            let mut rows: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
            let column = |_| {
                let next = rows.iter_mut().map(|row| row.next().unwrap_or_default());
                next.collect()
            };
            Reply::Each((0..size).map(column).collect())
        })
    }

    /// One operation: rank 0 receives everybody's messages, and `distribute` makes of them what each rank receives.
    fn exchange(
        &mut self,
        messages: Vec<Vec<u8>>,
        distribute: impl FnOnce(Vec<Vec<Vec<u8>>>, usize) -> Reply,
    ) -> Result<Vec<Vec<u8>>, RankError> {
        if let Some(reason) = &self.broken {
            return Err(RankError::Told {
                reason: reason.clone(),
            });
        }
        self.sequence += 1;
        let done = if self.rank == 0 {
            self.distribute(messages, distribute)
        } else {
            self.ask(messages)
        };
        done.map_err(|error| self.fail(error))
    }

    fn distribute(
        &mut self,
        own: Vec<Vec<u8>>,
        distribute: impl FnOnce(Vec<Vec<Vec<u8>>>, usize) -> Reply,
    ) -> Result<Vec<Vec<u8>>, RankError> {
        let count = own.len();
        let mut all: Vec<Option<Vec<Vec<u8>>>> = vec![None; self.size];
        all[0] = Some(own);
        let end = Instant::now() + self.silence;
        while all.iter().any(Option::is_none) {
            let (rank, messages) = match self.receive(end) {
                Ok(received) => received,
                Err(RankError::Silent { seconds, .. }) => {
                    let here = all.iter().enumerate().filter(|(_, one)| one.is_some());
                    let missing = missing(self.size, here.map(|(rank, _)| rank));
                    return Err(RankError::Silent { missing, seconds });
                }
                Err(error) => return Err(error),
            };
            if messages.len() != count || all[rank].is_some() {
                return Err(RankError::Order { rank });
            }
            all[rank] = Some(messages);
        }
        let sequence = self.sequence;
        let frame = |messages| Frame::Data { sequence, messages };
        let lost = |rank: &usize| RankError::Lost { rank: *rank };
        match distribute(all.into_iter().flatten().collect(), self.size) {
            Reply::Same(messages) => {
                let reply = frame(messages);
                for (rank, stream) in &self.peers {
                    send(stream, &reply).map_err(|_| lost(rank))?;
                }
                match reply {
                    Frame::Data { messages, .. } => Ok(messages),
                    Frame::Hello(_) | Frame::Leave(_) => Ok(Vec::new()),
                }
            }
            Reply::Each(messages) => {
                let mut messages = messages.into_iter();
                let own = messages.next().unwrap_or_default();
                for ((rank, stream), messages) in self.peers.iter().zip(messages) {
                    send(stream, &frame(messages)).map_err(|_| lost(rank))?;
                }
                Ok(own)
            }
        }
    }

    fn ask(&mut self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RankError> {
        let frame = Frame::Data {
            sequence: self.sequence,
            messages,
        };
        if let Some((_, stream)) = self.peers.first()
            && send(stream, &frame).is_err()
        {
            // Rank 0 may have said why before it ended.
            let end = Instant::now() + GRACE;
            return match self.receive(end) {
                Err(error @ RankError::Told { .. }) => Err(error),
                _ => Err(RankError::Lost { rank: 0 }),
            };
        }
        let end = Instant::now() + self.silence + GRACE;
        self.receive(end).map(|(_, messages)| messages)
    }

    /// The next messages of this operation, from any rank.
    fn receive(&mut self, end: Instant) -> Result<(usize, Vec<Vec<u8>>), RankError> {
        let remaining = end.saturating_duration_since(Instant::now());
        let next = match self.early.pop_front() {
            Some(arrived) => Ok(arrived),
            None => self.inbox.recv_timeout(remaining),
        };
        let (rank, frame) = match next {
            Ok(arrived) => arrived,
            Err(RecvTimeoutError::Timeout) => {
                return Err(RankError::Silent {
                    missing: "rank 0".to_string(),
                    seconds: self.silence.as_secs(),
                });
            }
            // All readers have ended.
            Err(RecvTimeoutError::Disconnected) => {
                let rank = self.peers.first().map_or(0, |(rank, _)| *rank);
                return Err(RankError::Lost { rank });
            }
        };
        match frame {
            Ok(Frame::Data { sequence, messages }) if sequence == self.sequence => {
                Ok((rank, messages))
            }
            Ok(Frame::Data { .. } | Frame::Hello(_)) => Err(RankError::Order { rank }),
            Ok(Frame::Leave(reason)) => Err(rank_left_error(rank, &reason)),
            Err(_) => Err(RankError::Lost { rank }),
        }
    }

    /// The error that has ended the run on another rank, as far as it is known now.
    pub(crate) fn ended(&mut self) -> Option<RankError> {
        if let Some(reason) = &self.broken {
            let reason = reason.clone();
            return Some(RankError::Told { reason });
        }
        while let Ok((rank, frame)) = self.inbox.try_recv() {
            let error = match frame {
                Ok(Frame::Leave(reason)) => rank_left_error(rank, &reason),
                Err(_) => RankError::Lost { rank },
                frame => {
                    self.early.push_back((rank, frame));
                    continue;
                }
            };
            return Some(self.fail(error));
        }
        None
    }

    /// Makes the connection unusable; rank 0 tells the others why.
    fn fail(&mut self, error: RankError) -> RankError {
        let reason = error.to_string();
        if self.rank == 0 {
            self.tell(&reason);
        }
        self.broken = Some(reason);
        error
    }

    fn tell(&self, reason: &str) {
        for (_, stream) in &self.peers {
            // A rank that has ended needs no telling.
            let _ = send(stream, &Frame::Leave(vec![reason.as_bytes().to_vec()]));
        }
    }

    pub(crate) fn leave(&mut self, reason: &str) {
        if self.broken.is_none() {
            let told = match self.rank {
                0 => RankError::Failed {
                    rank: 0,
                    reason: reason.to_string(),
                }
                .to_string(),
                _ => reason.to_string(),
            };
            self.tell(&told);
            self.broken = Some(told);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for (_, stream) in &self.peers {
            // What was sent still arrives; the reader threads of both sides end.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

/// A connection to the first address of a host that takes one.
fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The error of a rank that said why it ends.
fn rank_left_error(rank: usize, reason: &[Vec<u8>]) -> RankError {
    let reason = reason.first().map_or(&[][..], Vec::as_slice);
    let reason = String::from_utf8_lossy(reason).into_owned();
    match rank {
        0 => RankError::Told { reason },
        _ => RankError::Failed { rank, reason },
    }
}

/// Returns whether a host name is this host alone.
fn is_loopback(address: &str) -> bool {
    matches!(address, "localhost" | "127.0.0.1" | "::1")
}

fn prepare(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))
}

fn send(stream: &TcpStream, frame: &Frame) -> io::Result<()> {
    frame.write(&mut BufWriter::with_capacity(1 << 16, stream))
}

fn read_in_background(rank: usize, stream: TcpStream, sender: Sender<Arrived>) {
    thread::spawn(move || {
        let mut input = BufReader::with_capacity(1 << 16, stream);
        loop {
            let frame = Frame::read(&mut input, LONGEST);
            let ended = frame.is_err();
            if sender.send((rank, frame)).is_err() || ended {
                return;
            }
        }
    });
}

/// `rank 2`, `ranks 2 and 5`, `ranks 1, 2 and 5`: those of `size` that are not `here`; rank 0 always is.
fn missing(size: usize, here: impl Iterator<Item = usize>) -> String {
    let here: Vec<usize> = here.collect();
    let gone: Vec<String> = (1..size)
        .filter(|rank| !here.contains(rank))
        .map(|rank| rank.to_string())
        .collect();
    match gone.split_last() {
        Some((last, [])) => format!("rank {last}"),
        Some((last, others)) => format!("ranks {} and {last}", others.join(", ")),
        None => "no rank".to_string(),
    }
}
