//! Gradients of the mean loss and the losses of a few optimizer steps.

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Gradients, Tensor};
use modernbert::batch::NO_LABEL;
use modernbert::config::ProblemType;
use modernbert::device::{ReadError, read};
use modernbert::model::{ClassificationLabels, MaskedTokens, SpanLabels, named_parameters};
use modernbert_train::optim::StableAdamWConfig;
use serde::Deserialize;
use std::path::Path;

use super::{AnyModel, Case, Check, Report, Tensors, Tolerances};

/// `training.json`: settings of StableAdamW. The published recipe's replace missing keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
}

impl OptimizerSettings {
    /// Reads the settings of a folder; `None` where it has none.
    ///
    /// # Errors
    /// A file that can't be read, keys that are no settings.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("training.json");
        if !path.is_file() {
            return Ok(None);
        }
        let text = modernbert::read::text(&path).with_context(|| path.display().to_string())?;
        let settings =
            modernbert::json::parse(text.as_bytes()).with_context(|| path.display().to_string())?;
        Ok(Some(settings))
    }

    /// The optimizer's settings.
    pub fn optimizer(&self) -> StableAdamWConfig {
        StableAdamWConfig {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.eps,
            weight_decay: self.weight_decay,
            max_lr: self.lr,
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        let recipe = StableAdamWConfig::new(8e-4);
        Self {
            lr: recipe.max_lr,
            beta1: recipe.beta1,
            beta2: recipe.beta2,
            eps: recipe.epsilon,
            weight_decay: recipe.weight_decay,
        }
    }
}

/// The training part of a case.
pub struct Training {
    gradients: Option<Tensors>,
    losses: Option<Vec<f32>>,
    settings: OptimizerSettings,
    labels: Labels,
}

/// Labels in the form each head takes.
enum Labels {
    Masked {
        positions: Vec<u32>,
        labels: Vec<u32>,
    },
    Sequences(ClassificationLabels),
    Tokens(Vec<Option<u32>>),
    Spans(SpanLabels),
    Choices(Vec<u32>),
}

impl Training {
    /// Returns the training part of `case`; `None` if it has none.
    ///
    /// # Errors
    /// References without labels, labels that don't fit, damaged files.
    pub fn open(case: &Case) -> Result<Option<Self>> {
        let folder = &case.folder;
        let gradients = Tensors::open_optional(folder.join("grads.safetensors"))?;
        let losses = match Tensors::open_optional(folder.join("losses.safetensors"))? {
            Some(file) => {
                let name = file.names()?.into_iter().next();
                let name = name.context("losses.safetensors is empty")?;
                Some(file.floats(&name)?.1.into_owned())
            }
            None => None,
        };
        if gradients.is_none() && losses.is_none() {
            return Ok(None);
        }
        let settings = OptimizerSettings::read(folder)?.unwrap_or_default();
        Ok(Some(Self {
            gradients,
            losses,
            settings,
            labels: labels(case)?,
        }))
    }

    /// Computes gradients and steps on `device`, and adds the comparisons to `report`.
    ///
    /// # Errors
    /// A model that can't be loaded or trained, gradients of other parameters.
    pub fn compare(
        &self,
        case: &Case,
        device: &Device,
        tolerances: &Tolerances,
        report: &mut Report,
    ) -> Result<()> {
        case.config.check_no_dropout()?;
        let device = device.clone().autodiff();
        let batch = case.batch(&device);
        let model = AnyModel::load(case, &device)?;
        model.encoder().check_tokens(batch.layout.total_tokens())?;
        let run = Run {
            training: self,
            tolerances,
            report,
        };
        match (model, &self.labels) {
            (AnyModel::MaskedLm(model), Labels::Masked { positions, labels }) => {
                let count = labels.len().max(1) as f64;
                let weights = vec![1.0; labels.len()];
                let masked = MaskedTokens::new(positions, labels, &weights, &device);
                run.steps(model, |model| {
                    Ok(model.forward(&batch, &masked).loss_sum / count)
                })
            }
            (AnyModel::Sequence(model), Labels::Sequences(labels)) => {
                labels.check(case.rows, case.config.label_count())?;
                run.steps(model, |model| Ok(model.forward(&batch, labels).loss))
            }
            (AnyModel::Token(model), Labels::Tokens(labels)) => {
                run.steps(model, |model| Ok(model.forward(&batch, labels)?.loss))
            }
            (AnyModel::Question(model), Labels::Spans(labels)) => {
                run.steps(model, |model| Ok(model.forward(&batch, labels)?.loss))
            }
            (AnyModel::Choice(model), Labels::Choices(labels)) => {
                let choices = case.choices.unwrap_or(1);
                run.steps(model, |model| {
                    Ok(model.forward(&batch, choices, labels)?.loss)
                })
            }
            _ => {
                bail!("a bare encoder has no loss; remove grads.safetensors and losses.safetensors")
            }
        }
    }
}

