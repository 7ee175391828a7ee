//! The rules of the house (`docs/architecture.md`), read off the source: what may import what, and what has one home only.
//!
//! Unit tests inside the source may use anything and are left out. Every other line counts: imports, and paths in the text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from top to bottom: what stands at the root of `src`. A file uses its own layer and those below.
const LAYERS: [&str; 20] = [
    "main",
    "cli",
    "commands",
    "lib",
    "fit",
    "results",
    "display",
    "evaluation",
    "verification",
    "settings",
    "training",
    "inference",
    "model",
    "checkpoint",
    "data",
    "parallel",
    "system",
    "numerics",
    "words",
    "error",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file.
struct File {
    /// Path below `src`.
    path: String,
    /// Segments of its module; none for `lib.rs` and `main.rs`.
    module: Vec<String>,
    /// Its text without comments, contents of strings and unit tests; as long as the file, line by line.
    code: String,
    /// The same, with the contents of strings.
    text: String,
}

/// The source without its unit tests, by path.
fn source() -> Vec<File> {
    let src = root().join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
                files.push(read(&src, &path));
            }
        }
    }
    // Of two files that stand for each other, one is compiled: the other one is left out.
    let is_alternative = |path: &str| {
        let name = path.rsplit('/').next().expect("a name").trim_end_matches(".rs");
        let declared = format!("#[cfg(not(feature = \"mpi\"))]\nmod {name};");
        files.iter().any(|file: &File| file.text.contains(&declared))
    };
    let alternatives: Vec<String> =
        files.iter().map(|file| file.path.clone()).filter(|path| is_alternative(path)).collect();
    files.retain(|file| !alternatives.contains(&file.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 100, "{} files", files.len());
    files
}

fn read(src: &Path, path: &Path) -> File {
    let below = path.strip_prefix(src).expect("below src");
    let mut module: Vec<String> =
        below.with_extension("").iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    let (code, text) = without_tests_and_comments(&fs::read_to_string(path).expect("UTF-8"));
    File { path: below.to_str().expect("UTF-8").to_owned(), module, code, text }
}

/// The program without comments and unit tests: once without, once with the contents of its strings.
fn without_tests_and_comments(text: &str) -> (String, String) {
    let (mut code, mut with_strings) = (String::new(), String::new());
    let bytes: Vec<char> = text.chars().collect();
    let mut i = 0;
    let mut put = |c: char, in_string: bool| {
        code.push(if in_string && c != '\n' { ' ' } else { c });
        with_strings.push(c);
    };
    while i < bytes.len() {
        match bytes[i] {
            '/' if bytes.get(i + 1) == Some(&'/') => {
                while i < bytes.len() && bytes[i] != '\n' {
                    i += 1;
                }
            }
            '/' if bytes.get(i + 1) == Some(&'*') => {
                while i < bytes.len() && !(bytes[i] == '*' && bytes.get(i + 1) == Some(&'/')) {
                    if bytes[i] == '\n' {
                        put('\n', false);
                    }
                    i += 1;
                }
                i += 2;
            }
            // Raw strings: r"...", r#"..."#; an identifier that ends in r is followed by neither.
            'r' if raw_hashes(&bytes, i).is_some() => {
                let hashes = raw_hashes(&bytes, i).expect("just seen");
                put('"', false);
                i += hashes + 2;
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                while i < bytes.len() && !bytes[i..].starts_with(&end) {
                    put(bytes[i], true);
                    i += 1;
                }
                put('"', false);
                i += end.len();
            }
            '"' => {
                put('"', false);
                i += 1;
                while i < bytes.len() && bytes[i] != '"' {
                    if bytes[i] == '\\' {
                        put(bytes[i], true);
                        i += 1;
                    }
                    put(bytes[i], true);
                    i += 1;
                }
                put('"', false);
                i += 1;
            }
            // A character, not a lifetime.
            '\'' if bytes.get(i + 1) == Some(&'\\') || bytes.get(i + 2) == Some(&'\'') => {
                i += if bytes[i + 1] == '\\' { 3 } else { 2 };
                while bytes[i] != '\'' {
                    i += 1;
                }
                i += 1;
                put(' ', false);
            }
            c => {
                put(c, false);
                i += 1;
            }
        }
    }
    // Modules of unit tests stand at the end of a file, or end with a brace in the first column.
    let cut = |text: String| match text.find("#[cfg(test)]\nmod tests {") {
        Some(start) => {
            let end = text[start..].find("\n}\n").map_or(text.len(), |end| start + end + 3);
            format!("{}{}", &text[..start], &text[end..])
        }
        None => text,
    };
    (cut(code), cut(with_strings))
}

