//! Numbers, times and names as they stand in sentences.

use std::path::Path;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// A whole number with its thousands separated: 12,345.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in percent, with one decimal where that says more: 5 %, 12.5 %.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// Cells per second, rounded to three digits or so.
pub fn rate(value: f64) -> String {
    if value.is_finite() && value >= 0.0 { grouped(value.round() as u64) } else { "-".to_owned() }
}

/// A duration for people: 0.52 s, 12.3 s, 4 min 05 s, 2 h 03 min.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "-".to_owned();
    }
    let whole = value.round() as u64;
    match whole {
        0..10 => format!("{value:.2} s"),
        10..60 => format!("{value:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A path as a shell reads it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// At most a dozen names, for a message.
pub fn first_few<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 12;
    if names.is_empty() {
        return "nothing".to_string();
    }
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// The candidate nearest to `name`, if one is near enough to be meant (Jaro similarity above 0.7, as for flags).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro(&name, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Names of a list that was cut at commas: pieces that make a known name together are that name, the longest one first; other
/// pieces are names without the blanks around them. Empty ones are none, and each comes once.
pub fn rejoined(pieces: &[String], is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut from = 0;
    while from < pieces.len() {
        // No name has more pieces than the list, and few have many.
        let most = pieces.len().min(from + MOST_PIECES);
        let whole = (from + 1..=most).rev().find_map(|to| {
            let joined = pieces[from..to].join(",");
            let found = [joined.as_str(), joined.trim()].into_iter().find(|name| is_known(name))?.to_owned();
            Some((to, found))
        });
        let (to, name) = whole.unwrap_or_else(|| (from + 1, pieces[from].trim().to_owned()));
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        from = to;
    }
    names
}

/// Most commas in a name, and one more.
const MOST_PIECES: usize = 32;

/// Whether a name has the form of a pattern, in which `*` stands for anything: `non-targeting*`.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A time in UTC as RFC 3339 writes it, to the millisecond.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days from the first of March of the year 0, in which leap days come last (the Gregorian calendar repeats after 146,097).
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (400 * era + year_of_era, month + 3),
        _ => (400 * era + year_of_era + 1, month - 9),
    };
    let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lists_that_were_cut_are_whole_again() {
        let cut = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let known = ["[('A', 0.0, 'uM')]", "[('B', 0.0, 'uM')]", "x", "x,y"];
        let names = |text: &str| rejoined(&cut(text), |name| known.contains(&name));
        assert_eq!(names("[('A', 0.0, 'uM')],[('B', 0.0, 'uM')]"), [known[0], known[1]]);
        assert_eq!(names("x, [('B', 0.0, 'uM')],new , x,,"), ["x", known[1], "new"]);
        assert_eq!(names("x,y"), ["x,y"]);
    }

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, fit) in [
            ("non-targeting*", "non-targeting_00001", true),
            ("non-targeting*", "non-target", false),
            ("*ctrl*", "A_ctrl_1", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("ab*ba", "aba", false),
            ("ab", "ab", true),
            ("ab", "abc", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        assert!(timestamp(UNIX_EPOCH + Duration::from_millis(1_234)).ends_with("01.234Z"));
    }
}
