//! The encoding of BitTorrent's messages.

use std::collections::BTreeMap;

/// How deep lists and dictionaries may lie in each other.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dictionary(Dictionary),
}

pub(crate) type Dictionary = BTreeMap<Vec<u8>, Value>;

/// A dictionary with these entries.
pub(crate) fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    let owned = entries.map(|(key, value)| (key.as_bytes().to_vec(), value));
    owned.into_iter().collect()
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::Bytes(bytes.to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        text.as_bytes().into()
    }
}

impl Value {
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn dictionary(&self) -> Option<&Dictionary> {
        match self {
            Value::Dictionary(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => out.extend(format!("i{number}e").as_bytes()),
            Value::Bytes(bytes) => encode_bytes(bytes, out),
            Value::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.encode_to(out));
                out.push(b'e');
            }
            Value::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_bytes(key, out);
                    value.encode_to(out);
                }
                out.push(b'e');
            }
        }
    }

    /// The value that `bytes` are, all of them.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Value> {
        let value = decode_from(&mut bytes, MAX_DEPTH)?;
        bytes.is_empty().then_some(value)
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).as_bytes());
    out.extend(bytes);
}

fn decode_from(left: &mut &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    match left.first()? {
        b'i' => {
            *left = &left[1..];
            Some(Value::Number(number(left, b'e')?))
        }
        b'l' => {
            *left = &left[1..];
            let mut values = Vec::new();
            while !ends(left)? {
                values.push(decode_from(left, depth)?);
            }
            Some(Value::List(values))
        }
        b'd' => {
            *left = &left[1..];
            let mut entries = Dictionary::new();
            while !ends(left)? {
                let key = decode_bytes(left)?;
                entries.insert(key, decode_from(left, depth)?);
            }
            Some(Value::Dictionary(entries))
        }
        _ => decode_bytes(left).map(Value::Bytes),
    }
}

/// Whether a list or a dictionary ends here.
fn ends(left: &mut &[u8]) -> Option<bool> {
    let ends = *left.first()? == b'e';
    if ends {
        *left = &left[1..];
    }
    Some(ends)
}

fn decode_bytes(left: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(number(left, b':')?).ok()?;
    let (bytes, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(bytes.to_vec())
}

fn number(left: &mut &[u8], end: u8) -> Option<i64> {
    let length = left.iter().position(|&byte| byte == end)?;
    let digits = std::str::from_utf8(&left[..length]).ok()?;
    let number = digits.parse().ok()?;
    *left = &left[length + 1..];
    Some(number)
}
