//! Macros that declare the contract's types.

/// Declares a wire value: a transparent integer with named constants. Every bit pattern is a valid value,
/// so reading one from hostile memory is never undefined; a `match` on it must have an arm for the rest.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $value:expr,)+ }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            $($(#[$vmeta])* pub const $variant: $name = $name($value);)+

            /// The constant's name, or `None` for a value that the contract does not define.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self { $($name::$variant => Some(stringify!($variant)),)+ _ => None }
            }
        }

        impl $crate::layout::Names for $name {
            const NAME: &'static str = stringify!($name);
            const CONSTANTS: &'static [(&'static str, u64)] = &[$((stringify!($variant), $value),)+];
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }
    };
}

/// Describes a shared structure ([`Layout`](crate::layout::Layout)) and asserts at compile time that it is as
/// described: its size, its fields' offsets, and that no padding is left unnamed.
macro_rules! shared_layout {
    ($name:ident, $size:expr, { $($field:ident @ $offset:expr),* $(,)? }) => {
        impl $crate::layout::Shared for $name {
            const C_TYPE: $crate::layout::CType = $crate::layout::CType::Struct(stringify!($name));
        }

        impl $crate::layout::Layout for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::layout::Field] = &[
                $($crate::layout::field::<$name, _>(stringify!($field), core::mem::offset_of!($name, $field), |s| &s.$field),)*
            ];
        }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
            let fields = <$name as $crate::layout::Layout>::FIELDS;
            let mut end = 0;
            let mut i = 0;
            while i < fields.len() {
                assert!(fields[i].offset == end, "a field or padding is not listed");
                end += fields[i].size;
                i += 1;
            }
            assert!(end == $size, "a field or padding at the end is not listed");
        };
    };
}

pub(crate) use {open_enum, shared_layout};
