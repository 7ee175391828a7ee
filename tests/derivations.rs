//! The derivations and the code that cites them: every cited equation exists, every page names a test that exists.
//!
//! The conventions are stated in `derivations/README.md`. This file quotes citations as examples and is not searched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` whose names end in `ending`, with their text, sorted by path.
fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().is_some_and(|name| name.ends_with(ending)) {
                found.push((path.clone(), fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<(PathBuf, String)> {
    files(&root().join("derivations"), ".md")
}

/// The page without code: fenced blocks (except those of mathematics) and text between backticks.
fn without_code(page: &str) -> String {
    let mut text = String::new();
    let mut fence: Option<bool> = None;
    for line in page.lines() {
        let trimmed = line.trim_start();
        if let Some(info) = trimmed.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(info.trim() == "math"),
            };
            text.push('\n');
            continue;
        }
        match fence {
            Some(false) => {}
            Some(true) => text.push_str(line),
            None => {
                for (i, part) in line.split('`').enumerate() {
                    if i % 2 == 0 {
                        text.push_str(part);
                    }
                }
            }
        }
        text.push('\n');
    }
    text
}

/// Whether `name` is a tag: one or two letters, the first a capital, then a number.
fn is_tag(name: &str) -> bool {
    split_tag(name).is_some()
}

/// A tag's letters and number.
fn split_tag(name: &str) -> Option<(&str, u32)> {
    let digits = name.find(|c: char| c.is_ascii_digit())?;
    let (letters, number) = name.split_at(digits);
    let plain = (1..=2).contains(&letters.len())
        && letters.starts_with(|c: char| c.is_ascii_uppercase())
        && letters.chars().all(|c| c.is_ascii_alphabetic())
        && number.bytes().all(|b| b.is_ascii_digit());
    if plain { Some((letters, number.parse().ok()?)) } else { None }
}

/// The names in `\tag{...}`.
fn tags(page: &str) -> Vec<String> {
    page.split("\\tag{").skip(1).map(|rest| rest.split('}').next().unwrap_or("").to_owned()).collect()
}

/// The text of a source file with comment markers and line breaks taken out, so that a citation may be wrapped.
fn joined(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        let line = line.trim_start();
        let comment = ["///", "//!", "//"].iter().find_map(|marker| line.strip_prefix(marker)).unwrap_or(line);
        text.push_str(comment.trim());
        text.push(' ');
    }
    text
}

/// Names cited as `Eq. (N3)`, `Eqs. (N3)-(N5)` or `Eqs. (N3), (N4) and (N7)`; a range counts as all it spans.
///
/// Anything else in the parentheses is returned as it stands, to be reported as no tag.
fn citations(text: &str) -> Vec<String> {
    let mut cited = Vec::new();
    for (start, word) in text.match_indices("Eq. (").chain(text.match_indices("Eqs. (")) {
        let mut rest = &text[start + word.len() - 1..];
        let mut range_from: Option<String> = None;
        while let Some(inside) = rest.strip_prefix('(') {
            let Some((name, after)) = inside.split_once(')') else { break };
            let name = name.trim().to_owned();
            match range_from.take() {
                Some(first) => match (split_tag(&first), split_tag(&name)) {
                    (Some((letters, low)), Some((same, high))) if letters == same && low < high => {
                        cited.extend((low + 1..=high).map(|number| format!("{letters}{number}")));
                    }
                    _ => cited.push(format!("{first}-{name}")),
                },
                None => cited.push(name.clone()),
            }
            rest = after;
            for (separator, is_range) in
                [(" to ", true), ("-", true), ("–", true), (", and ", false), (" and ", false), (", ", false)]
            {
                if let Some(next) = rest.strip_prefix(separator)
                    && next.trim_start().starts_with('(')
                {
                    rest = next.trim_start();
                    range_from = is_range.then(|| name.clone());
                    break;
                }
            }
        }
    }
    cited
}

/// Tests named between backticks, as (file, function): `tests/gradients.rs::decoder`, `src/a.rs::tests::b`.
fn named_tests(page: &str) -> Vec<(String, String)> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| {
            let (file, path) = code.split_once(".rs::")?;
            let function = path.rsplit("::").next()?;
            (file.starts_with("tests/") || file.starts_with("src/"))
                .then(|| (format!("{file}.rs"), function.to_owned()))
        })
        .collect()
}

/// Whether `source` has a test function of that name which is not ignored.
fn has_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let opening = format!("fn {function}(");
    lines.iter().enumerate().any(|(i, line)| {
        line.starts_with(&opening) && {
            let attributes: Vec<&&str> =
                lines[..i].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
            attributes.iter().any(|line| **line == "#[test]")
                && !attributes.iter().any(|line| line.starts_with("#[ignore"))
        }
    })
}

/// What is wrong with the dollar signs of a page, if anything: each `$$` and each `$` must be closed, the latter within
/// its paragraph.
fn unbalanced(page: &str) -> Option<String> {
    let text = without_code(page).replace("\\$", "");
    let mut display: Option<usize> = None;
    let mut inline: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty()
            && let Some(start) = inline
        {
            return Some(format!("a $ opened in line {} is not closed in its paragraph", start + 1));
        }
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            let double = rest[at..].starts_with("$$");
            match (double, display, inline) {
                (true, Some(_), _) => display = None,
                (true, None, None) => display = Some(number),
                (false, None, Some(_)) => inline = None,
                (false, None, None) => inline = Some(number),
                (true, None, Some(_)) | (false, Some(_), _) => {
                    return Some(format!("line {} mixes $ and $$", number + 1));
                }
            }
            rest = &rest[at + if double { 2 } else { 1 }..];
        }
    }
    display.or(inline).map(|start| format!("a dollar sign opened in line {} is never closed", start + 1))
}