/// Number of `#` of the raw string that begins at `i`, if one does.
fn raw_hashes(text: &[char], i: usize) -> Option<usize> {
    if i > 0 && (text[i - 1].is_alphanumeric() || text[i - 1] == '_') {
        return None;
    }
    let hashes = text[i + 1..].iter().take_while(|&&c| c == '#').count();
    (text.get(i + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Every path into this crate that `file` names, absolute, with its line.
fn paths(file: &File) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for start in ["crate::", "svae_cpu::", "super::", "self::"] {
        for (at, _) in file.code.match_indices(start) {
            let before = &file.code[..at];
            if before.ends_with(|c: char| is_word(c) || c == ':' || c == '$') {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            let mut prefix = match start {
                "super::" => file.module[..file.module.len().saturating_sub(1)].to_vec(),
                "self::" => file.module.clone(),
                _ => Vec::new(),
            };
            let mut rest = &file.code[at + start.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                prefix.pop();
                rest = further;
            }
            expand(rest, &prefix, &mut |path| found.push((path, line)));
        }
    }
    // A file that declares modules may name them without `self`.
    let children: Vec<&str> = file
        .code
        .lines()
        .filter_map(|line| line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|rest| rest.strip_suffix(';'))
        .collect();
    for child in &children {
        for (at, _) in file.code.match_indices(&format!("{child}::")) {
            if !file.code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                let prefix: Vec<String> = file.module.iter().cloned().chain([(*child).to_owned()]).collect();
                let line = file.code[..at].matches('\n').count() + 1;
                expand(&file.code[at + child.len() + 2..], &prefix, &mut |path| found.push((path, line)));
            }
        }
    }
    found
}

/// Calls `put` for every leaf of the tree of paths at the start of `text`, and returns what follows it.
fn expand<'a>(text: &'a str, prefix: &[String], put: &mut impl FnMut(Vec<String>)) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let after = expand(rest, prefix, put);
            assert!(after.len() < rest.len(), "a tree of imports ends: {}", &rest[..rest.len().min(40)]);
            rest = after;
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        put(prefix.to_vec());
        return rest;
    }
    let path: Vec<String> = prefix.iter().cloned().chain((name != "self").then(|| name.to_owned())).collect();
    match rest.strip_prefix("::") {
        Some(further) if further.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '{' || c == '*') => {
            expand(further, &path, put)
        }
        _ => {
            put(path);
            // A new name in the tree: `as name`.
            match rest.strip_prefix(" as ") {
                Some(alias) => alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
                None => rest,
            }
        }
    }
}

/// Every arrow from a file to another one, with the line that draws it.
fn arrows(files: &[File]) -> Vec<(usize, usize, usize)> {
    let number: BTreeMap<&[String], usize> = files
        .iter()
        .enumerate()
        .filter(|(_, file)| file.path != "main.rs")
        .map(|(i, file)| (file.module.as_slice(), i))
        .collect();
    let mut arrows = Vec::new();
    for (from, file) in files.iter().enumerate() {
        for (path, line) in paths(file) {
            let to = (0..=path.len()).rev().find_map(|n| number.get(&path[..n])).copied();
            let to = to.unwrap_or_else(|| panic!("src/{}:{line}: no file holds {path:?}", file.path));
            if to != from {
                arrows.push((from, to, line));
            }
        }
    }
    arrows.sort_unstable();
    arrows.dedup();
    arrows
}

/// The place of a file's layer, counted from the top.
fn layer(file: &File) -> usize {
    LAYERS.iter().position(|layer| *layer == top(file)).unwrap_or_else(|| panic!("src/{} is in no layer", file.path))
}

/// The root of a file's path: its layer's name.
fn top(file: &File) -> &str {
    file.path.split('/').next().expect("a name").trim_end_matches(".rs")
}

fn layer_of(name: &str) -> usize {
    LAYERS.iter().position(|layer| *layer == name).expect("a layer")
}

/// Fails with all that is wrong, a line each.
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Lines of `files` outside of `homes` on which `is_fault` holds, as sentences.
fn lines_outside(
    files: &[File],
    homes: &[&str],
    of: fn(&File) -> &str,
    is_fault: impl Fn(&str) -> bool,
) -> Vec<String> {
    let elsewhere = files.iter().filter(|file| !homes.iter().any(|home| file.path.starts_with(home)));
    let fault = |file: &File, (i, line): (usize, &str)| {
        is_fault(line).then(|| format!("src/{}:{}: {}", file.path, i + 1, line.trim()))
    };
    elsewhere
        .flat_map(|file| of(file).lines().enumerate().filter_map(move |line| fault(file, line)).collect::<Vec<_>>())
        .collect()
}

fn code(file: &File) -> &str {
    &file.code
}

fn text(file: &File) -> &str {
    &file.text
}