/// Reads the labels in the form of the case's head.
fn labels(case: &Case) -> Result<Labels> {
    let class = case.config.architectures.first().map_or("", String::as_str);
    let inputs = &case.inputs;
    let class_id =
        |label: i64| u32::try_from(label).with_context(|| format!("label {label} is negative"));
    let per_token = || -> Result<Vec<Option<u32>>> {
        let (_, values) = inputs.integers("labels")?;
        let indices = &case.unpadded.indices;
        ensure!(
            values.len() == case.rows * case.width,
            "{} labels for {} x {} tokens",
            values.len(),
            case.rows,
            case.width
        );
        let labelled = values.iter().filter(|&&label| label != NO_LABEL).count();
        let real: Vec<Option<u32>> = indices
            .iter()
            .map(|&i| match values[i as usize] {
                NO_LABEL => Ok(None),
                label => class_id(label).map(Some),
            })
            .collect::<Result<_>>()?;
        ensure!(
            real.iter().flatten().count() == labelled,
            "padding has labels; set them to {NO_LABEL}"
        );
        Ok(real)
    };
    Ok(match class {
        "ModernBertForMaskedLM" => {
            let all = per_token()?;
            let labelled = all
                .iter()
                .enumerate()
                .filter_map(|(i, l)| l.map(|l| (i as u32, l)));
            let (positions, labels): (Vec<u32>, Vec<u32>) = labelled.unzip();
            let vocab = case.config.vocab_size;
            ensure!(
                labels.iter().all(|&label| (label as usize) < vocab),
                "a label is outside the vocabulary of {vocab}"
            );
            Labels::Masked { positions, labels }
        }
        "ModernBertForTokenClassification" => Labels::Tokens(per_token()?),
        "ModernBertForSequenceClassification" => Labels::Sequences(sequence_labels(case)?),
        "ModernBertForQuestionAnswering" => {
            ensure!(
                case.unpadded.ids.len() == case.rows * case.width,
                "transformers' loss counts the scores of padding; give a question-answering case without padding"
            );
            let positions = |name: &str| -> Result<Vec<Option<u32>>> {
                let (_, values) = inputs.integers(name)?;
                let inside = |p: i64| u32::try_from(p).ok().filter(|&p| (p as usize) < case.width);
                Ok(values.into_iter().map(inside).collect())
            };
            Labels::Spans(SpanLabels {
                starts: positions("start_positions")?,
                ends: positions("end_positions")?,
            })
        }
        "ModernBertForMultipleChoice" => {
            let (_, values) = inputs.integers("labels")?;
            Labels::Choices(values.into_iter().map(class_id).collect::<Result<_>>()?)
        }
        other => bail!("there is no loss for {other}"),
    })
}

