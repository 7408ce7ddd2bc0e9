//! Names and shapes of the parameters of a specification, and sums over them.

use super::{HeadSpec, LayerSpec, ModelSpec, NormSpec};

/// Name and shape of a parameter.
type Named = (String, Vec<usize>);

fn norm(name: &str, norm: &NormSpec, out: &mut Vec<Named>) {
    if norm.scale {
        out.push((format!("{name}.weight"), vec![norm.width]));
    }
    if norm.bias {
        out.push((format!("{name}.bias"), vec![norm.width]));
    }
}

fn linear(name: &str, [rows, columns]: [usize; 2], bias: bool, out: &mut Vec<Named>) {
    out.push((format!("{name}.weight"), vec![rows, columns]));
    if bias {
        out.push((format!("{name}.bias"), vec![rows]));
    }
}

impl LayerSpec {
    /// Shapes `[out, in]` of the layer's matrices: the input projections, then the output projections of attention and MLP.
    pub fn matrices(&self, hidden: usize) -> Vec<[usize; 2]> {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let (qkv, into) = (attention.qkv_rows(), mlp.in_rows());
        let outputs = [[hidden, attention.width()], [hidden, mlp.inner]];
        match self.is_parallel() {
            true => vec![[qkv.saturating_add(into), hidden], outputs[0], outputs[1]],
            false => vec![[qkv, hidden], outputs[0], [into, hidden], outputs[1]],
        }
    }

    /// Names without the layer's prefix, and shapes, in the order of the module's fields.
    fn tensors(&self, hidden: usize) -> Vec<Named> {
        let mut out = Vec::new();
        let (attention, mlp) = (&self.attention, &self.mlp);
        let parallel = self.is_parallel();
        let (qkv, into) = (attention.qkv_rows(), mlp.in_rows());
        if self.attention_norm {
            norm("attn_norm", &self.norm, &mut out);
        }
        if parallel {
            let rows = qkv.saturating_add(into);
            linear("Wqkvff", [rows, hidden], attention.qkv_bias, &mut out);
        } else {
            linear("attn.Wqkv", [qkv, hidden], attention.qkv_bias, &mut out);
        }
        linear(
            "attn.Wo",
            [hidden, attention.width()],
            attention.out_bias,
            &mut out,
        );
        if !parallel {
            norm("mlp_norm", &self.norm, &mut out);
            linear("mlp.Wi", [into, hidden], mlp.in_bias, &mut out);
        }
        if mlp.activation.parameters() > 0 {
            out.push(("mlp.act.weight".to_owned(), vec![1]));
        }
        linear("mlp.Wo", [hidden, mlp.inner], mlp.out_bias, &mut out);
        out
    }
}

impl HeadSpec {
    /// Names and shapes of the head's parameters at a width of `hidden`.
    pub fn tensors(&self, hidden: usize) -> Vec<(String, Vec<usize>)> {
        let mut out = Vec::new();
        linear("head.dense", [hidden, hidden], self.bias, &mut out);
        if self.activation.parameters() > 0 {
            out.push(("head.act.weight".to_owned(), vec![1]));
        }
        if let Some(spec) = &self.norm {
            norm("head.norm", spec, &mut out);
        }
        out
    }
}

impl ModelSpec {
    /// Names and shapes of the encoder's parameters.
    pub fn encoder_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut out = vec![(
            "embeddings.tok_embeddings.weight".to_owned(),
            vec![self.vocab, self.hidden],
        )];
        if let Some(rows) = self.positions {
            let name = "embeddings.position_embeddings.weight".to_owned();
            out.push((name, vec![rows, self.hidden]));
        }
        if let Some(rows) = self.token_types {
            let name = "embeddings.token_type_embeddings.weight".to_owned();
            out.push((name, vec![rows, self.hidden]));
        }
        if let Some(spec) = &self.embed_norm {
            norm("embeddings.norm", spec, &mut out);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let tensors = layer.tensors(self.hidden).into_iter();
            out.extend(tensors.map(|(name, shape)| (format!("layers.{i}.{name}"), shape)));
        }
        if let Some(spec) = &self.final_norm {
            norm("final_norm", spec, &mut out);
        }
        out
    }

    /// Weights in the matrices of all layers.
    pub(in crate::config) fn layer_matrices(&self) -> u128 {
        let of_layer = |layer: &LayerSpec| elements(layer.matrices(self.hidden));
        self.layers.iter().map(of_layer).sum()
    }
}

/// Elements of tensors of these shapes.
pub(in crate::config) fn elements<S: AsRef<[usize]>>(shapes: impl IntoIterator<Item = S>) -> u128 {
    let of_shape = |shape: S| -> u128 { shape.as_ref().iter().map(|&n| n as u128).product() };
    shapes.into_iter().map(of_shape).sum()
}
