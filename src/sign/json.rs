//! Reading a JSON document without believing it.
//!
//! A strict reader that stops at the first surprise tells its caller one thing at a time, and one that builds a tree
//! forgets what was written twice and how a number was spelled. This one walks the document once, keeps for each
//! member that it was told of whether it was there once, more than once or not at all and what was there instead, and
//! leaves it to the reader of the result to say what is wrong. Values are kept as they stand in the source.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How many arrays and objects may stand inside each other. The usual limit of JSON readers, `serde_json`'s included: what
/// is let through here can be read by the service that asks.
pub(super) const MAX_DEPTH: usize = 127;

/// A value that is kept as it stands in the source.
pub(super) type Source<'de> = &'de RawValue;

/// What sort of value stands somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Sort {
    pub(super) fn of(source: Source<'_>) -> Self {
        match source.get().as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// A string: what it says, and how it is written between its quotation marks.
#[derive(Clone)]
pub(super) struct Text<'de> {
    pub(super) decoded: Cow<'de, str>,
    pub(super) written: &'de str,
}

impl<'de> Text<'de> {
    /// `None` for a value that is no string, and for a string with half a surrogate pair, which says nothing.
    pub(super) fn of(source: Source<'de>) -> Option<Self> {
        let written = source.get().strip_prefix('"')?.strip_suffix('"')?;
        let decoded = if written.contains('\\') {
            Cow::Owned(serde_json::from_str(source.get()).ok()?)
        } else {
            Cow::Borrowed(written)
        };
        Some(Self { decoded, written })
    }
}

/// What was found under a name.
#[derive(Default)]
pub(super) enum Member<T> {
    #[default]
    Absent,
    Once(T),
    Repeated,
    /// What should hold it is no object, or was there more than once.
    OutOfReach,
}

impl<T> Member<T> {
    /// Takes the value that comes next. Only the first of several is kept, and not even that is believed.
    pub(super) fn take<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        T: Deserialize<'de>,
    {
        if let Self::Absent = self {
            *self = Self::Once(map.next_value()?);
        } else {
            map.next_value::<IgnoredAny>()?;
            *self = Self::Repeated;
        }
        Ok(())
    }
}

/// The members of an object that are read. Use [`object!`] to make one.
pub(super) trait Members<'de>: Default {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// None can be known.
    fn out_of_reach() -> Self;

    /// Takes the value of one of them.
    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error>;
}

/// Makes a struct of the members of an object that are read. All others are skipped, repeated or not.
macro_rules! object {
    ($(#[$about:meta])* $name:ident<$de:lifetime> { $($member:ident as $key:literal: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Default)]
        pub(super) struct $name<$de> {
            $(pub(super) $member: $crate::sign::json::Member<$type>,)*
        }

        impl<$de> $crate::sign::json::Members<$de> for $name<$de> {
            const NAMES: &'static [&'static str] = &[$($key),*];

            fn out_of_reach() -> Self {
                Self { $($member: $crate::sign::json::Member::OutOfReach,)* }
            }

            fn take<A: ::serde::de::MapAccess<$de>>(
                &mut self,
                name: &'static str,
                map: &mut A,
            ) -> Result<(), A::Error> {
                match name {
                    $($key => self.$member.take(map),)*
                    _ => map.next_value::<::serde::de::IgnoredAny>().map(|_| ()),
                }
            }
        }
    };
}
pub(super) use object;

/// What stands where an object belongs.
pub(super) enum Object<T> {
    Is(T),
    IsNot(Sort),
}

impl<'de, T: Members<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Of::<Self>(PhantomData))
    }
}

/// What stands where an array belongs. `T` is made from its elements, one after the other.
pub(super) enum Array<T> {
    Is(T),
    IsNot(Sort),
}

/// Something that is made from the elements of an array.
pub(super) trait Elements<'de>: Default {
    type Element: Deserialize<'de>;

    /// Takes the element at this index.
    fn take(&mut self, index: usize, element: Self::Element);
}

impl<'de, T: Elements<'de>> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Of::<Self>(PhantomData))
    }
}

/// Visits any value and fails on none.
struct Of<T>(PhantomData<T>);

/// The part of a visitor that is the same for whatever is not an array or an object.
macro_rules! is_not {
    ($($visit:ident($type:ty) => $sort:ident,)*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(Self::Value::IsNot(Sort::$sort))
        })*

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::IsNot(Sort::Null))
        }

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
    };
}

impl<'de, T: Members<'de>> Visitor<'de> for Of<Object<T>> {
    type Value = Object<T>;

    is_not! {
        visit_bool(bool) => Boolean,
        visit_i64(i64) => Number,
        visit_u64(u64) => Number,
        visit_f64(f64) => Number,
        visit_str(&str) => String,
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object::IsNot(Sort::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = T::default();
        while let Some(name) = map.next_key_seed(Name(T::NAMES))? {
            match name {
                Some(name) => members.take(name, &mut map)?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(Object::Is(members))
    }
}

impl<'de, T: Elements<'de>> Visitor<'de> for Of<Array<T>> {
    type Value = Array<T>;

    is_not! {
        visit_bool(bool) => Boolean,
        visit_i64(i64) => Number,
        visit_u64(u64) => Number,
        visit_f64(f64) => Number,
        visit_str(&str) => String,
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut made = T::default();
        let mut index = 0;
        while let Some(element) = elements.next_element()? {
            made.take(index, element);
            index += 1;
        }
        Ok(Array::Is(made))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Array::IsNot(Sort::Object))
    }
}