#[test]
fn rule_1_imports_run_downwards() {
    let files = source();
    let upward = arrows(&files).into_iter().filter(|&(from, to, _)| layer(&files[to]) < layer(&files[from]));
    none(
        upward.map(|(from, to, line)| format!("src/{}:{line} uses src/{}", files[from].path, files[to].path)).collect(),
    );
}

#[test]
fn rule_1_no_circle_of_imports() {
    let files = source();
    let mut uses = vec![BTreeSet::new(); files.len()];
    for (from, to, _) in arrows(&files) {
        uses[from].insert(to);
    }
    let reached = |from: usize| {
        let mut seen = BTreeSet::new();
        let mut left: Vec<usize> = uses[from].iter().copied().collect();
        while let Some(file) = left.pop() {
            if seen.insert(file) {
                left.extend(&uses[file]);
            }
        }
        seen
    };
    let reach: Vec<BTreeSet<usize>> = (0..files.len()).map(reached).collect();
    let back = |from: usize, to: usize| reach[to].contains(&from);
    let name = |i: usize| files[i].path.as_str();
    let closes = (0..files.len()).flat_map(|from| uses[from].iter().map(move |&to| (from, to)));
    none(
        closes
            .filter(|&(from, to)| back(from, to))
            .map(|(a, b)| format!("src/{} uses src/{}, and back", name(a), name(b)))
            .collect(),
    );
}

#[test]
fn rule_2_the_model_sees_one_minibatch() {
    let files = source();
    let elsewhere: Vec<&str> =
        files.iter().map(|file| file.path.as_str()).filter(|path| !path.starts_with("model/")).collect();
    let banned = [
        "std::fs",
        "std::io",
        "std::path",
        "Result<",
        "Dataset",
        "eprint",
        "crate::error",
        "crate::system",
        "crate::checkpoint",
    ];
    none(lines_outside(&files, &elsewhere, code, |line| banned.iter().any(|word| line.contains(word))));
}

#[test]
fn rule_3_minibatches_are_opened_by_inference_and_training() {
    let homes = ["inference/", "training/", "data/minibatch.rs"];
    none(lines_outside(&source(), &homes, code, |line| line.contains("Minibatches")));
}

#[test]
fn rule_4_training_speaks_through_its_observer() {
    let files = source();
    let below: BTreeSet<&str> = LAYERS[layer_of("training")..].iter().copied().collect();
    let draws = ["eprint!", "eprintln!", "println!", "print!", "stderr()", "stdout()", "indicatif"];
    let at_work =
        files.iter().filter(|file| below.contains(top(file)) && top(file) != "system" && top(file) != "parallel");
    none(
        at_work
            .flat_map(|file| {
                let faults =
                    file.code.lines().enumerate().filter(|(_, line)| draws.iter().any(|word| line.contains(word)));
                faults.map(|(i, line)| format!("src/{}:{}: {}", file.path, i + 1, line.trim())).collect::<Vec<_>>()
            })
            .collect(),
    );
}

#[test]
fn rule_5_a_checkpoint_keeps_bytes_under_names() {
    let files = source();
    let known = ["checkpoint", "data", "parallel", "system", "numerics", "words", "error"];
    let strange = arrows(&files)
        .into_iter()
        .filter(|&(from, to, _)| top(&files[from]) == "checkpoint" && !known.contains(&top(&files[to])));
    none(
        strange
            .map(|(from, to, line)| format!("src/{}:{line} uses src/{}", files[from].path, files[to].path))
            .collect(),
    );
}

/// Types that are defined in the source: (kind, name, file, body).
fn types(files: &[File]) -> Vec<(&'static str, String, String, String)> {
    let mut found = Vec::new();
    for file in files {
        for kind in ["enum", "struct", "trait"] {
            for line in file.code.match_indices(&format!("{kind} ")) {
                let start = file.code[..line.0].rfind('\n').map_or(0, |at| at + 1);
                let before = file.code[start..line.0].trim_start();
                if !["", "pub ", "pub(crate) ", "pub(super) "].contains(&before) {
                    continue;
                }
                let rest = &file.code[line.0 + kind.len() + 1..];
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // A macro gives such a type its name.
                if name.is_empty() {
                    continue;
                }
                let body =
                    rest.split_once('{').and_then(|(_, body)| body.split_once("\n}")).map_or("", |(body, _)| body);
                found.push((kind, name, file.path.clone(), body.to_owned()));
            }
        }
    }
    assert!(found.len() > 200, "{} types", found.len());
    found
}

