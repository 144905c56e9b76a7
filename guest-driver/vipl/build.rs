//! Names the shared library as programs look for it.
//!
//! Rust itself exports exactly the functions of the C interface and nothing else. Symbol versions cannot be added to
//! that: linkers take no second version script. Programs made for other providers ask for none.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvipl.so.1");
}
