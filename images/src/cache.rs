//! The cache: what was made once is found again until its inputs change.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    error::{At, Error, Result},
    stamp::Stamp,
};

/// How many artifacts of one name are kept even if they weren't used lately.
const KEPT: usize = 4;

/// An artifact that was used this lately is kept: a running guest may be about to read it.
const IN_USE: Duration = Duration::from_secs(60 * 60);

/// A folder of artifacts. Any number of processes may use it at once.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache: `$VIANIC_CACHE`, else `$XDG_CACHE_HOME/vianic`, else `~/.cache/vianic`.
    ///
    /// # Errors
    /// If none of these is known, or the folder can't be made.
    pub fn open() -> Result<Self> {
        let root = place(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from));
        Self::at(root.ok_or(Error::NoCache)?)
    }

    /// A cache in this folder.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).at(&root)?;
        // Programs are run in other folders, so that the path must not depend on this one.
        let root = root.canonicalize().at(&root)?;
        Ok(Self { root })
    }

    /// Where the cache is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The artifact `name` made from the inputs in `stamp`: as it is in the cache, or made by `make` in an
    /// empty folder that then takes its place. Only one process makes it; others wait for that one.
    ///
    /// # Errors
    /// If `make` fails, or the cache can't be written.
    pub fn artifact(
        &self,
        name: &str,
        stamp: Stamp,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let key = format!("{name}-{}", stamp.finish());
        let place = self.folder("artifacts")?.join(&key);
        if place.is_dir() {
            mark_used(&place);
            return Ok(place);
        }
        let _lock = self.lock(&key)?;
        if place.is_dir() {
            mark_used(&place);
            return Ok(place);
        }
        let scratch = self.scratch()?;
        make(scratch.path())?;
        let made = scratch.keep();
        // Other users may run what is in it, and "now" is when it was used last.
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).at(&made)?;
        mark_used(&made);
        fs::rename(&made, &place).at(&place)?;
        self.remove_old(name, &place)?;
        Ok(place)
    }

    /// Forgets everything made from packages, so that it's made again from what the mirror has by then.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn refresh(&self) -> Result<()> {
        for folder in ["artifacts", "apt"] {
            let path = self.root.join(folder);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(path),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for the lock of this name and holds it.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.folder("locks")?.join(name);
        let file = File::options().write(true).create(true).truncate(false).open(&path).at(&path)?;
        file.lock().at(&path)?;
        Ok(file)
    }

    /// An empty folder in the file system of the cache, which goes when it's dropped.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        let parent = self.folder("scratch")?;
        let scratch = tempfile::Builder::new().prefix("new-").tempdir_in(&parent).at(&parent)?;
        Ok(scratch)
    }

    /// A folder of this name in the cache.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).at(&path)?;
        Ok(path)
    }

    /// Removes artifacts of this name that nobody is likely to want again.
    fn remove_old(&self, name: &str, newest: &Path) -> Result<()> {
        let folder = self.folder("artifacts")?;
        let mut others = Vec::new();
        for entry in fs::read_dir(&folder).at(&folder)? {
            let path = entry.at(&folder)?.path();
            let same = path
                .file_name()
                .and_then(|file| file.to_str())
                .and_then(|file| file.rsplit_once('-'))
                .is_some_and(|(other, _)| other == name);
            if same && path != newest {
                others.push((last_used(&path), path));
            }
        }
        others.sort_by(|one, other| other.cmp(one));
        for (used, path) in others.into_iter().skip(KEPT - 1) {
            if used.elapsed().is_ok_and(|age| age > IN_USE) {
                // It's out of the way first, so that nobody finds half of it.
                let scratch = self.scratch()?;
                if fs::rename(&path, scratch.path().join("old")).is_err() {
                    // Another process was faster.
                    continue;
                }
            }
        }
        Ok(())
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("VIANIC_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("vianic")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/vianic")))
}

/// The time of a folder is when it was last used.
fn mark_used(path: &Path) {
    // A cache that can only be read serves as well.
    if let Ok(folder) = File::open(path) {
        let _ = folder.set_modified(SystemTime::now());
    }
}

fn last_used(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|folder| folder.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn the_environment_says_where() {
        let place_with = |variables: &[(&str, &str)]| {
            place(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        let all = [("VIANIC_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(place_with(&all), Some("/a".into()));
        assert_eq!(place_with(&all[1..]), Some("/b/vianic".into()));
        assert_eq!(place_with(&all[2..]), Some("/c/.cache/vianic".into()));
        assert_eq!(place_with(&[]), None);
    }

    #[test]
    fn an_artifact_is_made_once_for_all() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let made = AtomicU32::new(0);
        let make = |inputs: &str| {
            let stamp = Stamp::new().text(inputs);
            cache.artifact("thing", stamp, |folder| {
                made.fetch_add(1, Ordering::Relaxed);
                fs::write(folder.join("file"), inputs).at(folder)
            })
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| make("one").unwrap());
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read_to_string(make("one").unwrap().join("file")).unwrap(), "one");
        assert_ne!(make("one").unwrap(), make("two").unwrap());
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let failing = cache.artifact("thing", Stamp::new(), |folder| {
            fs::write(folder.join("half"), "").unwrap();
            Err(Error::NoMirror)
        });
        assert!(failing.is_err());
        let place = cache.artifact("thing", Stamp::new(), |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
        assert_eq!(fs::read_dir(root.path().join("scratch")).unwrap().count(), 0);
    }

    #[test]
    fn only_old_artifacts_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let make = |name: &str, inputs: u32| {
            cache.artifact(name, Stamp::new().text(&inputs.to_string()), |_| Ok(())).unwrap()
        };
        let old = SystemTime::now() - 2 * IN_USE;
        let places: Vec<_> = (0..6).map(|inputs| make("thing", inputs)).collect();
        let other = make("thing-else", 0);
        assert!(places.iter().all(|place| place.is_dir()));
        for place in places.iter().chain([&other]) {
            File::open(place).unwrap().set_modified(old).unwrap();
        }
        make("thing", 7);
        assert_eq!(places.iter().filter(|place| place.is_dir()).count(), KEPT - 1);
        assert!(other.is_dir());
    }
}
