#![allow(clippy::unwrap_used)]

use super::axis::{Ticks, range};
use super::*;

#[test]
fn a_picture_is_a_whole_png_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.png");
    let noisy = |i: u32| {
        (
            f64::from(i) * 4096.0,
            3.0 + 5.0 / f64::from(i + 1) + 0.3 * f64::from(i * 7919 % 13) / 13.0,
        )
    };
    let mut points: Vec<_> = (0..500).map(noisy).collect();
    points[3].1 = f64::NAN;
    let series = [
        Series::new("train", points).smoothed(0.95),
        Series::new("eval", vec![(1e6, 3.5)]),
    ];
    plot_curves(
        &path,
        "Loss",
        &series,
        "tokens",
        "loss",
        &[("uniform guess", 8.3)],
    )
    .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(is_own_picture(&path));
    let other = folder.path().join("other.png");
    std::fs::write(
        &other,
        b"\x89PNG\r\n\x1a\n of a holiday, long enough to be looked at until the mark ends",
    )
    .unwrap();
    assert!(!is_own_picture(&other) && !is_own_picture(folder.path()));
}

#[test]
fn absurd_numbers_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.png");
    let absurd = [f64::MAX, -f64::MAX, f64::NAN, f64::INFINITY, 1e300];
    let points = |ys: &[f64]| ys.iter().enumerate().map(|(i, &y)| (i as f64, y)).collect();
    let only = Series::new("absurd", points(&absurd));
    assert!(only.drawable().is_empty());
    let none = plot_curves(&path, "", &[only], "", "", &[("NaN", f64::NAN)]).unwrap_err();
    assert!(matches!(none, PlotError::Empty(_)), "{none}");
    for ys in [
        vec![1.0, f64::MAX, 2.0],
        vec![1e-320, 2e-320, 0.0],
        vec![1e30, -1e30],
        vec![5e-324],
        vec![1.0, 1.0 + f64::EPSILON],
    ] {
        let series = Series::new("a", points(&ys)).smoothed(0.9);
        plot_curves(&path, "", &[series], "", "", &[("far", f64::MAX)]).unwrap();
    }
    let groups = [Group {
        name: "g".to_owned(),
        bars: vec![Some(Bar {
            value: 1.0,
            spread: Some(f64::INFINITY),
            points: vec![f64::NAN, f64::MAX],
        })],
        reference: Some(f64::MAX),
    }];
    plot_groups(&path, "", &["a".to_owned()], &groups, "paper", "").unwrap();
}

/// The legend of 300 curves has the curves that fit; the title gives the number of the others.
#[test]
fn more_curves_than_a_legend_holds_are_counted() {
    assert!(font_is_ready());
    let name = |i: usize| format!("a run with quite a long name, number {i}");
    let series: Vec<Series> = (0..300)
        .map(|i| Series::new(name(i), vec![(0.0, i as f64), (1.0, 0.0)]))
        .collect();
    let entries: Vec<Entry<'_>> = series
        .iter()
        .map(|one| (one.name.as_str(), INK, false))
        .collect();
    let placed = |rows: i32| {
        let mut pixels = vec![0; 3 * SIZE.0 as usize * SIZE.1 as usize];
        let root = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        legend_places(&root, &entries, rows).0.len()
    };
    let head = |mut pixels: Vec<u8>, height: i32| {
        pixels.truncate(3 * (SIZE.0 * height as u32) as usize);
        pixels
    };
    let curves = |title: &str, series: &[Series]| {
        let mut pixels = vec![0; 3 * SIZE.0 as usize * SIZE.1 as usize];
        draw(&mut pixels, title, series, "", "", &[]).unwrap();
        head(pixels, 62 + 26 * LEGEND_ROWS)
    };
    let shown = placed(LEGEND_ROWS);
    assert!((8..300).contains(&shown), "{shown}");
    let title = format!("Loss (and {} more)", 300 - shown);
    let whole = curves("Loss", &series);
    assert!(whole == curves(&title, &series[..shown]));
    assert!(whole != curves("Loss", &series[..shown]));

    let panels = |title: &str, series: &[Series]| {
        let panel = Panel {
            title: "task".to_owned(),
            series: series.to_vec(),
        };
        let names: Vec<&str> = series.iter().map(|one| one.name.as_str()).collect();
        let mut pixels = vec![0; 3 * SIZE.0 as usize * (110 + 320)];
        panels::draw(&mut pixels, title, &[panel], &names, "step").unwrap();
        head(pixels, panels::HEAD as i32)
    };
    let shown = placed(panels::LEGEND_ROWS);
    assert!((2..300).contains(&shown), "{shown}");
    let title = format!("Curves (and {} more)", 300 - shown);
    let whole = panels("Curves", &series);
    assert!(whole == panels(&title, &series[..shown]));
    assert!(whole != panels("Curves", &series[..shown]));

    assert_eq!(headline("Loss", 5, 5), "Loss");
}

