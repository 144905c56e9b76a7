//! Command lines as a user can paste them into a shell.

use std::ffi::OsStr;
use std::process::Command;

/// One word, quoted if a shell would change it.
pub fn word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    // Without the comma and the equals sign that libraries quote too: QEMU's arguments are full of them.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Words joined by spaces.
pub fn words<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|w| word(w.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A whole command.
pub(crate) fn command(command: &Command) -> String {
    words(std::iter::once(command.get_program()).chain(command.get_args()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_gets_them() {
        assert_eq!(words(["qemu", "-m", "512M"]), "qemu -m 512M");
        assert_eq!(words(["-append", "console=ttyS0 quiet"]), "-append 'console=ttyS0 quiet'");
        assert_eq!(words(["a'b", "", "$x"]), r"'a'\''b' '' '$x'");
    }
}
