//! The Kernel Agent in the kernel: `/dev/vianicN` and its ioctls.
#![expect(unsafe_code, reason = "ioctls")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater};
use vianic_abi::command::{NetAddress, NicList, ViAttributes};
use vianic_abi::completion::{MCQ_ENTRIES_LOG2, mcq_size};
use vianic_abi::nic_memory::NRA_SIZE;
use vianic_abi::status::Status;
use vianic_abi::token_table::{ENTRIES_LOG2, table_size};
use vianic_abi::{ABI_VERSION, uapi};
use zerocopy::FromZeros;

use crate::agent::{
    Agent, AgentError, IncomingRequest, NewVi, NicInfo, OutgoingRequest, Region, RegionChange,
};
use crate::mapping::{Access, ContextMemory, ContextParts, Doorbell, Mapping, REGISTERS_MAP_SIZE};

/// The kernel does not end a wait when the VI or CQ that it is about is destroyed, so a wait for an NRA word looks this
/// often whether there still is something to wait for.
const WAIT_SLICE: Duration = Duration::from_secs(1);

/// Opens the device file at `path`.
///
/// # Errors
/// [`AgentError::NoSuchNic`] if there is no such file or no card behind it.
pub fn open(path: &Path) -> Result<Arc<dyn Agent>, AgentError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Arc::new(KernelAgent { file })),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::NOTDIR | Errno::NAMETOOLONG) => {
                Err(AgentError::NoSuchNic(path.display().to_string()))
            }
            _ => Err(AgentError::Io { call: "open", source: error }),
        },
    }
}

#[derive(Debug)]
struct KernelAgent {
    file: File,
}

/// An ioctl's parameters, which the kernel answers with an outcome.
trait Call {
    fn outcome(&self) -> u32;
}

macro_rules! calls {
    ($($parameters:ident),*) => { $(impl Call for uapi::$parameters {
        fn outcome(&self) -> u32 {
            self.status
        }
    })* };
}
calls!(
    NicInfo,
    OpenContext,
    ObjectCall,
    RegisterMemory,
    DeregisterMemory,
    CreateViCall,
    SetMemoryAttributes,
    SetViAttributes,
    ConnectWait,
    ConnectAnswer,
    ConnectRequest,
    ConnectPeerWait,
    DiscoverNics,
    Wait
);

impl KernelAgent {
    /// One ioctl. The pairs of request and parameters are those of [`uapi`].
    fn ioctl<const REQUEST: Opcode, T>(&self, parameters: &mut T) -> Result<(), Errno> {
        // SAFETY: each request of the contract reads and writes exactly its parameters, of which any bytes are a
        // value; the callers in this file pair them as the contract does, and its size is in the request.
        unsafe {
            const { assert!(size_of::<T>() == (REQUEST >> 16 & 0x3fff) as usize) };
            rustix::ioctl::ioctl(&self.file, Updater::<REQUEST, T>::new(parameters))
        }
    }

    /// An ioctl that does not block, and its outcome.
    fn call<const REQUEST: Opcode, T: Call>(
        &self,
        name: &'static str,
        mut parameters: T,
    ) -> Result<T, AgentError> {
        loop {
            match self.ioctl::<REQUEST, T>(&mut parameters) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failure(name, errno)),
            }
        }
        succeeded(parameters)
    }

    /// An ioctl that blocks up to a time that `set_timeout` sets; after a signal it goes on with what is left.
    fn wait_call<const REQUEST: Opcode, T: Call + Copy>(
        &self,
        name: &'static str,
        parameters: T,
        set_timeout: impl Fn(&mut T, u64),
        timeout: Option<Duration>,
    ) -> Result<T, AgentError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut answer = parameters;
            set_timeout(&mut answer, milliseconds(left));
            match self.ioctl::<REQUEST, T>(&mut answer) {
                Ok(()) => return succeeded(answer),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failure(name, errno)),
            }
        }
    }

    fn map(&self, offset: u64, length: usize, access: Access) -> Result<Mapping, AgentError> {
        let page = rustix::param::page_size();
        Mapping::map(self.file.as_fd(), offset, length.next_multiple_of(page), access)
    }
}

fn failure(call: &'static str, errno: Errno) -> AgentError {
    match errno {
        Errno::NODEV => AgentError::Refused(Status::NIC_FAILED),
        _ => AgentError::Io { call, source: errno.into() },
    }
}

fn succeeded<T: Call>(answer: T) -> Result<T, AgentError> {
    match Status(answer.outcome()) {
        Status::SUCCESS => Ok(answer),
        refusal => Err(AgentError::Refused(refusal)),
    }
}

/// Whole milliseconds, rounded up so that no wait ends early.
fn milliseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(uapi::INFINITE_MS, |timeout| {
        u64::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(uapi::INFINITE_MS)
    })
}

