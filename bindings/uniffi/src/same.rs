//! Enums that the library returns, once more under the same names, as UniFFI needs them.

/// An enum that has the variants of one of the library, and is made of it.
macro_rules! same {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident = $of:path {
            $($(#[doc = $variant_doc:literal])* $variant:ident,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
        pub enum $name {
            $($(#[doc = $variant_doc])* $variant,)*
        }

        impl From<$of> for $name {
            fn from(of: $of) -> $name {
                use $of as Of;
                match of {
                    $(Of::$variant => $name::$variant,)*
                }
            }
        }
    };
}

pub(crate) use same;
