//! What a program pays that polls a work queue which has nothing to give: VIPL's `VipRecvDone` as C calls it, over the direct link.
//!
//! ```sh
//! cargo bench -p vipl --bench poll
//! ```
#![expect(unsafe_code, reason = "calls the C interface")]

use std::ffi::{CString, c_char, c_int, c_ulong, c_ushort, c_void};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use vianic_device::engine::{Engine, NicConfig};
use vianic_device::nic::memory::NicMemory;
use vianic_device::nic::pacing::Limits;
use vianic_device::socket::SocketFile;
use vianic_device::vhost::{EngineCard, Server};
use vianic_device::vito::frame::NicAddress;
// For its C functions.
use vipl as _;

const SUCCESS: c_int = 0;
const NOT_DONE: c_int = 1;
const DESCRIPTOR_ERROR: c_int = 11;

/// `VIP_VI_ATTRIBUTES`.
#[repr(C)]
struct ViAttributes {
    reliability_level: c_ushort,
    max_transfer_size: c_ulong,
    qos: *mut c_void,
    ptag: *mut c_void,
    enable_rdma_write: c_int,
    enable_rdma_read: c_int,
}

/// `VIP_DESCRIPTOR`, of no segments.
#[repr(C, align(64))]
struct Descriptor([u8; 64]);

unsafe extern "C" {
    fn VipOpenNic(name: *const c_char, nic: *mut *mut c_void) -> c_int;
    fn VipCloseNic(nic: *mut c_void) -> c_int;
    fn VipRegisterMem(
        nic: *mut c_void,
        address: *mut c_void,
        length: c_ulong,
        attributes: *const c_void,
        handle: *mut u32,
    ) -> c_int;
    fn VipCreateVi(
        nic: *mut c_void,
        attributes: *const ViAttributes,
        send_cq: *mut c_void,
        receive_cq: *mut c_void,
        vi: *mut *mut c_void,
    ) -> c_int;
    fn VipPostRecv(vi: *mut c_void, descriptor: *mut Descriptor, handle: u32) -> c_int;
    fn VipRecvDone(vi: *mut c_void, descriptor: *mut *mut Descriptor) -> c_int;
}

/// Polls the VI's receive queue, which must have nothing to give.
#[inline]
fn poll(vi: *mut c_void, expected: c_int) {
    let mut descriptor = null_mut();
    // SAFETY: a VI, and room for a pointer.
    let answer = unsafe { VipRecvDone(black_box(vi), &raw mut descriptor) };
    assert!(answer == expected && descriptor.is_null());
}

fn polls(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Arc::new(NicMemory::new().expect("NIC memory"));
    let config = NicConfig {
        address: NicAddress([2, 0, 0, 0, 0, 1]),
        memory: Arc::clone(&memory),
        limits: Limits::default(),
        hostility: None,
    };
    let engine = Engine::start(vec![config]).expect("an engine");
    let path = directory.path().join("nic.sock");
    let card = Arc::new(EngineCard { engine: engine.handle(), nic: 0 });
    let server = Server::start(SocketFile::bind(&path).expect("a socket"), card, memory).expect("a server");

    let name = CString::new(format!("direct:{}", path.display())).expect("no zero in it");
    let attributes = ViAttributes {
        reliability_level: 2,
        max_transfer_size: 4096,
        qos: null_mut(),
        ptag: null_mut(),
        enable_rdma_write: 0,
        enable_rdma_read: 0,
    };
    let descriptor = Box::into_raw(Box::new(Descriptor([0; 64])));
    let (mut nic, mut vi, mut handle) = (null_mut(), null_mut(), 0);
    // SAFETY: good pointers; the descriptor stays for as long as it is posted.
    unsafe {
        assert_eq!(VipOpenNic(name.as_ptr(), &raw mut nic), SUCCESS);
        assert_eq!(VipCreateVi(nic, &raw const attributes, null_mut(), null_mut(), &raw mut vi), SUCCESS);
        let registered = VipRegisterMem(nic, descriptor.cast(), 64, null_mut(), &raw mut handle);
        assert_eq!(registered, SUCCESS);
    }
    criterion.bench_function("VipRecvDone, nothing posted", |bencher| {
        bencher.iter(|| poll(vi, DESCRIPTOR_ERROR));
    });
    // SAFETY: as above.
    assert_eq!(unsafe { VipPostRecv(vi, descriptor, handle) }, SUCCESS);
    criterion.bench_function("VipRecvDone, nothing complete", |bencher| {
        bencher.iter(|| poll(vi, NOT_DONE));
    });
    // SAFETY: a NIC; afterwards nobody uses the descriptor.
    unsafe {
        assert_eq!(VipCloseNic(nic), SUCCESS);
        drop(Box::from_raw(descriptor));
    }
    server.stop();
    engine.stop();
}

criterion_group!(benches, polls);
criterion_main!(benches);
