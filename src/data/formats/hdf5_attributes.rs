//! Attributes of HDF5 groups that hold a list, which the library does not read: found in the file itself, in its usual layouts.
//!
//! Whatever is laid out otherwise, or is odd in any way, counts as absent.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rust_hdf5::format::dense_link::read_dense_links;
use rust_hdf5::format::messages::link::LinkTarget;
use rust_hdf5::format::messages::link_info::LinkInfoMessage;
use rust_hdf5::format::{BlockReader, FormatContext, FormatError};

/// Most bytes read of the file, and pieces that these are read in: a damaged file may point in circles.
const MOST_BYTES: usize = 1 << 24;
const MOST_PIECES: usize = 1 << 12;
/// Kinds of messages of an object header.
const LINK_INFO: u16 = 0x02;
const LINK: u16 = 0x06;
const ATTRIBUTE: u16 = 0x0c;
const CONTINUATION: u16 = 0x10;
const SYMBOL_TABLE: u16 = 0x11;
/// Classes of datatypes.
const FIXED_TEXT: u8 = 3;
const VARIABLE: u8 = 9;

/// An attribute that holds a list of texts.
pub(crate) enum TextList {
    /// References to texts in heaps, 16 bytes each, of so many texts.
    References(Vec<u8>, usize),
    /// The texts.
    Texts(Vec<String>),
}

/// The attribute `name` of the group at `path` within a file, if it is a list of texts that can be read.
pub(crate) fn text_list(file: &Path, path: &str, name: &str) -> Option<TextList> {
    let mut bytes = FileBytes { file: File::open(file).ok()?, left: MOST_BYTES, pieces: MOST_PIECES };
    let mut header = bytes.root()?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        header = bytes.child(header, part)?;
    }
    let messages = bytes.messages(header)?;
    let attributes = messages.iter().filter(|(kind, _)| *kind == ATTRIBUTE);
    attributes.filter_map(|(_, body)| attribute(body)).find(|(of, _)| *of == name.as_bytes())?.1
}

/// Name of an attribute, and its value if it is a list of texts.
fn attribute(body: &[u8]) -> Option<(&[u8], Option<TextList>)> {
    let version = *body.first()?;
    let lengths = [2, 4, 6].map(|at| word(body, at, 2));
    let [name, datatype, dataspace] = [lengths[0]?, lengths[1]?, lengths[2]?].map(|length| length as usize);
    let padded = |length: usize| if version == 1 { length.next_multiple_of(8) } else { length };
    let start = match version {
        1 | 2 => 8,
        3 => 9,
        _ => return None,
    };
    let name_bytes = body.get(start..start + name)?;
    let name_bytes = name_bytes.split(|byte| *byte == 0).next()?;
    let type_at = start + padded(name);
    let space_at = type_at + padded(datatype);
    let data = body.get(space_at + padded(dataspace)..)?;
    let of = || -> Option<TextList> {
        // A datatype or dataspace that is kept elsewhere is not followed.
        if version > 1 && *body.get(1)? != 0 {
            return None;
        }
        let datatype = body.get(type_at..type_at + datatype)?;
        let n = n_elements(body.get(space_at..space_at + dataspace)?)?;
        let size = word(datatype, 4, 4)? as usize;
        match datatype[0] & 0x0f {
            VARIABLE if size == 16 => Some(TextList::References(data.get(..n.checked_mul(16)?)?.to_vec(), n)),
            FIXED_TEXT if size > 0 => {
                let texts = data.get(..n.checked_mul(size)?)?.chunks_exact(size);
                let text = |bytes: &[u8]| {
                    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                    Some(std::str::from_utf8(text).ok()?.trim_end_matches(' ').to_owned())
                };
                Some(TextList::Texts(texts.map(text).collect::<Option<_>>()?))
            }
            _ => None,
        }
    };
    Some((name_bytes, of()))
}

/// Number of elements of a dataspace of one axis.
fn n_elements(dataspace: &[u8]) -> Option<usize> {
    let axes = *dataspace.get(1)?;
    let at = match *dataspace.first()? {
        1 => 8,
        2 => 4,
        _ => return None,
    };
    (axes == 1).then(|| word(dataspace, at, 8)).flatten()?.try_into().ok()
}

/// The whole number in `width` bytes at `at`.
fn word(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
    Some(u64::from_le_bytes(wide))
}

/// A file of which a bounded number of bytes is read.
struct FileBytes {
    file: File,
    left: usize,
    pieces: usize,
}

