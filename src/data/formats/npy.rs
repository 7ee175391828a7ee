//! The header of a NumPy array (.npy, versions 1.0 to 3.0): a Python dictionary with the type of the elements, their order and the
//! shape of the array.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header read, in bytes; NumPy itself writes 128 for a plain array.
const MAX_HEADER: usize = 1 << 16;
/// Blanks fill up a header to a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What the elements are.
    pub(super) elements: Elements,
    /// Whether the first index runs fastest.
    pub(super) fortran: bool,
    /// Length of every dimension; their product is below 2^60.
    pub(super) shape: Vec<u64>,
}

/// What the elements of an array are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Elements {
    /// Of one type each.
    Plain(ElementType),
    /// Records of several fields; nothing further is said of them.
    Records,
}

/// NumPy's name of a type, such as `<f8`, in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ElementType {
    /// The whole name.
    pub(super) name: String,
    /// Kind of type: `b` (boolean), `i`, `u`, `f`, `S` (bytes), `U` (text), `O` (Python object) and others.
    pub(super) letter: char,
    /// Bytes of an element, code points of a `U`; 0 where the name has no number.
    pub(super) size: u64,
    /// Whether the most significant byte comes first.
    pub(super) big_endian: bool,
}

impl ElementType {
    /// `None` if `name` is not the name of a type.
    fn parse(name: &str) -> Option<Self> {
        let mut rest = name.chars();
        let order = rest.next().filter(|order| "<>|".contains(*order))?;
        let letter = rest.next().filter(char::is_ascii_alphabetic)?;
        let rest = rest.as_str();
        let (digits, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let size = if digits.is_empty() && letter == 'O' { 0 } else { digits.parse().ok()? };
        let is_unit = |unit: &str| unit.chars().all(|c| c.is_ascii_alphanumeric());
        let unit_is_sound =
            unit.is_empty() || unit.strip_prefix('[').and_then(|unit| unit.strip_suffix(']')).is_some_and(is_unit);
        let has_order = letter == 'U' || ("iuf".contains(letter) && size > 1);
        (unit_is_sound && (order != '|' || !has_order)).then(|| Self {
            name: name.to_owned(),
            letter,
            size,
            big_endian: order == '>',
        })
    }
}

impl Header {
    /// Reads a header, with its sizes checked before anything is allocated or multiplied.
    ///
    /// # Errors
    /// What is wrong with it, or how reading failed.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, String> {
        let mut start = [0; 10];
        reader.read_exact(&mut start).map_err(|e| e.to_string())?;
        if &start[..6] != MAGIC {
            return Err("it does not start as a .npy array".into());
        }
        let mut length = u16::from_le_bytes([start[8], start[9]]) as usize;
        match (start[6], start[7]) {
            (1, 0) => {}
            (2 | 3, 0) => {
                let mut more = [0; 2];
                reader.read_exact(&mut more).map_err(|e| e.to_string())?;
                length += (u16::from_le_bytes(more) as usize) << 16;
            }
            (major, minor) => return Err(format!("it has version {major}.{minor} of the .npy format")),
        }
        if length > MAX_HEADER {
            return Err(format!("its header claims {length} bytes"));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(|e| e.to_string())?;
        Parser { rest: std::str::from_utf8(&text).map_err(|_| NOT_PLAIN)? }.header()
    }

    /// Writes the header of an array in C order, of elements of the type named.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write(out: &mut impl Write, element_type: &str, shape: &[usize]) -> io::Result<()> {
        let shape: String = shape.iter().map(|length| format!("{length}, ")).collect();
        let mut text = format!("{{'descr': '{element_type}', 'fortran_order': False, 'shape': ({shape}), }}");
        let before = MAGIC.len() + 4;
        let whole = (before + text.len() + 1).next_multiple_of(ALIGNMENT);
        text += &" ".repeat(whole - before - text.len() - 1);
        text.push('\n');
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        let length = u16::try_from(text.len()).map_err(|_| io::Error::other("an array of too many dimensions"))?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(text.as_bytes())
    }
}

const NOT_PLAIN: &str = "its header is not that of a plain array";

