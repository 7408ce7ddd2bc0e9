//! Parameters under the names that Hugging Face checkpoints use.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// A function of every parameter of a module, by name.
pub trait NamedMapper {
    /// Returns the new value of the parameter `name`, in the shape of the old one.
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D>;
}

/// Replaces every float parameter of `module` by its image under `mapper`.
pub fn map_named<M: Module>(module: M, mapper: &mut impl NamedMapper) -> M {
    module.map(&mut Visit {
        path: Vec::new(),
        mapper,
    })
}

/// Names and shapes of all float parameters, in the order in which the module holds them.
pub fn named_parameters<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    struct Collect {
        path: Vec<String>,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.val().dims().to_vec();
            self.found.push((checkpoint_name(&self.path), shape));
        }
    }
    let mut collect = Collect {
        path: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut collect);
    collect.found
}

struct Visit<'a, N> {
    path: Vec<String>,
    mapper: &'a mut N,
}

impl<N: NamedMapper> ModuleMapper for Visit<'_, N> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = checkpoint_name(&self.path);
        let (id, value, mapper) = param.consume();
        let (shape, trainable) = (value.dims(), value.is_require_grad());
        let value = self.mapper.map(&name, value.detach());
        let value = value.set_require_grad(trainable);
        assert_eq!(
            value.dims(),
            shape,
            "the new value of {name} must keep its shape"
        );
        Param::from_mapped_value(id, value, mapper)
    }
}

/// The name of a parameter in checkpoint files, from the path of its fields: fields are lower case in Rust, files capitalize the
/// projections.
pub fn checkpoint_name(path: &[String]) -> String {
    let parts: Vec<&str> = path
        .iter()
        .map(|part| match part.as_str() {
            "wqkv" => "Wqkv",
            "wqkvff" => "Wqkvff",
            "wi" => "Wi",
            "wo" => "Wo",
            other => other,
        })
        .collect();
    parts.join(".")
}