/// Where each tag is defined, page by page; fails on a name that is no tag or is used twice.
fn defined() -> BTreeMap<String, PathBuf> {
    let mut defined = BTreeMap::new();
    let mut letters: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in pages() {
        for tag in tags(&without_code(&text)) {
            let Some((prefix, _)) = split_tag(&tag) else {
                panic!("{}: \\tag{{{tag}}} is not one or two letters and a number", path.display());
            };
            let owner = letters.entry(prefix.to_owned()).or_insert_with(|| path.clone());
            assert_eq!(*owner, path, "the letters {prefix} are used by two pages");
            if let Some(other) = defined.insert(tag.clone(), path.clone()) {
                panic!("{tag} is defined twice, in {} and {}", other.display(), path.display());
            }
        }
    }
    defined
}

#[test]
fn every_cited_equation_exists() {
    let defined = defined();
    assert!(!defined.is_empty(), "no page under derivations/ numbers an equation");
    let this_file = root().join("tests/derivations.rs");
    let mut n_cited_by_code = 0;
    let mut missing = Vec::new();
    let mut check = |path: &Path, text: &str, is_code: bool| {
        for tag in citations(text) {
            n_cited_by_code += usize::from(is_code);
            if !is_tag(&tag) {
                missing.push(format!("{}: Eq. ({tag}) is not a tag", path.display()));
            } else if !defined.contains_key(&tag) {
                missing.push(format!("{}: Eq. ({tag}) does not exist", path.display()));
            }
        }
    };
    for folder in ["src", "tests", "benches"] {
        if !root().join(folder).exists() {
            continue;
        }
        for (path, text) in files(&root().join(folder), ".rs") {
            if path != this_file {
                check(&path, &joined(&text), true);
            }
        }
    }
    for (path, text) in pages() {
        check(&path, &joined(&without_code(&text)), false);
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(n_cited_by_code > 0, "no source file cites an equation");
}

#[test]
fn every_page_names_a_test_that_exists() {
    let pages = pages();
    assert!(!pages.is_empty(), "there is no page under derivations/");
    for (path, text) in pages {
        let tests = named_tests(&text);
        assert!(!tests.is_empty(), "{} names no test that checks it", path.display());
        for (file, function) in tests {
            let source = fs::read_to_string(root().join(&file))
                .unwrap_or_else(|error| panic!("{} names {file}: {error}", path.display()));
            assert!(has_test(&source, &function), "{} names {file}::{function}, which is no test", path.display());
        }
    }
}

#[test]
fn the_mathematics_of_every_page_is_closed() {
    for (path, text) in pages() {
        if let Some(fault) = unbalanced(&text) {
            panic!("{}: {fault}", path.display());
        }
    }
}

#[test]
fn citations_are_recognised_in_every_form() {
    let cited = |text: &str| citations(&joined(text)).join(" ");
    assert_eq!(cited("// as in Eq. (N3)."), "N3");
    assert_eq!(cited("/// Eqs. (N3)-(N5)"), "N3 N4 N5");
    assert_eq!(cited("/// Eqs. (N3) to (N4)"), "N3 N4");
    assert_eq!(cited("/// Eqs. (N3), (N4) and (La12)"), "N3 N4 La12");
    assert_eq!(cited("    /// Eqs. (N3),\n    /// (N4)"), "N3 N4");
    assert_eq!(cited("let y = x; // Eq. (B1), then Eq. (B2)"), "B1 B2");
    assert_eq!(cited("// Eqs. (N5)-(N3)"), "N5 N5-N3");
    assert_eq!(cited("// Eq. (3)"), "3");
    assert!(!is_tag("3") && !is_tag("n3") && !is_tag("N") && !is_tag("N3-N4") && is_tag("N3") && is_tag("La12"));
}

#[test]
fn tests_are_recognised() {
    let page = "Checked by `tests/a.rs::one` and `src/b.rs::tests::two`; see `faer`.";
    let named = named_tests(page);
    assert_eq!(named, [("tests/a.rs".into(), "one".into()), ("src/b.rs".into(), "two".into())]);
    let source = "#[test]\nfn one() {}\nfn helper() {}\n    #[test]\n    // why\n    fn two(x in 0..3) {}\n\
                  #[test]\n#[ignore]\nfn three() {}\n// fn four(\n";
    assert!(has_test(source, "one") && has_test(source, "two"));
    for name in ["helper", "three", "four", "on", "five"] {
        assert!(!has_test(source, name), "{name}");
    }
}

#[test]
fn dollar_signs_are_counted() {
    for good in ["$x$ and $$y$$", "$$\ny \\tag{N1}\n$$\n", "`$` costs \\$3", "```\n$\n```\n", "$x$ then $y$", "$a\nb$"]
    {
        assert_eq!(unbalanced(good), None, "{good}");
    }
    for bad in ["$x", "$$x$", "$x$$", "$x\n\ny$", "$$\nx\n", "```math\n$\n```"] {
        assert!(unbalanced(bad).is_some(), "{bad}");
    }
    assert_eq!(
        tags(&without_code("$$x \\tag{N1}$$ and `\\tag{N2}`\n```\n\\tag{N3}\n```\n```math\n\\tag{N4}\n```")),
        ["N1", "N4"]
    );
}