/// Kind and body of a message of an object header.
type Message = (u16, Vec<u8>);

impl FileBytes {
    fn at(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(length)?;
        self.pieces = self.pieces.checked_sub(1)?;
        self.file.seek(SeekFrom::Start(address)).ok()?;
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Address of the object header of the root, where addresses are eight bytes wide and counted from the file's start.
    fn root(&mut self) -> Option<u64> {
        let start = self.at(0, 80)?;
        if start[..8] != *b"\x89HDF\r\n\x1a\n" {
            return None;
        }
        match start[8] {
            0 if start[13..15] == [8, 8] && word(&start, 24, 8)? == 0 => word(&start, 64, 8),
            2 | 3 if start[9..11] == [8, 8] && word(&start, 12, 8)? == 0 => word(&start, 36, 8),
            _ => None,
        }
    }

    /// Address of the object header of a child of the group whose header is at `header`.
    fn child(&mut self, header: u64, name: &str) -> Option<u64> {
        let messages = self.messages(header)?;
        for (kind, body) in &messages {
            let found = match *kind {
                LINK => link(body, name),
                LINK_INFO => self.in_heap(body, name),
                SYMBOL_TABLE => self.in_symbol_table(word(body, 0, 8)?, word(body, 8, 8)?, name),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The child `name` among many, whose links are in a heap of their own.
    fn in_heap(&mut self, body: &[u8], name: &str) -> Option<u64> {
        let context = FormatContext::default_v3();
        let (info, _) = LinkInfoMessage::decode(body, &context).ok()?;
        let links = read_dense_links(&info, &context, self).ok()?;
        let found = links.into_iter().find(|link| link.name == name)?;
        match found.target {
            LinkTarget::Hard { address } => Some(address),
            _ => None,
        }
    }

    /// The child `name` among those of a tree of symbols, whose names are in a heap.
    fn in_symbol_table(&mut self, tree: u64, heap: u64, name: &str) -> Option<u64> {
        let head = self.at(heap, 32)?;
        if head[..4] != *b"HEAP" {
            return None;
        }
        let names = self.at(word(&head, 24, 8)?, usize::try_from(word(&head, 8, 8)?).ok()?)?;
        let mut nodes = vec![tree];
        while let Some(node) = nodes.pop() {
            let head = self.at(node, 8)?;
            match &head[..4] {
                b"TREE" => {
                    let n = word(&head, 6, 2)? as usize;
                    let entries = self.at(node + 24, 16 * n + 8)?;
                    (0..n).try_for_each(|i| {
                        nodes.push(word(&entries, 16 * i + 8, 8)?);
                        Some(())
                    })?;
                }
                b"SNOD" => {
                    let n = word(&head, 6, 2)? as usize;
                    let entries = self.at(node + 8, 40 * n)?;
                    for entry in entries.chunks_exact(40) {
                        let at = usize::try_from(word(entry, 0, 8)?).ok()?;
                        if names.get(at..)?.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
                            return word(entry, 8, 8);
                        }
                    }
                }
                _ => return None,
            }
        }
        None
    }

    /// The messages of the object header at `header`.
    fn messages(&mut self, header: u64) -> Option<Vec<Message>> {
        let head = self.at(header, 16)?;
        match &head[..4] == b"OHDR" {
            true => self.new_messages(header, head[5]),
            false if head[0] == 1 => self.old_messages(header + 16, word(&head, 8, 4)? as usize),
            false => None,
        }
    }

    /// Those of the first version of headers, of which the first block of messages is at `address`.
    fn old_messages(&mut self, address: u64, length: usize) -> Option<Vec<Message>> {
        let (mut found, mut blocks) = (Vec::new(), vec![(address, length)]);
        while let Some((address, length)) = blocks.pop() {
            let block = self.at(address, length)?;
            let mut at = 0;
            while at + 8 <= block.len() {
                let (kind, length) = (word(&block, at, 2)? as u16, word(&block, at + 2, 2)? as usize);
                let body = block.get(at + 8..at + 8 + length)?;
                match kind {
                    CONTINUATION => blocks.push((word(body, 0, 8)?, usize::try_from(word(body, 8, 8)?).ok()?)),
                    _ => found.push((kind, body.to_vec())),
                }
                at += 8 + length;
            }
        }
        Some(found)
    }

    /// Those of the second version of headers, which begins at `header`.
    fn new_messages(&mut self, header: u64, flags: u8) -> Option<Vec<Message>> {
        let times = if flags & 0x20 != 0 { 16 } else { 0 };
        let phases = if flags & 0x10 != 0 { 4 } else { 0 };
        let width = 1 << (flags & 3);
        let before = 6 + times + phases;
        let length = word(&self.at(header + before, width)?, 0, width)?;
        let first = (header + before + width as u64, usize::try_from(length).ok()?);
        // Messages of a header that keeps their order have two bytes more.
        let head = if flags & 4 != 0 { 6 } else { 4 };
        let (mut found, mut blocks) = (Vec::new(), vec![first]);
        while let Some((address, length)) = blocks.pop() {
            let block = self.at(address, length)?;
            let mut at = 0;
            while at + head <= block.len() {
                let (kind, length) = (u16::from(block[at]), word(&block, at + 1, 2)? as usize);
                let body = block.get(at + head..at + head + length)?;
                match kind {
                    // Such a block has a signature before its messages and a checksum after them.
                    CONTINUATION => {
                        let length = usize::try_from(word(body, 8, 8)?).ok()?.checked_sub(8)?;
                        blocks.push((word(body, 0, 8)?.checked_add(4)?, length));
                    }
                    _ => found.push((kind, body.to_vec())),
                }
                at += head + length;
            }
        }
        Some(found)
    }
}

impl BlockReader for FileBytes {
    fn read_block(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, FormatError> {
        let refused = || FormatError::InvalidData("it is too large, or lies outside of the file".to_owned());
        let end = self.file.metadata().map_err(|_| refused())?.len();
        let length = usize::try_from(end.saturating_sub(offset)).map_or(length, |rest| rest.min(length));
        self.at(offset, length).ok_or_else(refused)
    }
}

/// The address that a link message gives, if it is a plain link of that name.
fn link(body: &[u8], name: &str) -> Option<u64> {
    let flags = *body.get(1)?;
    let mut at = 2;
    if flags & 0x08 != 0 {
        // Another kind of link.
        if *body.get(at)? != 0 {
            return None;
        }
        at += 1;
    }
    at += if flags & 0x04 != 0 { 8 } else { 0 };
    at += usize::from(flags & 0x10 != 0);
    let width = 1 << (flags & 3);
    let length = usize::try_from(word(body, at, width)?).ok()?;
    at += width;
    let here = body.get(at..at.checked_add(length)?)? == name.as_bytes();
    here.then(|| word(body, at + length, 8)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};

    /// Kind of the message that says where the contents of a data set are.
    const LAYOUT: u16 = 0x08;

    #[test]
    fn lists_of_texts_are_found_in_groups() {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name);
        for (name, n) in [("anndata0_7_csr_f32.h5ad", 5), ("anndata0_12_csr_f32.h5ad", 5), ("public/screen.h5ad", 17)] {
            let found = text_list(&fixture(name), "obs", "column-order");
            assert!(matches!(found, Some(TextList::References(_, found)) if found == n), "{name}");
            assert!(
                text_list(&fixture(name), "obs", "no-order").is_none()
                    && text_list(&fixture(name), "ob", "x").is_none()
            );
        }
        assert!(text_list(&fixture("labels.csv"), "obs", "column-order").is_none());
    }

    #[test]
    fn empty_lists_have_no_place_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.h5ad");
        let file = AnnDataWriter::create(&path).unwrap();
        let columns = [
            ("texts".to_owned(), FrameColumn::Strings(Vec::new())),
            ("numbers".to_owned(), FrameColumn::Numbers(Vec::new())),
            ("levels".to_owned(), FrameColumn::Categorical(Vec::new(), Vec::new())),
        ];
        file.frame("uns/none", &[] as &[String], &columns).unwrap();
        file.finish().unwrap();
        let mut bytes = FileBytes { file: File::open(&path).unwrap(), left: MOST_BYTES, pieces: MOST_PIECES };
        for name in ["_index", "texts", "numbers", "levels/codes", "levels/categories"] {
            let mut header = bytes.root().unwrap();
            for part in format!("uns/none/{name}").split('/') {
                header = bytes.child(header, part).unwrap_or_else(|| panic!("there is no {name}"));
            }
            let messages = bytes.messages(header).unwrap();
            let (_, layout) = messages.iter().find(|(kind, _)| *kind == LAYOUT).unwrap();
            // Version, class (1: in one piece), address.
            assert_eq!((layout[1], word(layout, 2, 8)), (1, Some(u64::MAX)), "{name}");
        }
    }
}
