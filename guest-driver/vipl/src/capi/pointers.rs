//! Pointers and handles as C passes them. Each type stands for a promise that C makes in vipl.h.

use std::ffi::{CStr, c_char, c_void};

use vianic_abi::MAX_DISCRIMINATOR_LEN;
use vianic_abi::NIC_ADDRESS_LEN;
use vianic_abi::command::NetAddress;

use crate::connect::net_address;
use crate::error::{Error, Result};

/// A handle: a value that is never followed.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Handle(*mut c_void);

impl Handle {
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    pub(crate) fn new(value: u64) -> Self {
        Self(std::ptr::without_provenance_mut(usize::try_from(value).unwrap_or_default()))
    }

    #[inline]
    pub(crate) fn value(self) -> u64 {
        self.0.addr() as u64
    }

    /// `None` for null.
    pub(crate) fn given(self) -> Option<u64> {
        (!self.0.is_null()).then(|| self.value())
    }
}

// SAFETY: the value is never followed.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// What C wants to get back in its handler: never followed.
#[derive(Clone, Copy)]
pub(crate) struct HandlerContext(*mut c_void);

impl HandlerContext {
    pub(crate) fn new(value: *mut c_void) -> Self {
        Self(value)
    }

    pub(crate) fn value(self) -> *mut c_void {
        self.0
    }
}

// SAFETY: C takes it on any thread, as vipl.h says.
unsafe impl Send for HandlerContext {}
// SAFETY: as above.
unsafe impl Sync for HandlerContext {}

/// Where to write a result: null, or room for it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    #[cfg(test)]
    pub(crate) fn to(place: &mut T) -> Self {
        Self(place)
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    /// The place, if there is one.
    #[inline]
    pub(crate) fn given(self) -> Option<Self> {
        (!self.0.is_null()).then_some(self)
    }

    /// Writes, if there is room.
    #[inline]
    pub(crate) fn set(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: C promises room for a T, aligned or not.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Insists on room.
    pub(crate) fn required(self) -> Result<Self> {
        if self.0.is_null() {
            Err(Error::InvalidParameter("a pointer for a result is null"))
        } else {
            Ok(self)
        }
    }
}

/// A value to read and to replace: null, or one.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct InOut<T>(*mut T);

/// There is a value, to read and to replace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<T>(*mut T);

impl<T: Copy> InOut<T> {
    #[cfg(test)]
    pub(crate) fn at(place: &mut T) -> Self {
        Self(place)
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    /// As a function with a parameter for any structure takes it.
    pub(crate) fn from_void(place: *mut c_void) -> Self {
        Self(place.cast())
    }

    pub(crate) fn required(self) -> Result<Place<T>> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("a pointer to a value is null"));
        }
        Ok(Place(self.0))
    }
}

impl<T: Copy> Place<T> {
    pub(crate) fn get(self) -> T {
        // SAFETY: not null, and C promises a T, aligned or not.
        unsafe { self.0.read_unaligned() }
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: as above.
        unsafe { self.0.write_unaligned(value) };
    }
}

/// Where to write a string: null, or as much room as another parameter says.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct OutString(*mut c_char);

impl OutString {
    #[cfg(test)]
    pub(crate) fn to(place: &mut [u8]) -> Self {
        Self(place.as_mut_ptr().cast())
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    pub(crate) fn required(self) -> Result<Self> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("a pointer for a name is null"));
        }
        Ok(self)
    }

    /// Writes a string and its zero, for which the caller has seen that there is room.
    pub(crate) fn set(self, text: &str) {
        // SAFETY: C promises the room.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), self.0, text.len());
            self.0.add(text.len()).write(0);
        }
    }
}

/// A structure to read: null, or one.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    #[cfg(test)]
    pub(crate) fn from(place: &T) -> Self {
        Self(place)
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null());

    /// `None` for null.
    pub(crate) fn given(self) -> Option<T> {
        // SAFETY: C promises a T, aligned or not.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    pub(crate) fn required(self) -> Result<T> {
        self.given().ok_or(Error::InvalidParameter("a pointer to parameters is null"))
    }
}

/// A name: null, or a string.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Name(*const c_char);

impl Name {
    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null());

    #[cfg(test)]
    pub(crate) fn from(name: &CStr) -> Self {
        Self(name.as_ptr())
    }

    /// The string, until the call returns.
    pub(crate) fn required(&self) -> Result<&str> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("the name is null"));
        }
        // SAFETY: C promises a string that stays during the call.
        let name = unsafe { CStr::from_ptr(self.0) };
        name.to_str().map_err(|_| Error::InvalidParameter("the name is not UTF-8"))
    }
}

/// Bytes of a `VIP_NET_ADDRESS` before the host's: two lengths.
const LENGTHS: usize = 4;

/// No host part of any provider is longer; what claims to be is no address.
const MAX_HOST_LEN: usize = 64;

/// A `VIP_NET_ADDRESS`, of any length: null, or one that is as long as it says.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct InAddress(*const u8);

