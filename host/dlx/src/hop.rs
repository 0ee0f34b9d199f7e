//! Marks by which a request that comes back is known.
//!
//! Each pass through this process for one Sleeper puts a mark on the request that only this process can make and read: a hash
//! over a random key, the Sleeper and the number of the pass. A workload that copies the fields of a request into its own calls
//! (A calls B, B calls A) is no loop, so passes are counted, and only the last one is refused. Whoever has no key can neither
//! raise the count of others nor learn names from it.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::rescue::Rescue;

/// Carries the marks of the DLX that forwarded a request.
pub const HOP: HeaderName = HeaderName::from_static("dormouse-hop");
/// How often one request may pass one DLX for one Sleeper. Workloads that call themselves through their Service stay far below
/// it, and a loop costs this many connections until it ends.
pub(crate) const MOST_PASSES: usize = 16;
/// Marks of other DLX that are passed on. Ours goes first, so what is cut off at the end is what a client made up.
const MOST_FOREIGN: usize = 32;
/// Letters of a mark.
const LENGTH: usize = 24;

/// The key of a process's marks. New with every start: a mark means nothing to the next one.
pub(crate) struct HopKey([u8; 32]);

impl Default for HopKey {
    fn default() -> Self {
        Self(rand::random())
    }
}

/// The marks of one Sleeper, by the number of the pass.
#[derive(Debug)]
pub(crate) struct Marks([HeaderValue; MOST_PASSES]);

impl Marks {
    /// Of a Sleeper: its namespace, name and uid.
    pub(crate) fn new(key: &HopKey, sleeper: [&str; 3]) -> Self {
        Self(std::array::from_fn(|pass| {
            let mut hash = Sha256::new_with_prefix(key.0);
            for part in sleeper {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update((pass as u64).to_be_bytes());
            let text = hash.finalize().iter().take(LENGTH / 2).fold(
                String::with_capacity(LENGTH),
                |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                },
            );
            HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
        }))
    }

    /// How often this request has passed before.
    fn passes(&self, headers: &HeaderMap) -> usize {
        let number = |mark: &[u8]| self.0.iter().position(|known| known.as_bytes() == mark);
        let passed = marks(headers).filter_map(number).max();
        passed.map_or(0, |last| last + 1)
    }

    /// The number of this pass, from 0.
    ///
    /// # Errors
    /// [`Rescue::Loop`]: it has passed too often.
    pub(crate) fn pass(&self, headers: &HeaderMap) -> Result<usize, Rescue> {
        let pass = self.passes(headers);
        if pass < MOST_PASSES {
            Ok(pass)
        } else {
            Err(Rescue::Loop)
        }
    }

    /// Replaces this Sleeper's mark by that of the pass. Marks of others stay.
    pub(crate) fn put(&self, headers: &mut HeaderMap, pass: usize) {
        let Some(ours) = self.0.get(pass) else { return };
        let foreign: Vec<HeaderValue> = marks(headers)
            .filter(|mark| is_mark(mark) && !self.0.iter().any(|known| known.as_bytes() == *mark))
            .take(MOST_FOREIGN)
            .filter_map(|mark| HeaderValue::from_bytes(mark).ok())
            .collect();
        headers.insert(HOP, ours.clone());
        for mark in foreign {
            headers.append(HOP, mark);
        }
    }
}

/// What the field holds. A workload that copies fields may have joined several lines to one.
fn marks(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(HOP).iter().map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn is_mark(text: &[u8]) -> bool {
    text.len() == LENGTH
        && text
            .iter()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(headers: &mut HeaderMap, marks: &Marks) -> Result<(), Rescue> {
        let pass = marks.pass(headers)?;
        marks.put(headers, pass);
        Ok(())
    }

    #[test]
    fn hop_a_loop_ends_and_a_call_back_is_none() {
        let process = HopKey::default();
        let (a, b) = (
            Marks::new(&process, ["ns", "a", "uid"]),
            Marks::new(&process, ["ns", "b", "uid"]),
        );
        let mut headers = HeaderMap::new();
        for marks in [&a, &b, &a] {
            through(&mut headers, marks).unwrap();
        }
        assert_eq!(headers.get_all(HOP).iter().count(), 2, "one mark for each");
        let passes = (0..100).take_while(|_| through(&mut headers, &a).is_ok()).count();
        assert_eq!(passes, MOST_PASSES - 2);
        assert_eq!(through(&mut headers, &a), Err(Rescue::Loop));
        assert_eq!(
            through(&mut headers, &b),
            Ok(()),
            "the count is that of one Sleeper"
        );
    }

    #[test]
    fn hop_a_loop_over_two_processes_ends_whatever_a_client_put_there() {
        let (one, two) = (
            Marks::new(&HopKey::default(), ["ns", "a", "uid"]),
            Marks::new(&HopKey::default(), ["ns", "a", "uid"]),
        );
        let mut headers = HeaderMap::new();
        for n in 0..100 {
            headers.append(HOP, HeaderValue::from_str(&format!("{n:024x}")).unwrap());
        }
        let rounds = (0..100)
            .take_while(|_| through(&mut headers, &one).is_ok() && through(&mut headers, &two).is_ok())
            .count();
        assert_eq!(rounds, MOST_PASSES);
        assert!(headers.get_all(HOP).iter().count() <= MOST_FOREIGN + 1);
    }

    #[test]
    fn hop_marks_of_anybody_are_no_loop() {
        let marks = Marks::new(&HopKey::default(), ["ns", "a", "uid"]);
        let mut headers = HeaderMap::new();
        for forged in [
            "me/ns/a",
            "you/ns/a",
            "0",
            "",
            "dormouse",
            "0000000000000000000000ff",
        ] {
            (0..8).for_each(|_| {
                headers.append(HOP, HeaderValue::from_static(forged));
            });
        }
        assert_eq!(through(&mut headers, &marks), Ok(()));
    }

    #[test]
    fn hop_marks_that_a_workload_joined_to_one_line_still_count() {
        let marks = Marks::new(&HopKey::default(), ["ns", "a", "uid"]);
        let mut headers = HeaderMap::new();
        let mut passes = 0;
        while through(&mut headers, &marks).is_ok() {
            passes += 1;
            let joined = headers.get_all(HOP).iter().map(|mark| mark.to_str().unwrap());
            let joined = joined.collect::<Vec<_>>().join(", ") + ",other";
            headers.insert(HOP, HeaderValue::from_str(&joined).unwrap());
            assert!(passes <= MOST_PASSES);
        }
        assert_eq!(passes, MOST_PASSES);
    }

    #[test]
    fn hop_marks_tell_no_names() {
        let marks = Marks::new(&HopKey::default(), ["ns", "secret", "uid"]);
        let mut headers = HeaderMap::new();
        through(&mut headers, &marks).unwrap();
        let mark = headers[HOP].to_str().unwrap();
        assert!(is_mark(mark.as_bytes()), "{mark}");
        let other = Marks::new(&HopKey::default(), ["ns", "secret", "uid"]);
        assert_eq!(other.passes(&headers), 0, "nor can they be made without the key");
    }
}