#[test]
fn nothing_to_draw_and_nowhere_to_draw_are_errors() {
    let path = Path::new("/nonexistent/folder/loss.png");
    let empty = Series::new("train", vec![(0.0, f64::INFINITY)]);
    let none = plot_curves(path, "", &[empty], "", "", &[]).unwrap_err();
    assert!(matches!(none, PlotError::Empty(_)), "{none}");
    let nowhere =
        plot_curves(path, "", &[Series::new("", vec![(0.0, 1.0)])], "", "", &[]).unwrap_err();
    assert!(
        matches!(nowhere, PlotError::Io { .. }) && nowhere.to_string().contains("loss.png"),
        "{nowhere}"
    );
}

#[test]
fn the_average_neither_leans_nor_trails() {
    let flat: Vec<_> = (0..5).map(|i| (f64::from(i), 2.0)).collect();
    for (_, y) in moving_average(&flat, 0.9) {
        assert!((y - 2.0).abs() < 1e-12);
    }
    assert_eq!(
        moving_average(&[(0.0, 1.0), (1.0, 3.0)], 0.0)[1],
        (1.0, 3.0)
    );
}

#[test]
fn ranges_are_never_empty() {
    assert_eq!(range([1.0, 3.0].into_iter(), 0.5), 0.0..4.0);
    assert_eq!(range([5.0].into_iter(), 0.1), 4.5..5.5);
    assert_eq!(range([0.0].into_iter(), 0.1), -1.0..1.0);
    assert_eq!(range([].into_iter(), 0.1), 0.0..1.0);
}

#[test]
fn ticks_are_short() {
    let label = |range: std::ops::Range<f64>, value| Ticks::over(&range, 10).label(value);
    assert_eq!(label(0.0..2e6, 1.2e6), "1.2M");
    assert_eq!(label(0.0..2e6, 0.0), "0");
    assert_eq!(label(0.0..1.7e12, 1e11), "0.1T");
    assert_eq!(label(0.0..50_000.0, 15_000.0), "15k");
    assert_eq!(label(0.0..5000.0, 1500.0), "1500");
    assert_eq!(label(2.0..8.5, 3.0), "3");
    assert_eq!(label(2.0..2.1, 2.05), "2.05");
    assert_eq!(label(0.0..1e-3, 2e-4), "0.0002");
    assert_eq!(label(-2.0..2.0, -0.5), "-0.5");
}

#[test]
fn groups_and_panels_become_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let bar = |value| {
        Some(Bar {
            value,
            spread: Some(2.0),
            points: vec![value - 2.0, value + 1.5],
        })
    };
    let groups = ["CoLA", "RTE"].map(|name| Group {
        name: name.to_owned(),
        bars: vec![bar(60.0), bar(-3.0), None],
        reference: Some(65.1),
    });
    let names = ["a", "b", "c"].map(str::to_owned);
    let path = folder.path().join("groups.png");
    plot_groups(&path, "Scores", &names, &groups, "paper", "score").unwrap();
    assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    let empty = plot_groups(&path, "Scores", &names, &[], "paper", "score").unwrap_err();
    assert!(matches!(empty, PlotError::Empty(_)), "{empty}");

    let panels: Vec<Panel> = (0..4)
        .map(|i| Panel {
            title: format!("task {i}"),
            series: vec![
                Series::new("a", vec![(0.0, 1.0), (1.0, 2.0)]),
                Series::new("b", vec![(0.0, 2.0)]),
            ],
        })
        .collect();
    let path = folder.path().join("panels.png");
    plot_panels(&path, "Curves", &panels, "step").unwrap();
    assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    let none = plot_panels(&path, "Curves", &[], "step").unwrap_err();
    assert!(matches!(none, PlotError::Empty(_)), "{none}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Of two programs that draw one picture at the same time, the later one leaves it.
#[test]
fn a_picture_that_appears_meanwhile_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.png");
    for older in [false, true] {
        if older {
            super::file::draw_file(&path, (2, 2), |_| Ok::<_, PlotError>(())).unwrap();
        }
        let meanwhile = |_: &mut [u8]| std::fs::write(&path, "another picture");
        let error = super::file::draw_file(&path, (2, 2), meanwhile).unwrap_err();
        assert!(matches!(error, PlotError::Changed(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"another picture");
        std::fs::remove_file(&path).unwrap();
    }
}
