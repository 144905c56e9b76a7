//! The source tree that this command was built from: guests are built from it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The root of the source tree: `$VIANIC_ROOT`, or a directory above this program or the current directory.
pub fn root() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("VIANIC_ROOT") {
        let path = PathBuf::from(given);
        let hint = "VIANIC_ROOT must name vianic's source tree";
        return if is_root(&path) { Ok(path) } else { Err(missing(path, hint)) };
    }
    let program = std::env::current_exe().map_err(Error::io("find this program's own path"))?;
    let here = std::env::current_dir().map_err(Error::io("find the current directory"))?;
    above(&program)
        .or_else(|| above(&here))
        .ok_or_else(|| missing(here, "set VIANIC_ROOT to vianic's source tree, or run vianic from within it"))
}

/// The card's program: the given one, `$VIANIC_DEVICE`, or the one beside this program.
pub fn device(given: Option<&Path>) -> Result<PathBuf> {
    let named = given.map(Path::to_owned).or_else(|| std::env::var_os("VIANIC_DEVICE").map(PathBuf::from));
    let (path, hint) = match named {
        Some(path) => (path, "name the vianic-device binary"),
        None => {
            let program = std::env::current_exe().map_err(Error::io("find this program's own path"))?;
            let hint =
                "build it with `cargo build -p vianic-device`, or name it with --device or VIANIC_DEVICE";
            (beside(&program), hint)
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing { what: "vianic-device", path, hint })
}

/// Programs of one build are in one directory; tests of it are in `deps` below.
fn beside(program: &Path) -> PathBuf {
    let mut dir = program.parent().unwrap_or(Path::new("/"));
    if dir.ends_with("deps") {
        dir = dir.parent().unwrap_or(dir);
    }
    dir.join("vianic-device")
}

fn above(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|dir| is_root(dir)).map(Path::to_owned)
}

fn is_root(dir: &Path) -> bool {
    dir.join("guest-driver/abi/Cargo.toml").is_file() && dir.join("images/Cargo.toml").is_file()
}

fn missing(path: PathBuf, hint: &'static str) -> Error {
    Error::Missing { what: "vianic's source tree", path, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_from_below() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(above(&here.join("src/cli")), here.parent().map(Path::to_owned));
        assert_eq!(above(Path::new("/")), None);
    }

    #[test]
    fn programs_of_a_build_stand_side_by_side() {
        assert_eq!(beside(Path::new("/t/debug/vianic")), Path::new("/t/debug/vianic-device"));
        assert_eq!(beside(Path::new("/t/debug/deps/boot-1f")), Path::new("/t/debug/vianic-device"));
    }
}