/// The loss is chosen as transformers does: by `problem_type`, else by the number of labels and their kind.
fn sequence_labels(case: &Case) -> Result<ClassificationLabels> {
    let inputs = &case.inputs;
    let integer = inputs.is_integer("labels")?;
    let problem = case
        .config
        .problem_type
        .unwrap_or(match (case.config.label_count(), integer) {
            (1, _) => ProblemType::Regression,
            (_, true) => ProblemType::SingleLabel,
            (_, false) => ProblemType::MultiLabel,
        });
    let numbers = || -> Result<Vec<f32>> {
        Ok(if integer {
            inputs
                .integers("labels")?
                .1
                .into_iter()
                .map(|x| x as f32)
                .collect()
        } else {
            inputs.floats("labels")?.1.into_owned()
        })
    };
    Ok(match problem {
        ProblemType::Regression => ClassificationLabels::Scores(numbers()?),
        ProblemType::MultiLabel => ClassificationLabels::MultiLabel(numbers()?),
        ProblemType::SingleLabel => {
            let (_, values) = inputs.integers("labels")?;
            let classes = values.into_iter().map(|label| {
                u32::try_from(label).with_context(|| format!("label {label} is negative"))
            });
            ClassificationLabels::Classes(classes.collect::<Result<_>>()?)
        }
    })
}

struct Run<'a> {
    training: &'a Training,
    tolerances: &'a Tolerances,
    report: &'a mut Report,
}

impl Run<'_> {
    /// `losses[i]` is the loss before step i; the gradients are those of the first.
    fn steps<M: Module>(self, mut model: M, loss: impl Fn(&M) -> Result<Tensor<1>>) -> Result<()> {
        let settings = &self.training.settings;
        let mut optimizer: ModuleOptimizer = settings.optimizer().build().into();
        let references = self.training.losses.as_deref().unwrap_or_default();
        for step in 0..references.len().max(1) {
            let value = loss(&model)?;
            if let Some(&reference) = references.get(step) {
                let found = read(value.clone())?.first().copied().unwrap_or(f32::NAN);
                let tol = self.tolerances.losses;
                self.report.checks.push(Check {
                    tensor: format!("loss:{step}"),
                    max_abs: f64::from(
                        (found - reference).abs() / reference.abs().max(f32::MIN_POSITIVE),
                    ),
                    allowed: tol,
                    tol,
                });
            }
            let gradients = value.backward();
            if step == 0
                && let Some(file) = &self.training.gradients
            {
                compare_gradients(
                    &model,
                    &gradients,
                    file,
                    self.tolerances.gradients,
                    self.report,
                )?;
            }
            if step + 1 < references.len() {
                let gradients = GradientsParams::from_grads(gradients, &model);
                model = optimizer.step(settings.lr, model, gradients);
            }
        }
        Ok(())
    }
}

fn compare_gradients<M: Module>(
    model: &M,
    gradients: &Gradients,
    file: &Tensors,
    tol: f64,
    report: &mut Report,
) -> Result<()> {
    struct Collect<'a> {
        gradients: &'a Gradients,
        found: Vec<Result<Option<Vec<f32>>, ReadError>>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.gradients);
            self.found.push(gradient.map(read).transpose());
        }
    }
    let mut collect = Collect {
        gradients,
        found: Vec::new(),
    };
    model.visit(&mut collect);
    for ((name, shape), found) in named_parameters(model).into_iter().zip(collect.found) {
        let count: usize = shape.iter().product();
        let found = found?.unwrap_or_else(|| vec![0.0; count]);
        let (reference_shape, reference) = file.floats(&name)?;
        ensure!(
            reference_shape == shape,
            "{}: `{name}` has shape {reference_shape:?}, the parameter {shape:?}",
            file.path().display()
        );
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let pairs = found.iter().zip(reference.iter());
        let difference = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let size = norm(&mut reference.iter().map(|&x| f64::from(x)));
        // A gradient that is zero by symmetry, such as that of a bias added to every choice, is rounding noise in both programs.
        let relative = if size < 1e-7 && difference < 1e-6 {
            0.0
        } else {
            difference / size
        };
        report.checks.push(Check {
            tensor: format!("grad:{name}"),
            max_abs: relative,
            allowed: tol,
            tol,
        });
    }
    Ok(())
}
