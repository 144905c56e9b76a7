//! Descriptions of the shared structures, made by the macros that declare them: what the C header is
//! generated from and the device reference is checked against.

/// The C type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CType {
    /// An unsigned integer of so many bytes.
    Unsigned(usize),
    /// A structure of this contract.
    Struct(&'static str),
    /// An array of so many elements.
    Array(&'static CType, usize),
}

/// A field of a shared structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// Byte offset.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// C type.
    pub c_type: CType,
}

/// A type that may be a field of a shared structure.
pub trait Shared {
    /// Its C type.
    const C_TYPE: CType;
}

macro_rules! unsigned {
    ($($t:ty),*) => { $(impl Shared for $t { const C_TYPE: CType = CType::Unsigned(size_of::<$t>()); })* };
}
unsigned!(u8, u16, u32, u64);

impl<T: Shared + 'static, const N: usize> Shared for [T; N] {
    const C_TYPE: CType = CType::Array(&T::C_TYPE, N);
}

/// A shared structure.
pub trait Layout: Sized {
    /// Its name.
    const NAME: &'static str;
    /// Its fields in order, padding counted.
    const FIELDS: &'static [Field];
}

#[doc(hidden)]
pub const fn field<S, T: Shared>(name: &'static str, offset: usize, _: fn(&S) -> &T) -> Field {
    Field { name, offset, size: size_of::<T>(), c_type: T::C_TYPE }
}

/// An enumeration of wire values.
pub trait Names {
    /// Its name.
    const NAME: &'static str;
    /// Its constants.
    const CONSTANTS: &'static [(&'static str, u64)];
}
