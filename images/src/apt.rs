//! Debian packages without installing them, and without root.
//!
//! apt works on a state of its own in the cache: own sources, and an empty list of installed packages, so
//! that "install" resolves the whole closure. The packages are then only unpacked; none of their scripts run.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    Progress,
    cache::Cache,
    command,
    error::{At, Error, Result},
    mirror,
    stamp::Stamp,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const NEEDS_APT: &str = " (packages come from Debian: apt-get, apt-config and dpkg-deb are needed)";

/// What nobody reads in a cache; tens of thousands of small files.
const LEFT_OUT: [&str; 5] =
    ["./usr/share/doc", "./usr/share/man", "./usr/share/info", "./usr/share/locale", "./usr/share/lintian"];

/// A suite of the Debian archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
    /// Newer packages for Debian 13.
    TrixieBackports,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
        }
    }
}

/// Packages and all they depend on.
#[derive(Clone, Debug)]
pub struct Closure {
    /// Where packages may come from.
    pub suites: Vec<Suite>,
    /// The suite that is preferred, whatever versions the others have.
    pub default_release: Suite,
    /// The packages wanted.
    pub packages: Vec<String>,
}

impl Closure {
    /// Unpacks the packages and what they depend on into one tree, as the artifact `name`. What is there
    /// already is returned without any use of the network.
    ///
    /// # Errors
    /// If there is no mirror, the packages can't be had, or the cache can't be written.
    pub fn unpack(&self, cache: &Cache, name: &str, progress: Progress<'_>) -> Result<PathBuf> {
        cache.artifact(name, self.stamp(), |folder| {
            let archive = Archive::open(cache, self)?;
            let packages = archive.download(&self.packages, progress)?;
            progress(&format!("unpacking {} packages ({name})", packages.len()));
            make_usrmerge(folder)?;
            for package in &packages {
                unpack(package, folder, &[])?;
            }
            Ok(())
        })
    }

    fn stamp(&self) -> Stamp {
        let suites = self.suites.iter().collect::<BTreeSet<_>>();
        let stamp = Stamp::new().text("packages 1").text(self.default_release.name());
        let stamp = suites.iter().fold(stamp, |stamp, suite| stamp.text(suite.name())).text("packages");
        self.packages.iter().fold(stamp, |stamp, package| stamp.text(package))
    }
}

/// The Debian archive, through a state of apt in the cache. One process uses it at a time.
pub(crate) struct Archive {
    suites: BTreeSet<Suite>,
    state: PathBuf,
    /// Lists of packages, which all states share.
    lists: PathBuf,
    _lock: File,
}

impl Archive {
    /// The archive as a closure sees it; its list of packages isn't consulted.
    pub(crate) fn open(cache: &Cache, closure: &Closure) -> Result<Self> {
        let suites: BTreeSet<_> = closure.suites.iter().copied().chain([closure.default_release]).collect();
        let names = suites.iter().map(|suite| suite.name()).collect::<Vec<_>>();
        let name = format!("{}-from-{}", closure.default_release.name(), names.join("-"));
        let lock = cache.lock("apt")?;
        let state = cache.folder(&format!("apt/{name}"))?;
        let lists = cache.folder("apt/lists")?;
        let archive = Self { suites, state, lists, _lock: lock };
        archive.configure(&names, closure.default_release)?;
        Ok(archive)
    }

