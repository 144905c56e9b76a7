//! Tests of the C interface.

mod calls;
mod garbage;
mod header;
mod management;
mod name_service;
mod vendor;
