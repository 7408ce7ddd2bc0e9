//! The tensors of many parameters as one argument of a backend extension.
//!
//! Burn's derive macros support structs of tensors, but no lists of them. The macro here implements the same traits for a list, by
//! the parameters in order.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::{
    ExtensionMetadata, FusionValueAdapter, HandleContainer, TensorId, TensorIr,
};
#[cfg(feature = "fusion")]
use burn::backend::fusion::{ExecutionError, FusionBackend, FusionRuntime, FusionTensor};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType,
};

use super::AdamWStep;

/// A parameter before its step; all tensors have one shape.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct GroupParameter<B: Backend> {
    /// The parameter.
    pub weight: FloatTensor<B>,
    /// Its gradient.
    pub grad: FloatTensor<B>,
    /// Its first moment.
    pub moment_1: FloatTensor<B>,
    /// Its second moment.
    pub moment_2: FloatTensor<B>,
    /// The hyperparameters of its step.
    pub step: AdamWStep,
}

/// A parameter after its step.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Stepped<B: Backend> {
    /// The parameter.
    pub weight: FloatTensor<B>,
    /// Its first moment.
    pub moment_1: FloatTensor<B>,
    /// Its second moment.
    pub moment_2: FloatTensor<B>,
}

/// Parameters before a joint step.
pub struct ParameterGroup<B: Backend>(pub Vec<GroupParameter<B>>);

/// Parameters after a joint step.
pub struct SteppedGroup<B: Backend>(pub Vec<Stepped<B>>);

/// Implements for a list of `$item` what the derive macro implements for a struct.
macro_rules! list {
    ($list:ident, $item:ident) => {
        impl<B: Backend> ExtensionType<B> for $list<B> {
            type Target = $list<Dispatch>;

            fn map_to_dispatch<F>(
                self,
                map_kind: F,
                autodiff: DispatchAutodiffContext,
            ) -> Self::Target
            where
                F: Fn(BackendTensor<B>) -> DispatchTensorKind,
            {
                let items = self.0.into_iter();
                $list(
                    items
                        .map(|item| item.map_to_dispatch(&map_kind, autodiff))
                        .collect(),
                )
            }

            fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
            where
                F: Fn(DispatchTensor) -> BackendTensor<B>,
            {
                let items = target.0.into_iter();
                $list(
                    items
                        .map(|item| $item::map_from_dispatch(item, &unwrap_kind))
                        .collect(),
                )
            }

            fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
                target.0.first().and_then($item::<B>::routing_tensor)
            }

            fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
                target.0.first().and_then($item::<B>::routing_float_tensor)
            }

            fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
                target
                    .0
                    .iter()
                    .fold(DispatchAutodiffContext::Disabled, |context, item| {
                        context.merge($item::<B>::autodiff_context(item))
                    })
            }
        }

        #[cfg(feature = "fusion")]
        impl<B: Backend> ExtensionMetadata for $list<B> {
            type Metadata = Vec<<$item<B> as ExtensionMetadata>::Metadata>;
            type Input = Vec<<$item<B> as ExtensionMetadata>::Input>;
            type Output = Vec<<$item<B> as ExtensionMetadata>::Output>;
        }

        #[cfg(feature = "fusion")]
        impl<B: FusionBackend> FusionValueAdapter<B> for $list<B> {
            type Metadata = Vec<<$item<B> as FusionValueAdapter<B>>::Metadata>;
            type Input = Vec<<$item<B> as FusionValueAdapter<B>>::Input>;
            type Output = Vec<<$item<B> as FusionValueAdapter<B>>::Output>;
            type Inner = Self;
            type Fused = $list<burn::backend::fusion::Fusion<B>>;

            fn to_metadata(value: &Self::Fused) -> Self::Metadata {
                let items = value.0.iter();
                items
                    .map(<$item<B> as FusionValueAdapter<B>>::to_metadata)
                    .collect()
            }

            fn visit_fused_tensors(
                value: &Self::Fused,
                visit: &mut impl FnMut(&FusionTensor<B::FusionRuntime>),
            ) {
                for item in &value.0 {
                    <$item<B> as FusionValueAdapter<B>>::visit_fused_tensors(item, visit);
                }
            }

            fn tensor_count(meta: &Self::Metadata) -> usize {
                let items = meta.iter();
                items
                    .map(<$item<B> as FusionValueAdapter<B>>::tensor_count)
                    .sum()
            }

            fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Self::Input {
                let items = value.0.into_iter();
                items
                    .map(|item| <$item<B> as FusionValueAdapter<B>>::append_input_ir(item, inputs))
                    .collect()
            }

            fn resolve_inputs(
                input: &Self::Input,
                handles: &mut HandleContainer<<B::FusionRuntime as FusionRuntime>::FusionHandle>,
            ) -> Self::Inner {
                let items = input.iter();
                $list(
                    items
                        .map(|item| {
                            <$item<B> as FusionValueAdapter<B>>::resolve_inputs(item, handles)
                        })
                        .collect(),
                )
            }

            fn append_output_ir(
                meta: &Self::Metadata,
                out: &mut Vec<TensorIr>,
                create: &mut impl FnMut() -> TensorId,
            ) -> Self::Output {
                let items = meta.iter();
                items
                    .map(|item| {
                        <$item<B> as FusionValueAdapter<B>>::append_output_ir(item, out, create)
                    })
                    .collect()
            }

            fn validate_outputs(
                value: &Self::Inner,
                output: &Self::Output,
                device: Option<&B::Device>,
            ) -> Result<(), ExecutionError> {
                value.0.iter().zip(output).try_for_each(|(item, output)| {
                    <$item<B> as FusionValueAdapter<B>>::validate_outputs(item, output, device)
                })
            }

            fn register_output_handles(
                value: Self::Inner,
                output: &Self::Output,
                handles: &mut HandleContainer<<B::FusionRuntime as FusionRuntime>::FusionHandle>,
            ) {
                for (item, output) in value.0.into_iter().zip(output) {
                    <$item<B> as FusionValueAdapter<B>>::register_output_handles(
                        item, output, handles,
                    );
                }
            }

            fn build_fused_output(
                meta: &Self::Metadata,
                tensors: &mut std::vec::IntoIter<FusionTensor<B::FusionRuntime>>,
            ) -> Self::Fused {
                let items = meta.iter();
                $list(
                    items
                        .map(|item| {
                            <$item<B> as FusionValueAdapter<B>>::build_fused_output(item, tensors)
                        })
                        .collect(),
                )
            }
        }
    };
}

list!(ParameterGroup, GroupParameter);
list!(SteppedGroup, Stepped);

/// Shapes and dtypes of the results, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(crate) fn specs(
    group: &[GroupParameterMetadata],
    _apply: &burn::backend::fusion::custom::TensorSpec,
    _gated: &bool,
) -> Vec<SteppedMetadata> {
    let stepped = |parameter: &GroupParameterMetadata| SteppedMetadata {
        weight: parameter.weight.clone(),
        moment_1: parameter.moment_1.clone(),
        moment_2: parameter.moment_2.clone(),
    };
    group.iter().map(stepped).collect()
}
