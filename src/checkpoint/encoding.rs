//! Values as bytes and back, exact to the last bit.
//!
//! Numbers are little-endian, floating-point numbers by their bits, so that NaN and infinities survive. Lengths are
//! 64-bit numbers before what they count. Nothing here detects damage; the checksum of the whole file does.

use crate::error::NonFinite;
use crate::numerics::real::Real;

/// Why bytes are not the encoding of what was expected, without a final full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub String);

/// A value that can be part of a checkpoint.
pub trait Encode: Sized {
    /// Appends the value to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value from the front of `input`.
    ///
    /// # Errors
    /// [`DecodeError`] if `input` does not begin with one.
    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError>;
}

/// Bytes, of which those at the front were read already.
#[derive(Debug, Clone, Copy)]
pub struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    /// A reader of `bytes` at their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if there are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.0.len() {
            return Err(DecodeError("it ends too early".to_owned()));
        }
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(taken)
    }

    /// A length, which may not exceed what is left at `size` bytes each.
    fn length(&mut self, size: usize) -> Result<usize, DecodeError> {
        let n = u64::decode(self)?;
        match usize::try_from(n) {
            Ok(n) if n.checked_mul(size).is_some_and(|bytes| bytes <= self.0.len()) => Ok(n),
            _ => Err(DecodeError(format!("a length of {n} is impossible"))),
        }
    }

    /// Checks that all bytes were read.
    ///
    /// # Errors
    /// [`DecodeError`] if some are left.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(DecodeError(format!("{n} bytes are left over"))),
        }
    }
}

macro_rules! encode_numbers {
    ($($t:ty),*) => {$(
        impl Encode for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                let bytes = input.take(size_of::<$t>())?;
                Ok(<$t>::from_le_bytes(bytes.try_into().expect("as many as were taken")))
            }
        }
    )*};
}
encode_numbers!(u8, u32, u64, f64);

impl Encode for usize {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self as u64).encode(out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let n = u64::decode(input)?;
        usize::try_from(n).map_err(|_| DecodeError(format!("{n} is too large for this machine")))
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Vec<u8>) {
        self.len().encode(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let n = input.length(1)?;
        String::from_utf8(input.take(n)?.to_vec()).map_err(|_| DecodeError("a text is not UTF-8".to_owned()))
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => 0u8.encode(out),
            Some(value) => {
                1u8.encode(out);
                value.encode(out);
            }
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(input)? {
            0 => Ok(None),
            1 => Ok(Some(T::decode(input)?)),
            n => Err(DecodeError(format!("{n} is neither present nor absent"))),
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.len().encode(out);
        self.iter().for_each(|value| value.encode(out));
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let n = input.length(1)?;
        (0..n).map(|_| T::decode(input)).collect()
    }
}

/// A structure, field by field. A field that is missing from the list does not compile.
macro_rules! encode_fields {
    ($($t:ty { $($field:ident),* $(,)? })*) => {$(
        impl Encode for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.encode(out);)*
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Encode::decode(input)?),* })
            }
        }
    )*};
}
pub(crate) use encode_fields;

/// An enumeration without fields, each value as its number.
macro_rules! encode_choices {
    ($($t:ty { $($number:literal = $value:ident),* })*) => {$(
        impl Encode for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                let number: u8 = match self { $(Self::$value => $number),* };
                number.encode(out);
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                match u8::decode(input)? {
                    $($number => Ok(Self::$value),)*
                    n => Err(DecodeError(format!("there is no choice {n}"))),
                }
            }
        }
    )*};
}
pub(crate) use encode_choices;

encode_fields! {
    NonFinite { epoch, step, tensor }
}

/// Appends the values of a buffer, at their own precision.
pub fn encode_values<R: Real>(values: &[R], out: &mut Vec<u8>) {
    values.len().encode(out);
    out.reserve(size_of_val(values));
    match size_of::<R>() {
        // Exact: a single-precision number goes through double precision unchanged.
        4 => values.iter().for_each(|v| out.extend_from_slice(&(v.to_f64() as f32).to_le_bytes())),
        _ => values.iter().for_each(|v| out.extend_from_slice(&v.to_f64().to_le_bytes())),
    }
}