/// Reads the dictionary from front to back, without recursion.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Header, String> {
        let (mut elements, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.takes('}') {
            let key = self.quoted()?;
            self.expect(':')?;
            match key {
                "descr" if self.takes('[') => {
                    self.expect('(')?;
                    // Refused whatever its fields are, so the rest is not read.
                    return Ok(Header { elements: Elements::Records, fortran: false, shape: Vec::new() });
                }
                "descr" => elements = Some(ElementType::parse(self.quoted()?).ok_or(NOT_PLAIN)?),
                "fortran_order" => fortran = Some(self.truth()?),
                "shape" => shape = Some(self.lengths()?),
                _ => return Err(NOT_PLAIN.into()),
            }
            if !self.takes(',') {
                self.expect('}')?;
                break;
            }
        }
        match (elements, fortran, shape) {
            (Some(elements), Some(fortran), Some(shape)) if self.rest.trim().is_empty() => {
                Ok(Header { elements: Elements::Plain(elements), fortran, shape })
            }
            _ => Err(NOT_PLAIN.into()),
        }
    }

    /// Whether `mark` comes next, after any blanks; then it is passed.
    fn takes(&mut self, mark: char) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.takes(mark) { Ok(()) } else { Err(NOT_PLAIN.into()) }
    }

    fn quoted(&mut self) -> Result<&'a str, String> {
        let quote = if self.takes('\'') {
            '\''
        } else {
            self.expect('"')?;
            '"'
        };
        let (text, after) = self.rest.split_once(quote).filter(|(text, _)| !text.contains('\\')).ok_or(NOT_PLAIN)?;
        self.rest = after;
        Ok(text)
    }

    fn truth(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(after) = self.rest.strip_prefix(word) {
                self.rest = after;
                return Ok(value);
            }
        }
        Err(NOT_PLAIN.into())
    }

    /// A tuple of lengths.
    fn lengths(&mut self) -> Result<Vec<u64>, String> {
        let mut lengths = Vec::new();
        let mut product = 1u64;
        self.expect('(')?;
        while !self.takes(')') {
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, after) = self.rest.split_at(end);
            if digits.is_empty() {
                return Err(NOT_PLAIN.into());
            }
            let length = digits.parse::<u64>().ok();
            product = length
                .and_then(|length| product.checked_mul(length.max(1)))
                .filter(|&product| product < 1 << 60)
                .ok_or("its header claims an absurd size")?;
            lengths.extend(length);
            self.rest = after;
            if !self.takes(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(lengths)
    }
}

/// An element as it lies in an array, numbers with their least significant byte first.
pub(super) trait Element {
    /// The bytes of an element.
    type Bytes: AsRef<[u8]>;
    /// The bytes of this element.
    fn bytes(&self) -> Self::Bytes;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Element for $number {
            type Bytes = [u8; size_of::<$number>()];
            fn bytes(&self) -> Self::Bytes {
                self.to_le_bytes()
            }
        }
    )*};
}
number!(f32, f64, i64, u32);

/// Text of at most `width` code points, which is written in four bytes for each.
pub(super) struct Text<'a> {
    /// The text.
    pub(super) text: &'a str,
    /// Code points of an element.
    pub(super) width: usize,
}

impl Element for Text<'_> {
    type Bytes = Vec<u8>;
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(bytes.len() <= 4 * self.width, "a text is longer than its array holds");
        bytes.resize(4 * self.width, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(version: [u8; 2], text: &str) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &version].concat();
        match version[0] {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes
    }

    fn plain(name: &str, letter: char, size: u64, big_endian: bool) -> Elements {
        Elements::Plain(ElementType { name: name.into(), letter, size, big_endian })
    }

    #[test]
    fn headers_of_every_version_are_read() {
        // The first as numpy.save writes it, the second as older versions of NumPy did on other machines.
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }            \n";
        let read = |version, text: &str| Header::read(&mut &array(version, text)[..]);
        for version in [[1, 0], [2, 0], [3, 0]] {
            let header = read(version, text).unwrap();
            assert_eq!(header, Header { elements: plain("<f8", 'f', 8, false), fortran: false, shape: vec![2, 3] });
        }
        let header = read([1, 0], "{\"shape\":(7,),\"fortran_order\":True,\"descr\":\">U5\"}").unwrap();
        assert_eq!(header, Header { elements: plain(">U5", 'U', 5, true), fortran: true, shape: vec![7] });
        let header = read([1, 0], "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': ()}").unwrap();
        assert_eq!(header.elements, plain("<M8[ns]", 'M', 8, false));
        assert!(read([4, 0], text).unwrap_err().contains("version 4.0"));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for text in [
            "",
            "{}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2 3)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), } and more",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}",
            "{'descr': '<f8', 'fortran_order': False}",
            "{'descr': 'f8', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '|f8', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f8[', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f\\x38', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f99999999999999999999', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
        ] {
            assert_eq!(Header::read(&mut &array([1, 0], text)[..]).unwrap_err(), NOT_PLAIN, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (name, shape) in [("<f4", &[][..]), ("<i8", &[5]), ("<U31", &[0, 2]), ("<u4", &[1_000_000_007; 1])] {
            let mut bytes = Vec::new();
            Header::write(&mut bytes, name, shape).unwrap();
            assert!(bytes.len().is_multiple_of(ALIGNMENT) && bytes.ends_with(b"\n"), "{name}");
            let header = Header::read(&mut &bytes[..]).unwrap();
            assert_eq!(header.elements, Elements::Plain(ElementType::parse(name).unwrap()));
            assert!(!header.fortran && header.shape.iter().map(|&length| length as usize).eq(shape.iter().copied()));
        }
    }
}
