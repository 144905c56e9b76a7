//! Tests of the C interface.

mod calls;
mod garbage;
mod header;
