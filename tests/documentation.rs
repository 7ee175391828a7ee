//! The pages for readers: every link and every path that they quote leads somewhere, and the README stays short.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of the README.
const README_LINES: usize = 150;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page for readers, as (path below the root, text).
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<String> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).to_vec();
    for folder in ["docs", "derivations", "tests/formats", "tests/golden"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of pages") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            if name.ends_with(".md") {
                paths.push(format!("{folder}/{name}"));
            }
        }
    }
    paths.sort();
    let text = |path: &String| fs::read_to_string(root().join(path)).expect("UTF-8");
    paths.iter().map(|path| (path.clone(), text(path))).collect()
}

/// The page without its fenced and indented blocks of code.
fn without_blocks(page: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// What stands between backticks in the prose of a page.
fn code(page: &str) -> Vec<String> {
    let prose = without_blocks(page);
    let of_paragraph = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    prose.split("\n\n").flat_map(of_paragraph).collect()
}

/// Targets of the links of a page, `[text](target)`, those in code left out.
fn links(page: &str) -> Vec<String> {
    let prose = without_blocks(page);
    // What stands between backticks is replaced, not removed: `[`code`](target)` is a link too.
    let mut text = String::new();
    for paragraph in prose.split("\n\n") {
        for (i, part) in paragraph.split('`').enumerate() {
            text.push_str(if i % 2 == 0 { part } else { "code" });
        }
        text.push('\n');
    }
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// What is wrong with a link of the page at `from`, if anything.
fn fault(from: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, section) = link.split_once('#').map_or((link, None), |(path, section)| (path, Some(section)));
    let page = root().join(from);
    let target = if path.is_empty() { page } else { page.parent().expect("a folder").join(path) };
    if !target.exists() {
        return Some(format!("{from}: {link} does not exist"));
    }
    let section = section?;
    let text = fs::read_to_string(&target).expect("a page");
    let known = without_blocks(&text).lines().any(|line| line.starts_with('#') && anchor(line) == section);
    (!known).then(|| format!("{from}: {link} names a section that does not exist"))
}

/// What is wrong with a path between backticks, if anything: `src/a.rs`, `tests/a.rs::b`, `docs/`.
fn path_fault(from: &str, code: &str) -> Option<String> {
    let folders = ["src/", "tests/", "benches/", "derivations/", "docs/", "python/"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if !folders.iter().any(|folder| code.starts_with(folder)) || !code.chars().all(plain) {
        return None;
    }
    let (path, item) = code.split_once("::").map_or((code, None), |(path, item)| (path, item.rsplit("::").next()));
    let file: &Path = &root().join(path);
    if !file.exists() {
        return Some(format!("{from}: {path} does not exist"));
    }
    let item = item?;
    let text = fs::read_to_string(file).expect("a source file");
    let defined = text.contains(&format!("fn {item}(")) || text.contains(&format!("fn {item}<"));
    (!defined).then(|| format!("{from}: {path} has no function {item}"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut n_links = 0;
    let mut faults = Vec::new();
    for (path, text) in pages() {
        let links = links(&text);
        n_links += links.len();
        faults.extend(links.iter().filter_map(|link| fault(&path, link)));
    }
    assert!(n_links > 100, "only {n_links} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_path_that_a_page_quotes_exists() {
    let mut faults = Vec::new();
    for (path, text) in pages() {
        faults.extend(code(&text).iter().filter_map(|code| path_fault(&path, code)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let index = fs::read_to_string(root().join("docs/README.md")).expect("the index");
    for (path, _) in pages() {
        if let Some(name) = path.strip_prefix("docs/").filter(|name| *name != "README.md") {
            assert!(links(&index).iter().any(|link| link == name), "docs/README.md does not name {name}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    let n_lines = fs::read_to_string(root().join("README.md")).expect("the README").lines().count();
    assert!(n_lines <= README_LINES, "README.md has {n_lines} lines; move what a newcomer does not need to docs/");
}

#[test]
fn dead_links_and_paths_are_noticed() {
    let page =
        "See [a](docs/nowhere.md), [`b`](README.md) and\n[c d](docs/README.md#nowhere).\n\n    [no](link)\n\n`[no](x)`";
    assert_eq!(links(page), ["docs/nowhere.md", "README.md", "docs/README.md#nowhere"]);
    let faults: Vec<bool> = links(page).iter().map(|link| fault("README.md", link).is_some()).collect();
    assert_eq!(faults, [true, false, true]);
    assert_eq!(anchor("## `metrics.json`, and more: 1 to 2"), "metricsjson-and-more-1-to-2");
    let file = "tests/documentation.rs";
    for (code, wrong) in [
        (file.to_owned(), false),
        (format!("{file}::anchor"), false),
        (format!("{file}::nowhere"), true),
        ("src/nowhere.rs".to_owned(), true),
        ("src/a file with spaces".to_owned(), false),
        ("first/report.html".to_owned(), false),
    ] {
        assert_eq!(path_fault("README.md", &code).is_some(), wrong, "{code}");
    }
}