    fn configure(&self, suites: &[&str], default_release: Suite) -> Result<()> {
        for path in [self.lists.join("partial"), self.state.join("archives/partial")] {
            fs::create_dir_all(&path).at(path)?;
        }
        if !Path::new(KEYRING).exists() {
            return Err(Error::NoKeyring(KEYRING.into()));
        }
        let mirror = mirror::find()?;
        let sources = suites
            .iter()
            .map(|suite| format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect::<String>();
        // A proxy and the like are this machine's business; hooks and sources aren't wanted.
        let host = command::run(Command::new("apt-config").arg("dump"), NEEDS_APT)?;
        let mut config = host
            .lines()
            .filter(|line| line.starts_with("Acquire::"))
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        let state = self.state.display();
        for (key, value) in [
            ("Dir::Etc::main", "/dev/null"),
            ("Dir::Etc::parts", "/dev/null"),
            ("Dir::Etc::sourcelist", &format!("{state}/sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null"),
            ("Dir::Etc::preferences", "/dev/null"),
            ("Dir::Etc::preferencesparts", "/dev/null"),
            ("Dir::Etc::netrc", "/etc/apt/auth.conf"),
            ("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d"),
            ("Dir::State", &format!("{state}")),
            ("Dir::State::lists", &self.lists.display().to_string()),
            ("Dir::State::status", &format!("{state}/status")),
            ("Dir::Cache", &format!("{state}")),
            ("Dir::Cache::archives", &format!("{state}/archives")),
            ("Dir::Log", &format!("{state}")),
            ("APT::Architecture", "amd64"),
            ("APT::Architectures", "amd64"),
            ("APT::Default-Release", default_release.name()),
            ("APT::Install-Recommends", "false"),
            ("APT::Install-Suggests", "false"),
            ("APT::Get::Assume-Yes", "true"),
            ("APT::Get::List-Cleanup", "false"),
            // The state belongs to the user who runs this, and to nobody else.
            ("APT::Sandbox::User", ""),
            ("Acquire::Languages", "none"),
            ("Acquire::GzipIndexes", "true"),
            ("Acquire::Retries", "3"),
        ] {
            config.push_str(&format!("{key} \"{value}\";\n"));
        }
        for (file, content) in [("sources.list", sources), ("apt.conf", config), ("status", String::new())] {
            let path = self.state.join(file);
            fs::write(&path, content).at(path)?;
        }
        Ok(())
    }

    /// Downloads the packages and what they depend on.
    pub(crate) fn download(&self, packages: &[String], progress: Progress<'_>) -> Result<Vec<PathBuf>> {
        self.retried(progress, || {
            let found = self.resolve(packages)?;
            let bytes = found.iter().map(|package| package.size).sum::<u64>();
            progress(&format!("downloading {} packages, {} MB", found.len(), bytes.div_ceil(1_000_000)));
            self.apt_get(&["--quiet=2", "--download-only", "install"], packages)?;
            found
                .iter()
                .map(|package| {
                    let path = self.state.join("archives").join(&package.file);
                    if path.exists() {
                        return Ok(path);
                    }
                    Err(Error::Missing { what: package.file.clone(), place: self.state.join("archives") })
                })
                .collect()
        })
    }

    /// Downloads one package of the closure of `from` without what it depends on: the one whose name has the
    /// first of the `prefixes` that any has, with a number after it.
    pub(crate) fn download_one(
        &self,
        from: &str,
        prefixes: &[&str],
        folder: &Path,
        progress: Progress<'_>,
    ) -> Result<PathBuf> {
        self.retried(progress, || {
            let found = self.resolve(&[from.to_string()])?;
            let missing =
                || Error::Missing { what: format!("the package behind {from}"), place: self.state.clone() };
            let named = |package: &&Package, prefix: &str| {
                let rest = package.name().strip_prefix(prefix);
                rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            };
            let package = prefixes
                .iter()
                .find_map(|prefix| found.iter().find(|package| named(package, prefix)))
                .ok_or_else(missing)?;
            progress(&format!("downloading {}, {} MB", package.name(), package.size.div_ceil(1_000_000)));
            command::run(
                self.program("apt-get").current_dir(folder).args(["--quiet=2", "download", package.name()]),
                NEEDS_APT,
            )?;
            Ok(folder.join(&package.file))
        })
    }

    /// The closure of the packages, as apt names it.
    fn resolve(&self, packages: &[String]) -> Result<Vec<Package>> {
        let output = self.apt_get(&["--quiet=2", "--print-uris", "install"], packages)?;
        Ok(output.lines().filter_map(Package::parse).collect())
    }

    /// The lists of packages are fetched if there are none; and again if they turn out to be out of date.
    fn retried<T>(&self, progress: Progress<'_>, work: impl Fn() -> Result<T>) -> Result<T> {
        let lists = fs::read_dir(&self.lists).at(&self.lists)?;
        let lists = lists.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let lists = lists.filter(|list| list.contains("_Packages")).collect::<Vec<_>>();
        let of = |suite: &Suite| format!("_dists_{}_main_", suite.name());
        let fetched = self.suites.iter().all(|suite| lists.iter().any(|list| list.contains(&of(suite))));
        if fetched && let Ok(done) = work() {
            return Ok(done);
        }
        progress("fetching Debian's lists of packages");
        self.apt_get(&["--quiet=2", "--error-on=any", "update"], &[])?;
        work()
    }

    fn apt_get(&self, options: &[&str], packages: &[String]) -> Result<String> {
        command::run(self.program("apt-get").args(options).args(packages), NEEDS_APT)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("APT_CONFIG", self.state.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

impl Drop for Archive {
    /// Packages are unpacked by now, or will be fetched again; and apt's index of the lists is large.
    fn drop(&mut self) {
        let archives = fs::read_dir(self.state.join("archives")).into_iter().flatten().flatten();
        let indices = ["pkgcache.bin", "srcpkgcache.bin"].map(|name| self.state.join(name));
        for path in archives.map(|entry| entry.path()).chain(indices) {
            // Whatever can't be removed only takes room.
            let _ = fs::remove_file(path);
        }
    }
}

/// One line of `apt-get --print-uris`: `'URI' file size hash`.
struct Package {
    file: String,
    size: u64,
}

impl Package {
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split(' ');
        Some(Self { file: words.next()?.to_string(), size: words.next()?.parse().ok()? })
    }

    /// File names are `name_version_architecture.deb`.
    fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or_default()
    }
}

/// Debian's top-level links: everything lies under /usr.
pub(crate) fn make_usrmerge(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let usr = root.join("usr").join(name);
        fs::create_dir_all(&usr).at(usr)?;
        let link = root.join(name);
        symlink(Path::new("usr").join(name), &link).at(link)?;
    }
    Ok(())
}

/// Unpacks a package: all of it, or only the members that match one of the patterns.
pub(crate) fn unpack(package: &Path, folder: &Path, patterns: &[&str]) -> Result<()> {
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped());
    let start = |program: &str| {
        let program = program.to_string();
        move |source| Error::Start { program, source, hint: NEEDS_APT }
    };
    let mut child = reader.spawn().map_err(start("dpkg-deb"))?;
    let mut tar = Command::new("tar");
    // Packages of before the merge bring a folder /lib where a link is now.
    tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--warning=no-timestamp"]);
    tar.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
    tar.arg("--directory").arg(folder);
    if !patterns.is_empty() {
        tar.arg("--wildcards").args(patterns);
    }
    if let Some(pipe) = child.stdout.take() {
        tar.stdin(Stdio::from(pipe));
    }
    let output = tar.output().map_err(start("tar"));
    let status = child.wait().map_err(start("dpkg-deb"))?;
    let output = output?;
    for (command, status) in [(&tar, output.status), (&reader, status)] {
        if !status.success() {
            return Err(Error::Failed {
                program: command::shown(command),
                status,
                output: command::both(&output),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read() {
        let line = "'http://m.example/debian/pool/main/m/mawk/mawk_1.3_amd64.deb' mawk_1%3a1.3_amd64.deb 1234 SHA256:00";
        let package = Package::parse(line).unwrap();
        assert_eq!((package.file.as_str(), package.size), ("mawk_1%3a1.3_amd64.deb", 1234));
        assert_eq!(package.name(), "mawk");
        assert!(Package::parse("NOTE: something else").is_none());
        assert!(Package::parse("'x").is_none());
    }

    #[test]
    fn closures_are_told_apart() {
        let closure = |suite, packages: &[&str]| Closure {
            suites: vec![Suite::Trixie],
            default_release: suite,
            packages: packages.iter().map(ToString::to_string).collect(),
        };
        let stamp = |closure: Closure| closure.stamp().finish();
        let one = stamp(closure(Suite::Trixie, &["a", "b"]));
        assert_eq!(one, stamp(closure(Suite::Trixie, &["a", "b"])));
        assert_ne!(one, stamp(closure(Suite::Trixie, &["a"])));
        assert_ne!(one, stamp(closure(Suite::TrixieBackports, &["a", "b"])));
    }

    #[test]
    fn the_tree_is_usrmerged() {
        let root = tempfile::tempdir().unwrap();
        make_usrmerge(root.path()).unwrap();
        assert_eq!(fs::read_link(root.path().join("lib64")).unwrap(), Path::new("usr/lib64"));
        assert!(root.path().join("bin").is_dir());
    }
}
