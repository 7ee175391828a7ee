//! The safetensors format: named tensors in one file, readable from Python.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// A named tensor to be saved.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<'a> {
    /// Name.
    pub name: String,
    /// Shape; row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub values: TensorValues<'a>,
}

/// Values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorValues<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl<'a> From<&'a [f32]> for TensorValues<'a> {
    fn from(values: &'a [f32]) -> Self {
        TensorValues::F32(values)
    }
}

impl<'a> From<&'a [f64]> for TensorValues<'a> {
    fn from(values: &'a [f64]) -> Self {
        TensorValues::F64(values)
    }
}

impl TensorValues<'_> {
    fn len(self) -> usize {
        match self {
            TensorValues::F32(values) => values.len(),
            TensorValues::F64(values) => values.len(),
        }
    }

    fn n_bytes(self) -> usize {
        match self {
            TensorValues::F32(values) => size_of_val(values),
            TensorValues::F64(values) => size_of_val(values),
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            TensorValues::F32(_) => "F32",
            TensorValues::F64(_) => "F64",
        }
    }
}

/// Writes tensors in the safetensors format: length of the header, header in JSON, values in little-endian order.
///
/// The same input gives the same bytes. The `safetensors` crate keeps metadata in a hash map, whose order changes from
/// run to run; that is why the header is written here.
///
/// # Errors
/// Those of `out`.
///
/// # Panics
/// If a tensor's values do not fill its shape, or two tensors share a name.
pub fn write_safetensors(
    out: &mut impl Write,
    tensors: &[NamedTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    // Wider types first, so that every tensor is aligned to its own width.
    let mut order: Vec<&NamedTensor<'_>> = tensors.iter().collect();
    order.sort_by_key(|tensor| std::cmp::Reverse(tensor.values.type_name()));

    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut offset = 0;
    for tensor in &order {
        assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len(), "{}: shape", tensor.name);
        let end = offset + tensor.values.n_bytes();
        let entry = serde_json::json!({
            "dtype": tensor.values.type_name(), "shape": tensor.shape, "data_offsets": [offset, end]
        });
        let earlier = header.insert(tensor.name.clone(), entry);
        assert!(earlier.is_none(), "two tensors are called {}", tensor.name);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in &order {
        match tensor.values {
            TensorValues::F32(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?,
            TensorValues::F64(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_are_read_by_the_format_s_own_crate() {
        let weights = [1.5f32, -2.0, 3.25, 0.0, 5.0, 6.0];
        let logits = [0.1f64, f64::MAX];
        let tensors = [
            NamedTensor { name: "encoder.0.weight".into(), shape: vec![2, 3], values: weights[..].into() },
            NamedTensor { name: "logit".into(), shape: vec![2], values: logits[..].into() },
            NamedTensor { name: "empty".into(), shape: vec![0, 4], values: TensorValues::F32(&[]) },
        ];
        let metadata: BTreeMap<String, String> =
            [("method", "svae-plus"), ("latents", "15"), ("format", "1")].map(|(k, v)| (k.into(), v.into())).into();
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &tensors, &metadata).expect("written");
        let mut again = Vec::new();
        write_safetensors(&mut again, &tensors, &metadata).expect("written");
        assert_eq!(bytes, again);

        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
        assert_eq!(file.len(), 3);
        let tensor = file.tensor("encoder.0.weight").expect("present");
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[2usize, 3][..]));
        assert_eq!(tensor.data(), weights.map(f32::to_le_bytes).as_flattened());
        let tensor = file.tensor("logit").expect("present");
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F64, &[2usize][..]));
        assert_eq!(tensor.data(), logits.map(f64::to_le_bytes).as_flattened());
        let (_, read) = safetensors::SafeTensors::read_metadata(&bytes).expect("a valid header");
        assert_eq!(read.metadata().as_ref().expect("metadata").len(), 3);
    }
}
