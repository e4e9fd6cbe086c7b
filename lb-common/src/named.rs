//! What is counted has a number, a name, and a sentence. One list makes all of it.

/// An enum, and for each value a name, what it means (its documentation) and one of `$kind`.
macro_rules! named {
    (
        $(#[$meta:meta])* $name:ident;
        $(#[$about:meta])+ $method:ident: $kind:ident;
        $($(#[doc = $doc:literal])+ $value:ident = $number:literal, $text:literal, $of:ident;)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[doc = $doc])+ $value = $number,)+ }

        impl $name {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// The name that people, scripts and metrics see; stable.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            /// What it means, in a sentence.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$value => concat!($($doc),+),)+ }
            }

            $(#[$about])+
            #[inline(always)]
            pub const fn $method(self) -> $kind {
                match self { $(Self::$value => $kind::$of,)+ }
            }

            /// The one with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$value),)+ _ => None }
            }
        }
    };
}
pub(crate) use named;
