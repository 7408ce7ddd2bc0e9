//! TREC run files.

use std::collections::BTreeMap;

use modernbert_retrieval::run::{Duplicates, Run};
use proptest::prelude::*;

use crate::files::{Place, assert_says};

#[test]
fn run_files_name_the_line_of_what_they_refuse() {
    let place = Place::new();
    let cases = [
        (
            "q Q0 d1 1 0.5 me\nq Q0 d2 2 0.4\n",
            &["run:2", "5 columns"][..],
        ),
        ("q Q0 d1 1 NaN me\n", &["run:1", "'NaN'"]),
        ("q Q0 d1 1 inf me\n", &["run:1", "'inf'"]),
        (
            "q Q0 d1 1 0.5 me\nq Q0 d1 2 0.4 me\n",
            &["run:2", "'d1'", "--keep-best"],
        ),
        ("\n", &["run", "no row"]),
    ];
    for (text, parts) in cases {
        let path = place.write("x.run", text);
        assert_says(
            &Run::read(&path, Duplicates::Refuse)
                .unwrap_err()
                .to_string(),
            parts,
        );
    }
    let path = place.write("x.run", "q Q0 d1 1 0.4 me\nq Q0 d1 2 0.5 me\n");
    let run = Run::read(&path, Duplicates::KeepBest).unwrap();
    assert_eq!(run.queries["q"].len(), 1);
    assert_eq!(run.queries["q"][0].score, 0.5);
}

fn any_run() -> impl Strategy<Value = Run> {
    let hits = prop::collection::btree_map("[a-zA-Z0-9._/-]{1,6}", -1e9f64..1e9, 1..8);
    prop::collection::btree_map("[a-z0-9]{1,4}", hits, 1..5).prop_map(|queries| {
        let hit = |(id, score)| modernbert_retrieval::run::Hit { id, score };
        let sorted = |hits: BTreeMap<String, f64>| hits.into_iter().map(hit).collect();
        Run {
            name: "any".to_string(),
            queries: queries
                .into_iter()
                .map(|(query, hits)| (query, sorted(hits)))
                .collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_run_is_read_back_exactly(run in any_run()) {
        let place = Place::new();
        let path = place.path().join("any.run");
        run.write(&path).unwrap();
        let mut read = Run::read(&path, Duplicates::Refuse).unwrap();
        for hits in read.queries.values_mut() {
            hits.sort_by(|a, b| a.id.cmp(&b.id));
        }
        prop_assert_eq!(read, run);
    }
}

#[test]
fn ids_that_a_run_file_cannot_contain_are_refused() {
    let place = Place::new();
    for id in ["two words", ""] {
        let hit = modernbert_retrieval::run::Hit {
            id: id.to_string(),
            score: 1.0,
        };
        let run = Run {
            name: "x".to_string(),
            queries: BTreeMap::from([("q".to_string(), vec![hit])]),
        };
        let path = place.path().join("x.run");
        assert_says(&run.write(&path).unwrap_err().to_string(), &["white space"]);
        assert!(!path.exists());
    }
}
