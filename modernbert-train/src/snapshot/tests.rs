#![allow(clippy::unwrap_used)]

use super::*;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, initialize};
use std::fs;
use std::path::{Path, PathBuf};

use crate::optim::{NamedOptimizer, StableAdamWConfig};

pub(crate) fn small_config(vocab_size: usize) -> ModernBertConfig {
    ModernBertConfig {
        vocab_size,
        pad_token_id: None,
        cls_token_id: None,
        sep_token_id: None,
        bos_token_id: None,
        eos_token_id: None,
        ..ModernBertConfig::of_shape(4, 16, 16, 2)
    }
}

fn small_model() -> MaskedLm {
    let config = small_config(64);
    let device = test_support::device();
    initialize(MaskedLm::new(&config, &device).unwrap(), &config, 5)
}

/// A model after one update with made-up gradients that depend on `shift`.
pub(crate) fn stepped(model: MaskedLm, optimizer: &mut NamedOptimizer, shift: f32) -> MaskedLm {
    struct MakeUp(GradientsParams, f32);
    impl burn::module::ModuleVisitor for MakeUp {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            let wave = (param.val() * 31.0 + self.1).sin() * 0.1;
            self.0.register(param.id, wave);
        }
    }
    let mut gradients = MakeUp(GradientsParams::new(), shift);
    model.visit(&mut gradients);
    optimizer.step(1e-2, model, gradients.0)
}

/// A model after a few updates, and its optimizer.
pub(crate) fn trained(updates: usize) -> (MaskedLm, NamedOptimizer) {
    let (mut model, mut optimizer) = (
        small_model(),
        NamedOptimizer::new(StableAdamWConfig::new(1e-2)),
    );
    for i in 0..updates {
        model = stepped(model, &mut optimizer, i as f32);
    }
    (model, optimizer)
}

fn state(step: u64, updates: u64) -> RunState {
    RunState {
        step,
        optimizer_updates: updates,
        phase_name: "train".into(),
        window: WindowState {
            loss_bits: 0.1f64.to_bits(),
            ..WindowState::default()
        },
        ..RunState::default()
    }
}

fn written(folder: &Path) -> PathBuf {
    let (model, optimizer) = trained(3);
    let place = folder.join("step-00000003");
    write_snapshot(&place, &model, &optimizer, &state(3, 3)).unwrap();
    place
}

#[test]
fn what_is_read_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::open(&written(folder.path())).unwrap();
    assert_eq!(snapshot.state, state(3, 3));

    let model = snapshot.model(&test_support::device()).unwrap();
    let mut optimizer = NamedOptimizer::new(StableAdamWConfig::new(1e-2));
    snapshot.restore_optimizer(&model, &mut optimizer).unwrap();
    assert_eq!(optimizer.updates(), 3);
    // Written again, every file is the same.
    let again = folder.path().join("again");
    write_snapshot(&again, &model, &optimizer, &snapshot.state).unwrap();
    assert_eq!(CheckpointManifest::read(&again).unwrap(), snapshot.manifest);
}

#[test]
fn every_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path());
    let names: Vec<String> = CheckpointManifest::read(&place)
        .unwrap()
        .files
        .into_keys()
        .collect();
    assert_eq!(names.len(), 4);
    let complaint = |name: &str, content: Option<&[u8]>| {
        let path = place.join(name);
        let good = fs::read(&path).unwrap();
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let message = Snapshot::open(&place).unwrap_err().to_string();
        fs::write(&path, good).unwrap();
        assert!(Snapshot::open(&place).is_ok());
        message
    };
    for name in &names {
        let good = fs::read(place.join(name)).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for (content, reason) in [
            (Some(&flipped[..]), "SHA-256"),
            (Some(&good[..good.len() / 2]), "were written"),
            (None, "missing"),
        ] {
            let message = complaint(name, content);
            assert!(
                message.contains(name) && message.contains(reason),
                "{message}"
            );
        }
    }
    let good = fs::read_to_string(place.join(MANIFEST_FILE)).unwrap();
    let message = complaint(
        MANIFEST_FILE,
        Some(good.replacen("\"bytes\": ", "\"bytes\": 1", 1).as_bytes()),
    );
    assert!(
        message.contains("manifest.json") && message.contains("list of files"),
        "{message}"
    );
    // A name that leads out of the checkpoint is never opened.
    let first = names.iter().find(|name| *name != MANIFEST_FILE).unwrap();
    for outside in ["../../secret", "/etc/hostname", "./x/../../y", ""] {
        let forged = good.replace(&format!("\"{first}\""), &format!("\"{outside}\""));
        assert_ne!(forged, good);
        let message = complaint(MANIFEST_FILE, Some(forged.as_bytes()));
        assert!(message.contains("inside the checkpoint"), "{message}");
    }
    let message = complaint(MANIFEST_FILE, Some(b"{"));
    assert!(message.contains("manifest.json: damaged"), "{message}");
    let message = complaint(
        MANIFEST_FILE,
        Some(good.replace("\"format\": 1", "\"format\": 9").as_bytes()),
    );
    assert!(message.contains("format 9"), "{message}");
    let message = complaint(MANIFEST_FILE, None);
    assert!(message.contains("is no checkpoint"), "{message}");
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path());
    let before = CheckpointManifest::read(&place).unwrap();
    // A file has the temporary name of the new checkpoint.
    let (model, optimizer) = trained(1);
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file").unwrap();
    assert!(
        write_snapshot(
            &blocked.join("step-00000001"),
            &model,
            &optimizer,
            &state(1, 1)
        )
        .is_err()
    );
    assert_eq!(verify(&place).unwrap(), before);
    // A step that is saved again replaces the folder whole.
    write_snapshot(&place, &model, &optimizer, &state(3, 1)).unwrap();
    assert_ne!(verify(&place).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_a_crash_leaves_is_tidied() {
    let folder = tempfile::tempdir().unwrap();
    let place = written(folder.path());
    let sibling = |name: &str| folder.path().join(name);
    fs::create_dir(sibling(".writing-step-00000009")).unwrap();
    fs::write(sibling(".writing-step-00000009/model.safetensors"), "half").unwrap();
    // Between the two renames of a replacement the old one has another name.
    fs::rename(&place, sibling(".replaced-step-00000003")).unwrap();
    recover(folder.path()).unwrap();
    assert!(verify(&place).is_ok());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    recover(&sibling("nowhere")).unwrap();
}

#[test]
fn moments_of_another_model_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::open(&written(folder.path())).unwrap();
    let other = MaskedLm::new(&small_config(128), &test_support::device()).unwrap();
    let mut optimizer = NamedOptimizer::new(StableAdamWConfig::new(1e-2));
    let error = snapshot
        .restore_optimizer(&other, &mut optimizer)
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("tok_embeddings.weight.moment_1") && message.contains("[64, 16]"),
        "{message}"
    );
}
