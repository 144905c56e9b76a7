//! The end of a log file, for error messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// As much of a log as a reader of an error message can take.
const MOST_BYTES: u64 = 8 * 1024;
const MOST_LINES: usize = 60;

/// The last lines of a file, without what only a terminal understands. A file that cannot be read is named.
pub(crate) fn of(path: &Path) -> String {
    match read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes)),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(text: &str) -> String {
    let plain: String =
        strip_escapes(text).chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
    let lines: Vec<_> = plain.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].join("\n")
}

/// Drops terminal control sequences (ESC, then `[`, parameters and one letter).
fn strip_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\x1b' {
            plain.push(c);
        } else if rest.next_if_eq(&'[').is_some() {
            while rest.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            rest.next();
        } else {
            rest.next();
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readable_text_is_left() {
        assert_eq!(
            last_lines("\x1b[2J\x1bcSeaBIOS\r\n\r\n[ 0.1] \x1b[1;31mpanic\x1b[0m\n"),
            "SeaBIOS\n[ 0.1] panic"
        );
    }

    #[test]
    fn long_logs_are_cut_at_the_front() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let tail = last_lines(&text);
        assert_eq!(tail.lines().count(), MOST_LINES);
        assert!(tail.starts_with("line 40\n") && tail.ends_with("line 99"));
    }

    #[test]
    fn a_missing_log_is_said() {
        assert!(of(Path::new("/nonexistent/log")).contains("cannot read"));
    }
}