/// Fills a buffer with what [`encode_values`] wrote.
///
/// # Errors
/// [`DecodeError`] if another number of values was written.
pub fn decode_values<R: Real>(values: &mut [R], input: &mut ByteReader<'_>) -> Result<(), DecodeError> {
    let n = input.length(size_of::<R>())?;
    if n != values.len() {
        return Err(DecodeError(format!("it holds {n} values where the model has {}", values.len())));
    }
    let bytes = input.take(size_of_val(values))?;
    match size_of::<R>() {
        4 => {
            let found = bytes.as_chunks::<4>().0.iter().map(|b| R::from_f64(f64::from(f32::from_le_bytes(*b))));
            values.iter_mut().zip(found).for_each(|(value, found)| *value = found);
        }
        _ => {
            let found = bytes.as_chunks::<8>().0.iter().map(|b| R::from_f64(f64::from_le_bytes(*b)));
            values.iter_mut().zip(found).for_each(|(value, found)| *value = found);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Record {
        epoch: usize,
        loss: f64,
        zero: f64,
        least: f64,
        infinite: f64,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Choice {
        First,
        Second,
    }

    encode_fields! {
        Record { epoch, loss, zero, least, infinite }
    }

    encode_choices! {
        Choice { 0 = First, 1 = Second }
    }

    fn record() -> Record {
        Record { epoch: 1, loss: 1.0 / 3.0, zero: -0.0, least: 5e-324, infinite: f64::INFINITY }
    }

    #[test]
    fn every_bit_survives() {
        let mut bytes = Vec::new();
        let text = "\u{3b1} = 1\n".to_owned();
        let non_finite = Some(NonFinite { epoch: 3, step: 4, tensor: text.clone() });
        let values = [1.0f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY, 0.1];
        (vec![record(), record()]).encode(&mut bytes);
        non_finite.encode(&mut bytes);
        None::<usize>.encode(&mut bytes);
        Choice::First.encode(&mut bytes);
        Choice::Second.encode(&mut bytes);
        f64::NAN.encode(&mut bytes);
        encode_values(&values, &mut bytes);
        encode_values(&[0.1f64], &mut bytes);

        let mut input = ByteReader::new(&bytes);
        let records = Vec::<Record>::decode(&mut input).expect("records");
        assert_eq!(records, [record(), record()]);
        assert_eq!(records[0].zero.to_bits(), (-0.0f64).to_bits());
        assert_eq!(Option::<NonFinite>::decode(&mut input), Ok(non_finite));
        assert_eq!(Option::<usize>::decode(&mut input), Ok(None));
        assert_eq!(Choice::decode(&mut input), Ok(Choice::First));
        assert_eq!(Choice::decode(&mut input), Ok(Choice::Second));
        assert_eq!(f64::decode(&mut input).map(f64::to_bits), Ok(f64::NAN.to_bits()));
        let (mut single, mut double) = ([0.0f32; 5], [0.0f64]);
        decode_values(&mut single, &mut input).expect("values");
        decode_values(&mut double, &mut input).expect("values");
        assert_eq!(single.map(f32::to_bits), values.map(f32::to_bits));
        assert_eq!(double, [0.1]);
        assert_eq!(input.end(), Ok(()));
    }

    #[test]
    fn bytes_that_are_something_else_are_refused_without_a_panic() {
        let mut bytes = Vec::new();
        vec![record()].encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(Vec::<Record>::decode(&mut ByteReader::new(&bytes[..cut])).is_err(), "{cut}");
        }
        let huge = u64::MAX.to_le_bytes();
        assert!(Vec::<f64>::decode(&mut ByteReader::new(&huge)).is_err());
        assert!(String::decode(&mut ByteReader::new(&huge)).is_err());
        assert!(decode_values(&mut [0.0f32], &mut ByteReader::new(&huge)).is_err());
        assert!(Option::<u8>::decode(&mut ByteReader::new(&[2, 0])).is_err());
        assert!(Choice::decode(&mut ByteReader::new(&[9])).is_err());
        let mut two = Vec::new();
        encode_values(&[1.0f32, 2.0], &mut two);
        let DecodeError(reason) =
            decode_values(&mut [0.0f32; 3], &mut ByteReader::new(&two)).expect_err("another model");
        assert!(reason.contains("2 values where the model has 3"), "{reason}");
        assert!(ByteReader::new(&two).end().is_err());
    }
}
