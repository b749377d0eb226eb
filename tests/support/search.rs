//! Looking for secrets where they should not be.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

use memchr::memmem::Finder;

use super::hex;

/// Finds secrets, as they are and as they are commonly written.
pub struct Search {
    forms: Vec<(Finder<'static>, String)>,
    /// The same in lower case, for text.
    folded: Vec<(String, String)>,
}

impl Search {
    pub fn of<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let forms: Vec<_> = secrets
            .into_iter()
            .flat_map(|secret| forms_of(secret).into_iter().map(|form| (form, secret.to_owned())))
            .collect();
        Self {
            folded: forms.iter().map(|(form, secret)| (form.to_lowercase(), secret.clone())).collect(),
            forms: forms
                .into_iter()
                .map(|(form, secret)| (Finder::new(form.as_bytes()).into_owned(), secret))
                .collect(),
        }
    }

    /// The secrets that stand in the text, in whatever case.
    pub fn found_in(&self, text: &str) -> Vec<&str> {
        let text = text.to_lowercase();
        let found = self.folded.iter().filter(|(form, _)| text.contains(form));
        named(found.map(|(_, secret)| secret.as_str()))
    }

    /// The secrets that stand in these bytes.
    pub fn found_in_bytes(&self, bytes: &[u8]) -> Vec<&str> {
        let found = self.forms.iter().filter(|(form, _)| form.find(bytes).is_some());
        named(found.map(|(_, secret)| secret.as_str()))
    }

    /// The secrets that stand in the memory of this process: all that it can write to, which is what a core holds beside its
    /// program.
    pub fn found_in_memory_of(&self, pid: u32) -> io::Result<Vec<&str>> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut found = Vec::new();
        let mut read = 0;
        for (from, to) in maps.lines().filter_map(writable) {
            let mut region = vec![0; usize::try_from(to - from).expect("a region that fits")];
            // It may be gone by now, or a guard page.
            if memory.read_exact_at(&mut region, from).is_ok() {
                read += region.len();
                found.extend(self.found_in_bytes(&region));
            }
        }
        assert!(read > 1 << 20, "so little of the process was read that it proves nothing: {read} bytes");
        Ok(named(found.into_iter()))
    }
}

fn named<'s>(found: impl Iterator<Item = &'s str>) -> Vec<&'s str> {
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The addresses of a line of `maps`, if the process can write there.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    words.next()?.starts_with("rw").then_some(())?;
    Some((address(from)?, address(to)?))
}

/// As it is, in JSON, in hex, as numbers, in base64.
fn forms_of(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
    // Base64 of something longer holds it at one of three offsets; the first and last digits depend on neighbours.
    let base64 = (0..3).map(|offset| {
        let padded = [&b"\0\0"[..offset], bytes].concat();
        let digits = base64(&padded);
        let (from, to) = ([0, 2, 3][offset], padded.len() / 3 * 4);
        digits[from..to].to_owned()
    });
    let url_safe = base64.clone().map(|digits| digits.replace('+', "-").replace('/', "_"));
    let json = serde_json::to_string(secret).expect("text is JSON");
    let upper = hex(bytes).to_uppercase();
    let mut forms: Vec<_> = [
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        hex(bytes),
        upper,
        list.join(", "),
        list.join(","),
    ]
    .into_iter()
    .chain(base64)
    .chain(url_safe)
    .collect();
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Base64 without its padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|three| {
            let number = (0..3).fold(0, |number, i| number << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            (0..4).rev().map(move |place| char::from(DIGITS[(number >> (6 * place)) as usize & 63]))
        })
        .collect()
}