fn object_number(object: u32) -> Result<u16, AgentError> {
    u16::try_from(object).map_err(|_| AgentError::Unusable(format!("object number {object}")))
}

fn object_call(object: u32) -> uapi::ObjectCall {
    uapi::ObjectCall { object, status: 0 }
}

fn mapped_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Agent for KernelAgent {
    fn query_nic(&self) -> Result<NicInfo, AgentError> {
        let answer = self.call::<{ uapi::QUERY_NIC }, _>("QUERY_NIC", uapi::NicInfo::new_zeroed())?;
        Ok(NicInfo { registers: answer.registers, max_register_bytes: answer.max_register_bytes })
    }

    fn open_context(&self) -> Result<ContextMemory, AgentError> {
        let call = uapi::OpenContext { abi_version: ABI_VERSION, ..Default::default() };
        let context =
            self.call::<{ uapi::OPEN_CONTEXT }, _>("OPEN_CONTEXT", call).map_err(|error| match error {
                AgentError::Refused(Status::NOT_SUPPORTED) => AgentError::Unusable(format!(
                    "it is of another version than this library (which is version {ABI_VERSION}); install the same release of both"
                )),
                other => other,
            })?;
        if !ENTRIES_LOG2.contains(&context.token_table_log2) || !MCQ_ENTRIES_LOG2.contains(&context.mcq_log2)
        {
            return Err(AgentError::Unusable(format!("{context:?}")));
        }
        let page = rustix::param::page_size();
        ContextMemory::new(ContextParts {
            context: context.context,
            token_table: self.map(
                uapi::MMAP_TOKEN_TABLE,
                table_size(context.token_table_log2),
                Access::ReadWrite,
            )?,
            token_table_log2: context.token_table_log2,
            mcq: self.map(uapi::MMAP_MCQ, mcq_size(context.mcq_log2), Access::ReadWrite)?,
            mcq_log2: context.mcq_log2,
            nra: self.map(uapi::MMAP_NRA, mapped_size(NRA_SIZE), Access::ReadWrite)?,
            registers: self.map(uapi::MMAP_REGISTERS, REGISTERS_MAP_SIZE, Access::ReadOnly)?,
            doorbell: Doorbell::Store {
                page: self.map(uapi::MMAP_DOORBELL, page, Access::ReadWrite)?,
                offset: context.doorbell_offset,
                value: context.doorbell_value,
            },
        })
    }

    fn create_ptag(&self) -> Result<u32, AgentError> {
        Ok(self.call::<{ uapi::CREATE_PTAG }, _>("CREATE_PTAG", object_call(0))?.object)
    }

    fn destroy_ptag(&self, ptag: u32) -> Result<(), AgentError> {
        self.call::<{ uapi::DESTROY_PTAG }, _>("DESTROY_PTAG", object_call(ptag)).map(drop)
    }

    unsafe fn register_memory(&self, region: &Region) -> Result<u32, AgentError> {
        let call = uapi::RegisterMemory {
            address: region.address as u64,
            length: region.length as u64,
            ptag: region.ptag,
            access: u32::from(region.access),
            ..Default::default()
        };
        Ok(self.call::<{ uapi::REGISTER_MEMORY }, _>("REGISTER_MEMORY", call)?.handle)
    }

    fn deregister_memory(&self, address: usize, handle: u32) -> Result<(), AgentError> {
        let call = uapi::DeregisterMemory { address: address as u64, handle, status: 0 };
        self.call::<{ uapi::DEREGISTER_MEMORY }, _>("DEREGISTER_MEMORY", call).map(drop)
    }

    fn set_memory_attributes(&self, change: &RegionChange) -> Result<(), AgentError> {
        let call = uapi::SetMemoryAttributes {
            address: change.address as u64,
            handle: change.handle,
            ptag: change.ptag,
            access: u32::from(change.access),
            status: 0,
        };
        self.call::<{ uapi::SET_MEMORY_ATTRIBUTES }, _>("SET_MEMORY_ATTRIBUTES", call).map(drop)
    }

    fn create_cq(&self) -> Result<u16, AgentError> {
        object_number(self.call::<{ uapi::CREATE_CQ }, _>("CREATE_CQ", object_call(0))?.object)
    }

    fn destroy_cq(&self, cq: u16) -> Result<(), AgentError> {
        self.call::<{ uapi::DESTROY_CQ }, _>("DESTROY_CQ", object_call(cq.into())).map(drop)
    }

    fn create_vi(&self, vi: &NewVi) -> Result<u16, AgentError> {
        let call = uapi::CreateViCall {
            attributes: vi.attributes,
            ptag: vi.ptag,
            send_cq: vi.send_cq,
            receive_cq: vi.receive_cq,
            ..Default::default()
        };
        object_number(self.call::<{ uapi::CREATE_VI }, _>("CREATE_VI", call)?.vi)
    }

    fn set_vi_attributes(&self, vi: u16, attributes: ViAttributes, ptag: u32) -> Result<(), AgentError> {
        let call = uapi::SetViAttributes { vi: vi.into(), ptag, attributes, ..Default::default() };
        self.call::<{ uapi::SET_VI_ATTRIBUTES }, _>("SET_VI_ATTRIBUTES", call).map(drop)
    }

    fn destroy_vi(&self, vi: u16) -> Result<(), AgentError> {
        self.call::<{ uapi::DESTROY_VI }, _>("DESTROY_VI", object_call(vi.into())).map(drop)
    }

    fn connect_wait(
        &self,
        local: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<IncomingRequest, AgentError> {
        let answer = self.wait_call::<{ uapi::CONNECT_WAIT }, _>(
            "CONNECT_WAIT",
            uapi::ConnectWait { local: *local, ..Default::default() },
            |call, timeout_ms| call.timeout_ms = timeout_ms,
            timeout,
        )?;
        Ok(IncomingRequest {
            connection: answer.connection,
            remote: answer.remote,
            attributes: answer.attributes,
        })
    }

    fn connect_accept(&self, connection: u32, vi: u16) -> Result<(), AgentError> {
        let call = uapi::ConnectAnswer { connection, vi: vi.into(), reserved: 0, status: 0 };
        self.call::<{ uapi::CONNECT_ACCEPT }, _>("CONNECT_ACCEPT", call).map(drop)
    }

    fn connect_reject(&self, connection: u32) -> Result<(), AgentError> {
        let call = uapi::ConnectAnswer { connection, ..Default::default() };
        self.call::<{ uapi::CONNECT_REJECT }, _>("CONNECT_REJECT", call).map(drop)
    }

    fn connect_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<ViAttributes, AgentError> {
        let answer = self.wait_call::<{ uapi::CONNECT_REQUEST }, _>(
            "CONNECT_REQUEST",
            uapi::ConnectRequest {
                local: request.local,
                remote: request.remote,
                vi: request.vi.into(),
                ..Default::default()
            },
            // 0 would be refused, and a signal may come when less than that is left.
            |call, timeout_ms| call.timeout_ms = timeout_ms.max(1),
            timeout,
        )?;
        Ok(answer.attributes)
    }

    fn connect_peer_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<(), AgentError> {
        let call = uapi::ConnectRequest {
            local: request.local,
            remote: request.remote,
            timeout_ms: milliseconds(timeout),
            vi: request.vi.into(),
            ..Default::default()
        };
        self.call::<{ uapi::CONNECT_PEER_REQUEST }, _>("CONNECT_PEER_REQUEST", call).map(drop)
    }

    fn connect_peer_wait(
        &self,
        vi: u16,
        timeout: Option<Duration>,
    ) -> Result<Option<ViAttributes>, AgentError> {
        let answer = self.wait_call::<{ uapi::CONNECT_PEER_WAIT }, _>(
            "CONNECT_PEER_WAIT",
            uapi::ConnectPeerWait { vi: vi.into(), ..Default::default() },
            |call, timeout_ms| call.timeout_ms = timeout_ms,
            timeout,
        );
        match answer {
            Ok(answer) => Ok(Some(answer.attributes)),
            Err(AgentError::Refused(Status::NOT_DONE)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn disconnect(&self, vi: u16) -> Result<(), AgentError> {
        self.call::<{ uapi::DISCONNECT }, _>("DISCONNECT", object_call(vi.into())).map(drop)
    }

    fn discover(&self, first: u32) -> Result<NicList, AgentError> {
        let call = uapi::DiscoverNics { first, ..uapi::DiscoverNics::new_zeroed() };
        Ok(self.call::<{ uapi::DISCOVER }, _>("DISCOVER", call)?.list)
    }

    fn wait(&self, nra_word: u32, seen: u32, timeout: Option<Duration>) -> Result<u32, AgentError> {
        let call = uapi::Wait { nra_word, seen, ..Default::default() };
        let slice = timeout.map_or(WAIT_SLICE, |timeout| timeout.min(WAIT_SLICE));
        let set_timeout = |call: &mut uapi::Wait, timeout_ms| call.timeout_ms = timeout_ms;
        match self.wait_call::<{ uapi::WAIT }, _>("WAIT", call, set_timeout, Some(slice)) {
            Ok(answer) => Ok(answer.seen),
            // Only the slice is over; the caller looks at its queue and waits on.
            Err(AgentError::Refused(Status::TIMEOUT)) if timeout != Some(slice) => Ok(seen),
            Err(error) => Err(error),
        }
    }

    fn shut_down(&self) {
        if let Err(error) = self.call::<{ uapi::SHUT_DOWN }, _>("SHUT_DOWN", object_call(0)) {
            log::warn!("threads that wait for a NIC that is being closed wait on: {error}");
        }
    }
}