impl InAddress {
    #[cfg(test)]
    pub(crate) fn from(bytes: &[u8]) -> Self {
        Self(bytes.as_ptr())
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null());

    fn bytes(self, offset: usize, length: usize) -> Vec<u8> {
        // SAFETY: C promises as many bytes as the address says it has.
        unsafe { std::slice::from_raw_parts(self.0.add(offset), length) }.to_vec()
    }

    fn length_at(self, offset: usize) -> usize {
        match self.bytes(offset, 2)[..] {
            [low, high] => usize::from(u16::from_ne_bytes([low, high])),
            _ => usize::MAX,
        }
    }

    /// Host and discriminator.
    fn parts(self) -> Result<(Vec<u8>, Vec<u8>)> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("a network address is null"));
        }
        let (host_len, discriminator_len) = (self.length_at(0), self.length_at(2));
        if host_len > MAX_HOST_LEN || discriminator_len > MAX_DISCRIMINATOR_LEN {
            return Err(Error::InvalidParameter("a network address has a part that is too long"));
        }
        Ok((self.bytes(LENGTHS, host_len), self.bytes(LENGTHS + host_len, discriminator_len)))
    }

    /// The host part alone: what follows it may be anything. None means this NIC.
    pub(crate) fn host(self) -> Result<Option<[u8; NIC_ADDRESS_LEN]>> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("a network address is null"));
        }
        match self.length_at(0) {
            0 => Ok(None),
            NIC_ADDRESS_LEN => Ok(self.bytes(LENGTHS, NIC_ADDRESS_LEN).first_chunk().copied()),
            _ => Err(Error::InvalidParameter("a host address has 6 bytes")),
        }
    }

    /// An address of this side: its host part may be anything, as programs leave it uninitialised.
    pub(crate) fn local(self) -> Result<NetAddress> {
        let (_, discriminator) = self.parts()?;
        net_address(None, &discriminator)
    }

    /// An address of the other side. No host part means this NIC.
    pub(crate) fn remote(self) -> Result<NetAddress> {
        let (host, discriminator) = self.parts()?;
        let host = match host.len() {
            0 => None,
            NIC_ADDRESS_LEN => host.first_chunk().copied(),
            _ => return Err(Error::InvalidParameter("a host address has 6 bytes")),
        };
        net_address(host, &discriminator)
    }
}

/// Where to write a `VIP_NET_ADDRESS`: null, or room for the longest.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct OutAddress(*mut u8);

impl OutAddress {
    #[cfg(test)]
    pub(crate) fn to(bytes: &mut [u8]) -> Self {
        Self(bytes.as_mut_ptr())
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    pub(crate) fn required(self) -> Result<Self> {
        if self.0.is_null() {
            return Err(Error::InvalidParameter("a pointer for a network address is null"));
        }
        Ok(self)
    }

    /// Writes the host's length and bytes, and nothing else: programs put their discriminator behind it themselves, before
    /// or after. What the length was does not matter.
    pub(crate) fn set_host(self, host: [u8; NIC_ADDRESS_LEN]) {
        let length = u16::try_from(host.len()).unwrap_or_default().to_ne_bytes();
        // SAFETY: C promises room for the longest address.
        unsafe {
            std::ptr::copy_nonoverlapping(length.as_ptr(), self.0, length.len());
            std::ptr::copy_nonoverlapping(host.as_ptr(), self.0.add(LENGTHS), host.len());
        }
    }

    pub(crate) fn set(self, address: &NetAddress) {
        if self.0.is_null() {
            return;
        }
        let host = &address.host[..usize::from(address.host_len).min(NIC_ADDRESS_LEN)];
        let discriminator =
            &address.discriminator[..usize::from(address.discriminator_len).min(MAX_DISCRIMINATOR_LEN)];
        let lengths = [address.host_len.to_ne_bytes(), address.discriminator_len.to_ne_bytes()];
        let mut offset = 0;
        for part in [lengths.as_flattened(), host, discriminator] {
            // SAFETY: C promises room for the longest address, and none is longer than this.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), self.0.add(offset), part.len()) };
            offset += part.len();
        }
    }
}

/// An array of pointers to where addresses go: null, or as long as another value says.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct OutAddresses(*const *mut u8);

impl OutAddresses {
    #[cfg(test)]
    pub(crate) fn from(places: &[*mut u8]) -> Self {
        Self(places.as_ptr())
    }

    #[cfg(test)]
    pub(crate) const NULL: Self = Self(std::ptr::null());

    /// The first `count` of them, none null; no more than C says there are.
    pub(crate) fn take(self, count: usize) -> Result<Vec<OutAddress>> {
        if count > 0 && self.0.is_null() {
            return Err(Error::InvalidParameter("an array of addresses is null"));
        }
        // SAFETY: C promises as many pointers as it says, and the caller asks for no more.
        let place = |i| OutAddress(unsafe { self.0.add(i).read_unaligned() });
        (0..count).map(|i| place(i).required()).collect()
    }
}
