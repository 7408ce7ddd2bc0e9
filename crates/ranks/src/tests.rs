#![allow(clippy::unwrap_used)]

use super::*;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Instant;

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn worlds(size: usize) -> Vec<World> {
    let port = free_port();
    let one = |rank| World {
        rank,
        size,
        local_rank: rank,
        port,
        ..World::single()
    };
    (0..size).map(one).collect()
}

fn quick() -> ConnectOptions {
    ConnectOptions {
        start: Duration::from_secs(10),
        silence: Duration::from_secs(10),
    }
}

/// Runs `work` on every rank in a thread of its own.
fn run<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let worlds = worlds(size);
    thread::scope(|scope| {
        let start = |world| {
            let work = &work;
            scope.spawn(move || work(Ranks::connect(&world, &[], &quick()).unwrap()))
        };
        let threads: Vec<_> = worlds.into_iter().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn messages_reach_every_rank_in_order() {
    for size in [1, 2, 3, 5] {
        let found = run(size, |ranks| {
            let gathered = ranks.all_gather(&[ranks.rank() as u8; 3]).unwrap();
            let messages = (0..size)
                .map(|to| vec![ranks.rank() as u8, to as u8])
                .collect();
            let exchanged = ranks.all_to_all(messages).unwrap();
            let told = ranks
                .broadcast(if ranks.is_first() { b"first" } else { b"other" })
                .unwrap();
            ranks.barrier().unwrap();
            (gathered, exchanged, told)
        });
        for (rank, (gathered, exchanged, told)) in found.into_iter().enumerate() {
            assert_eq!(
                gathered,
                (0..size)
                    .map(|from| vec![from as u8; 3])
                    .collect::<Vec<_>>()
            );
            assert_eq!(
                exchanged,
                (0..size)
                    .map(|from| vec![from as u8, rank as u8])
                    .collect::<Vec<_>>()
            );
            assert_eq!(told, b"first");
        }
    }
}

#[test]
fn two_sides_may_send_more_than_the_system_buffers() {
    let large = vec![7u8; 20_000_000];
    let found = run(3, |ranks| {
        ranks
            .all_gather(&large)
            .unwrap()
            .iter()
            .map(Vec::len)
            .sum::<usize>()
    });
    assert_eq!(found, [60_000_000; 3]);
}

#[test]
fn numbers_reach_every_rank_in_order() {
    // Rank 1 sends and holds nothing.
    let counts = [2, 0, 3];
    let number = |from: usize, to: usize, index: usize| (100 * from + 10 * to + index) as f32;
    let found = run(3, |ranks| {
        let rank = ranks.rank();
        let numbers: Vec<f32> = (0..3)
            .flat_map(|to| (0..counts[rank]).map(move |index| number(rank, to, index)))
            .collect();
        let send = [counts[rank]; 3];
        let exchanged = ranks.exchange_numbers(&numbers, &send, &counts).unwrap();
        let gathered = ranks
            .gather_numbers(&exchanged[..counts[rank]], &counts)
            .unwrap();
        (exchanged, gathered)
    });
    for (to, (exchanged, gathered)) in found.into_iter().enumerate() {
        let of = |to: usize| {
            (0..3).flat_map(move |from| (0..counts[from]).map(move |index| number(from, to, index)))
        };
        assert_eq!(exchanged, of(to).collect::<Vec<_>>());
        let expected: Vec<f32> = (0..3)
            .flat_map(|rank| of(rank).take(counts[rank]))
            .collect();
        assert_eq!(gathered, expected);
    }
}

#[test]
fn another_number_of_numbers_is_an_error() {
    let found = run(2, |ranks| {
        let numbers = vec![1.0; 3 + ranks.rank()];
        ranks.gather_numbers(&numbers, &[3, 3]).unwrap_err()
    });
    for error in found {
        assert!(matches!(error, RankError::Length { rank: 1 }), "{error}");
    }
}

#[test]
fn the_end_of_a_rank_is_known_without_an_operation() {
    let found = run(3, |ranks| {
        ranks.barrier().unwrap();
        if ranks.rank() == 2 {
            ranks.leave("no memory");
            return String::new();
        }
        let begun = Instant::now();
        loop {
            if let Some(error) = ranks.ended() {
                return error.to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(
        found[..2].iter().all(|text| text.contains("no memory")),
        "{found:?}"
    );
}

#[test]
fn messages_that_arrive_early_are_not_lost() {
    let found = run(2, |ranks| {
        for turn in 0..50u8 {
            if ranks.is_first() {
                thread::sleep(Duration::from_millis(1));
                assert!(ranks.ended().is_none());
            }
            let all = ranks.all_gather(&[turn, ranks.rank() as u8]).unwrap();
            assert_eq!(all, [[turn, 0], [turn, 1]]);
        }
    });
    assert_eq!(found.len(), 2);
}

#[test]
fn ranks_that_were_started_differently_are_refused_with_both_values() {
    let connect = |world: World, value: &str| {
        let terms = [("the recipe".to_string(), value.to_string())];
        Ranks::connect(&world, &terms, &quick())
            .unwrap_err()
            .to_string()
    };
    let mut worlds = worlds(2).into_iter();
    let (first, second) = (worlds.next().unwrap(), worlds.next().unwrap());
    let errors = thread::scope(|scope| {
        let other = scope.spawn(|| connect(second, "b"));
        [connect(first, "a"), other.join().unwrap()]
    });
    let expected = "ranks disagree on the recipe: rank 0 has `a`, rank 1 has `b`";
    for error in errors {
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_rank_that_is_missing_is_named() {
    let mut worlds = worlds(4).into_iter();
    let options = ConnectOptions {
        start: Duration::from_millis(600),
        ..quick()
    };
    let (first, second) = (worlds.next().unwrap(), worlds.next().unwrap());
    let errors = thread::scope(|scope| {
        let other = scope.spawn(|| {
            Ranks::connect(&second, &[], &options)
                .unwrap_err()
                .to_string()
        });
        [
            Ranks::connect(&first, &[], &options)
                .unwrap_err()
                .to_string(),
            other.join().unwrap(),
        ]
    });
    let expected = "ranks 2 and 3 did not connect in 0 s; ";
    assert!(errors[0].starts_with(expected), "{}", errors[0]);
    assert_eq!(errors[1], errors[0]);
    let alone = World {
        port: free_port(),
        ..second
    };
    let error = Ranks::connect(&alone, &[], &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("rank 1 could not reach rank 0 at 127.0.0.1:"),
        "{error}"
    );
}

#[test]
fn a_failure_reaches_every_rank_with_its_reason() {
    let found = run(3, |ranks| {
        ranks.barrier().unwrap();
        if ranks.rank() == 2 {
            ranks.leave("step 7 is not finite");
            return String::new();
        }
        let error = ranks.barrier().unwrap_err().to_string();
        assert_eq!(
            ranks.barrier().unwrap_err().to_string(),
            error,
            "once broken, always broken"
        );
        error
    });
    assert_eq!(
        found[..2],
        [
            "rank 2 failed: step 7 is not finite",
            "rank 2 failed: step 7 is not finite"
        ]
    );
}

#[test]
fn a_rank_that_ends_without_a_word_is_named_at_once() {
    let begun = Instant::now();
    let found = run(3, |ranks| {
        ranks.barrier().unwrap();
        if ranks.rank() == 1 {
            return String::new();
        }
        ranks.barrier().unwrap_err().to_string()
    });
    assert!(
        found[0].starts_with("rank 1 ended without a message"),
        "{found:?}"
    );
    assert_eq!(found[2], found[0]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_rank_that_hangs_is_named_after_the_limit() {
    let worlds = worlds(3);
    let options = ConnectOptions {
        silence: Duration::from_secs(1),
        ..quick()
    };
    let errors: Vec<String> = thread::scope(|scope| {
        let start = |world: World| {
            let options = &options;
            scope.spawn(move || {
                let ranks = Ranks::connect(&world, &[], options).unwrap();
                if ranks.rank() == 1 {
                    thread::sleep(Duration::from_secs(3));
                    return String::new();
                }
                ranks.barrier().unwrap_err().to_string()
            })
        };
        let threads: Vec<_> = worlds.into_iter().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for error in [&errors[0], &errors[2]] {
        assert!(
            error.starts_with("rank 1 did not answer in 1 s; "),
            "{error}"
        );
    }
}

#[test]
fn ranks_in_different_operations_are_found_out() {
    let found = run(2, |ranks| match ranks.rank() {
        0 => ranks
            .all_to_all(vec![Vec::new(); 2])
            .unwrap_err()
            .to_string(),
        _ => ranks.all_gather(&[]).unwrap_err().to_string(),
    });
    let expected =
        "rank 1 is in another operation than rank 0: the ranks did not do the same work; ";
    for error in found {
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn strangers_at_the_port_are_ignored() {
    let worlds = worlds(2);
    let port = worlds[0].port;
    let found: Vec<usize> = thread::scope(|scope| {
        let stranger = scope.spawn(move || {
            use std::io::Write;
            loop {
                if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                    return stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut worlds = worlds.into_iter();
        let (first, second) = (worlds.next().unwrap(), worlds.next().unwrap());
        let first = scope.spawn(move || {
            Ranks::connect(&first, &[], &quick())
                .unwrap()
                .all_gather(&[])
                .unwrap()
                .len()
        });
        stranger.join().unwrap();
        let second = scope.spawn(move || {
            Ranks::connect(&second, &[], &quick())
                .unwrap()
                .all_gather(&[])
                .unwrap()
                .len()
        });
        vec![first.join().unwrap(), second.join().unwrap()]
    });
    assert_eq!(found, [2, 2]);
}

#[test]
fn local_ranks_have_their_place_and_their_log() {
    let folder = std::env::temp_dir().join(format!("ranks-{}", std::process::id()));
    let shell = |script: &str| {
        let script = script.to_string();
        move || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        }
    };
    let local = spawn::Local::start(
        3,
        &folder,
        shell("[ $RANK = 0 ] || echo $RANK of $WORLD_SIZE at $MASTER_ADDR"),
    )
    .unwrap();
    assert!(
        local
            .wait(Duration::from_secs(5), |_| ())
            .unwrap()
            .status
            .success()
    );
    for rank in [1, 2] {
        let log = std::fs::read_to_string(folder.join(format!("rank-{rank}.log"))).unwrap();
        assert_eq!(log, format!("{rank} of 3 at 127.0.0.1\n"));
    }
    // The others are ended soon after one has failed.
    let begun = Instant::now();
    let local =
        spawn::Local::start(2, &folder, shell("[ $RANK = 1 ] && exit 3; exec sleep 60")).unwrap();
    let ended = local.wait(Duration::from_millis(200), |_| ()).unwrap();
    assert_eq!((ended.rank, ended.status.code()), (1, Some(3)));
    assert!(begun.elapsed() < Duration::from_secs(20));
    std::fs::remove_dir_all(folder).unwrap();
}
