//! Which Debian mirror to use.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// The mirror: `$VIANIC_DEBIAN_MIRROR`, else the one this machine's own packages come from.
pub(crate) fn find() -> Result<String> {
    if let Some(mirror) = env::var("VIANIC_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files.iter().find_map(|path| in_file(path, &fs::read_to_string(path).ok()?)).ok_or(Error::NoMirror)
}

/// The first mirror of the Debian archive that a sources file names.
fn in_file(path: &Path, text: &str) -> Option<String> {
    match path.extension()?.to_str()? {
        "list" => text.lines().find_map(in_line),
        "sources" => stanzas(text).find_map(|stanza| in_stanza(&stanza)),
        _ => None,
    }
}

/// One-line format: `deb [options] URI suite component...`.
fn in_line(line: &str) -> Option<String> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    let line = line.strip_prefix(char::is_whitespace)?.trim_start();
    let line = match line.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => line,
    };
    let mut words = line.split_whitespace();
    let uri = words.next()?;
    let suite = words.next()?;
    archive(uri, &[suite], &words.collect::<Vec<_>>())
}

/// Deb822 format: stanzas of `Field: value`, with continuation lines.
fn in_stanza(stanza: &[(String, String)]) -> Option<String> {
    let field = |name: &str| {
        let value = stanza.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        value.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    if !field("Types").contains(&"deb") || field("Enabled").iter().any(|word| is_no(word)) {
        return None;
    }
    field("URIs").iter().find_map(|uri| archive(uri, &field("Suites"), &field("Components")))
}

fn is_no(word: &str) -> bool {
    ["no", "false", "0", "off", "without", "disable"].iter().any(|no| word.eq_ignore_ascii_case(no))
}

fn stanzas(text: &str) -> impl Iterator<Item = Vec<(String, String)>> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![vec![]];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(vec![]);
        } else if let Some(stanza) = stanzas.last_mut() {
            if line.starts_with(char::is_whitespace) {
                if let Some((_, value)) = stanza.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                stanza.push((name.trim().to_string(), value.trim().to_string()));
            }
        }
    }
    stanzas.into_iter()
}

/// The URI, if it serves a main suite of the Debian archive: not one for security updates only, nor another
/// distribution's or vendor's.
fn archive(uri: &str, suites: &[&str], components: &[&str]) -> Option<String> {
    const SUITES: [&str; 8] =
        ["bullseye", "bookworm", "trixie", "forky", "sid", "unstable", "testing", "stable"];
    let uri = uri.trim_end_matches('/');
    let fetched = ["http:", "https:", "mirror", "file:", "copy:"].iter().any(|kind| uri.starts_with(kind));
    let named = uri.split('/').skip(3).any(|part| part.starts_with("debian") && !part.contains("security"));
    let main = components.contains(&"main") && suites.iter().any(|suite| SUITES.contains(suite));
    (fetched && named && main).then(|| uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<String> {
        in_file(Path::new("/etc/apt/sources.list"), text)
    }

    fn sources(text: &str) -> Option<String> {
        in_file(Path::new("/etc/apt/sources.list.d/debian.sources"), text)
    }

    #[test]
    fn one_line_sources() {
        let text = "# deb http://commented.example/debian bookworm main\n\
                    deb-src http://source.example/debian bookworm main\n\
                    deb http://security.example/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://vendor.example/apt stable-tools main\n\
                    deb https://vendor.example/browser/deb stable main\n\
                    deb [ arch=amd64 ] http://mirror.example/debian/ bookworm main contrib # ours\n";
        assert_eq!(list(text).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(list("deb http://mirror.example/debian bookworm-backports main"), None);
        assert_eq!(list("deb cdrom:[disk]/ bookworm main"), None);
        assert_eq!(list("deb\n\ndeb x\n"), None);
    }

    #[test]
    fn deb822_sources() {
        let text = "Types: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n\
                    Types: deb\nURIs: http://sec.example/debian-security\nSuites: trixie-security\n\
                    Components: main\n\n\
                    # ours\nTypes: deb deb-src\n# more\nURIs:\n http://mirror.example/debian\n\
                    Suites: trixie trixie-updates\nComponents: main\n non-free\nSigned-By: /k.gpg\n";
        assert_eq!(sources(text).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(sources(""), None);
        assert_eq!(sources("Types: deb\nURIs: http://x.example/debian\n"), None);
    }

    #[test]
    fn other_files_are_not_sources() {
        let text = "deb http://mirror.example/debian bookworm main";
        assert_eq!(in_file(Path::new("x.list.disabled"), text), None);
        assert_eq!(in_file(Path::new("x.sources.bak"), text), None);
    }
}