#[test]
fn rule_6_a_name_is_one_type_and_a_choice_one_enum() {
    let types = types(&source());
    let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut choices: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    for (kind, name, path, body) in &types {
        homes.entry(name).or_default().push(format!("src/{path}"));
        let variants: Vec<&str> = body.lines().map(str::trim).filter_map(|line| line.strip_suffix(',')).collect();
        if *kind == "enum" && variants.len() > 1 {
            choices.entry(variants).or_default().push(format!("{name} in src/{path}"));
        }
    }
    let twice = |homes: &Vec<String>| homes.len() > 1;
    let names =
        homes.iter().filter(|(_, homes)| twice(homes)).map(|(name, homes)| format!("{name}: {}", homes.join(", ")));
    let same =
        choices.values().filter(|homes| twice(homes)).map(|homes| format!("the same choice: {}", homes.join(", ")));
    none(names.chain(same).collect());
}

#[test]
fn rule_7_evaluation_returns_plain_figures() {
    let files = source();
    let elsewhere: Vec<&str> =
        files.iter().map(|file| file.path.as_str()).filter(|path| !path.starts_with("evaluation/")).collect();
    let banned = ["crate::display", "println!", "csv::", "std::fs", "crate::system::files"];
    none(lines_outside(&files, &elsewhere, code, |line| banned.iter().any(|word| line.contains(word))));
}

#[test]
fn rule_8_the_catalogue_names_the_files_of_a_results_folder() {
    let files = source();
    let catalogue = files.iter().find(|file| file.path == "results/catalogue.rs").expect("the catalogue");
    let names: Vec<String> = catalogue
        .text
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains('.') && !name.contains([' ', '/', '{', '\\']) && name.len() > 5)
        .map(|name| format!("\"{name}\""))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    none(lines_outside(&files, &["results/catalogue.rs"], text, |line| names.iter().any(|name| line.contains(name))));
}

#[test]
fn rule_9_random_streams_have_one_home() {
    let makes = ["seed_from_u64", "set_stream", "from_seed", "from_rng", "Philox4x32", "PhiloxRng::", "rand_philox::"];
    none(lines_outside(&source(), &["numerics/random.rs"], code, |line| makes.iter().any(|word| line.contains(word))));
}

#[test]
fn rule_10_one_home_decides_whether_a_mask_is_on() {
    let decides = |line: &str| {
        let half = ["> 0.5", ">= 0.5", "> R::HALF", "> HALF", "from_f64(0.5)", "of(0.5)"]
            .iter()
            .any(|half| line.contains(half));
        half && ["mask", "probab", " p "].iter().any(|word| line.to_lowercase().contains(word))
    };
    none(lines_outside(&source(), &["model/prior/"], code, decides));
}

#[test]
fn rule_11_a_command_is_a_file_and_the_run_a_page() {
    let files = source();
    let names = |folder: &str| -> BTreeSet<String> {
        let below = files.iter().filter_map(|file| file.path.strip_prefix(folder));
        below.map(|path| path.split('/').next().expect("a name").trim_end_matches(".rs").to_owned()).collect()
    };
    let arguments = names("cli/");
    let subcommands = files.iter().find(|file| file.path == "cli/arguments.rs").expect("the command line");
    let declared = subcommands.code.split("enum Command {").nth(1).expect("the subcommands");
    let commands = names("commands/");
    let mut faults = Vec::new();
    for line in declared.lines().take_while(|line| *line != "}") {
        let Some((name, _)) = line.trim().split_once('(') else { continue };
        if !name.starts_with(char::is_uppercase) {
            continue;
        }
        let snake: String = name
            .chars()
            .enumerate()
            .flat_map(|(i, c)| (i > 0 && c.is_uppercase()).then_some('_').into_iter().chain(c.to_lowercase()))
            .collect();
        // Completions and manual pages are of the command line itself.
        if !["completions", "man"].contains(&snake.as_str()) {
            for (folder, names) in [("cli", &arguments), ("commands", &commands)] {
                if !names.contains(&snake) {
                    faults.push(format!("src/{folder} has no file for `svae-cpu {}`", snake.replace('_', "-")));
                }
            }
        }
    }
    let page = fs::read_to_string(root().join("src/commands/run.rs")).expect("the run");
    if page.lines().count() >= 150 {
        faults.push(format!("src/commands/run.rs has {} lines", page.lines().count()));
    }
    none(faults);
}

#[test]
fn the_map_shows_the_layers_in_their_order() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("the map");
    let table = map.split("## Layers").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the layers");
    let places: Vec<Option<usize>> = LAYERS
        .iter()
        .map(|layer| [format!("src/{layer}.rs`"), format!("src/{layer}/`")].iter().find_map(|name| table.find(name)))
        .collect();
    let missing = LAYERS
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none())
        .map(|(layer, _)| format!("{layer} is not on the map"));
    let order = places
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] > pair[1])
        .map(|(i, _)| format!("{} stands above {} on the map", LAYERS[i + 1], LAYERS[i]));
    none(missing.chain(order).collect());
}