/// Reads a key, decoded, and finds it among the names.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|name| *name == key))
    }
}

/// Reads a whole document, which must be UTF-8 without a byte order mark. The error is for a person and shows nothing
/// of the document.
pub(super) fn read<'de, T: Members<'de>>(document: &'de [u8]) -> Result<Object<T>, String> {
    if document.starts_with(b"\xEF\xBB\xBF") {
        return Err("begins with a byte order mark, which JSON must not".to_owned());
    }
    let text = std::str::from_utf8(document)
        .map_err(|error| format!("is not UTF-8: byte {} is wrong", error.valid_up_to()))?;
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Err("is empty".to_owned());
    }
    // Skipping a value doesn't count how deep it is, so the limit is kept here, and nobody pays for it who has fewer
    // brackets than it takes to get there.
    if brackets(document) > MAX_DEPTH && is_too_deep(document) {
        return Err(format!("has more than {MAX_DEPTH} arrays and objects inside each other"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let not_json = |error: serde_json::Error| format!("is not JSON: {error}");
    let read = Object::deserialize(&mut reader).map_err(not_json)?;
    reader.end().map_err(not_json)?;
    Ok(read)
}

fn brackets(document: &[u8]) -> usize {
    // Counted in bytes, a stretch at a time that fits one: several times as fast, since whole registers add up at once.
    let in_stretch =
        |stretch: &[u8]| stretch.iter().fold(0, |sum: u8, byte| sum + u8::from(matches!(byte, b'{' | b'[')));
    document.chunks(usize::from(u8::MAX)).map(in_stretch).map(usize::from).sum()
}

/// Whether brackets outside of strings nest deeper than [`MAX_DEPTH`]. Right for JSON; anything may come out for what is
/// none.
fn is_too_deep(document: &[u8]) -> bool {
    let (mut depth, mut in_string) = (0_usize, false);
    let mut bytes = document.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        Pair<'de> { a as "a": Source<'de>, b as "b": Object<Inner<'de>>, }
    }

    object! {
        Inner<'de> { a as "a": Source<'de>, b as "b": Source<'de>, }
    }

    fn pair(document: &str) -> Result<Object<Pair<'_>>, String> {
        read(document.as_bytes())
    }

    #[test]
    fn a_member_is_absent_or_there_once_or_repeated_whatever_its_key_is_written_as() {
        let Ok(Object::Is(read)) = pair(r#"{"x":1,"x":{"a":1,"a":2},"\u0062":{"a":-0},"a":1,"\u0061":1}"#)
        else {
            panic!("an object")
        };
        assert!(matches!(read.a, Member::Repeated));
        let Member::Once(Object::Is(inner)) = read.b else { panic!("an object") };
        assert!(matches!(inner.a, Member::Once(source) if source.get() == "-0"));
        assert!(matches!(inner.b, Member::Absent));
    }

    #[test]
    fn what_stands_instead_of_an_object_is_named() {
        let sorts = [
            ("null", Sort::Null),
            ("true", Sort::Boolean),
            ("1", Sort::Number),
            ("-1", Sort::Number),
            ("1.5", Sort::Number),
            ("\"\\n\"", Sort::String),
            ("[{}]", Sort::Array),
        ];
        for (document, sort) in sorts {
            assert!(matches!(pair(document), Ok(Object::IsNot(found)) if found == sort), "{document}");
        }
    }

    #[test]
    fn depth_counts_everywhere_but_in_strings() {
        let nested = |levels: usize| format!(r#"{{"skipped":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(pair(&nested(MAX_DEPTH - 1)).is_ok());
        for levels in [MAX_DEPTH, 100_000] {
            assert!(pair(&nested(levels)).is_err_and(|error| error.contains("inside each other")));
        }
        let text = format!(r#"{{"skipped":"\"{}"}}"#, "[".repeat(1000));
        assert!(pair(&text).is_ok());
        let wide = format!(r#"{{"skipped":[{}[]]}}"#, "[],".repeat(1000));
        assert!(pair(&wide).is_ok());
    }

    #[test]
    fn the_deepest_document_that_is_let_through_can_be_read_by_others() {
        let nested = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(pair(&nested).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let cases: [(&[u8], &str); 11] = [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"\xEF\xBB\xBF{}", "byte order mark"),
            (b"{\"x\":\"\xFF\"}", "is not UTF-8: byte 6 is wrong"),
            (b"{", "is not JSON"),
            (b"{}{}", "is not JSON: trailing characters"),
            (b"{} x", "is not JSON: trailing characters"),
            (b"{\"x\":02}", "is not JSON"),
            (b"{\"x\":+2}", "is not JSON"),
            (b"{\"x\":NaN}", "is not JSON"),
            (b"{'x':1}", "is not JSON"),
        ];
        for (document, expected) in cases {
            let error = read::<Pair<'_>>(document).err().unwrap_or_default();
            assert!(error.contains(expected), "{error:?} about {document:?}");
        }
    }

    #[test]
    fn a_text_is_known_decoded_and_as_written() {
        let text = |source: &'static str| Text::of(serde_json::from_str(source).unwrap());
        let escaped = text(r#""caf\u00e9""#).unwrap();
        assert_eq!((&*escaped.decoded, escaped.written), ("café", r"caf\u00e9"));
        let plain = text(r#""café""#).unwrap();
        assert!(matches!(plain.decoded, Cow::Borrowed("café")));
        for none in ["1", "null", r#""\ud800""#, r#"["a"]"#] {
            assert!(text(none).is_none(), "{none}");
        }
    }
}
