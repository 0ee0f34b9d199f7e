//! Numbers that Dormouse writes on objects, each with the uid of the Sleeper that it belongs to.

use std::collections::BTreeMap;

/// How many Sleepers that share an object keep their stamps on it.
const SHARERS: usize = 8;

/// How the number of a Sleeper is written: `<number>@<uid>`.
pub(crate) fn stamped(number: i64, uid: &str) -> String {
    format!("{number}@{uid}")
}

/// A stamp as the value of a label, which may not hold an `@`.
pub(crate) fn as_label(stamp: &str) -> String {
    stamp.replace('@', ".")
}

/// The number that an annotation holds for the Sleeper of this uid.
pub(crate) fn stamp(annotations: &BTreeMap<String, String>, name: &str, uid: &str) -> Option<i64> {
    stamps(annotations, name)
        .find(|(_, owner)| *owner == uid)
        .map(|(number, _)| number)
}

/// All numbers that an annotation holds, with the uids of their Sleepers. What cannot be read is left out.
pub(crate) fn stamps<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> impl Iterator<Item = (i64, &'a str)> + use<'a> {
    annotations
        .get(name)
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter_map(|one| {
            let (number, uid) = one.split_once('@')?;
            Some((number.parse().ok()?, uid))
        })
}

/// The annotation with the stamp of one Sleeper renewed. The stamps of others that share the object stay, so that they need not
/// write theirs again; of more than [`SHARERS`], the last that were written.
pub(crate) fn restamped(
    annotations: &BTreeMap<String, String>,
    name: &str,
    number: i64,
    uid: &str,
) -> String {
    let mut all: Vec<_> = stamps(annotations, name)
        .filter(|(_, owner)| *owner != uid)
        .map(|(number, owner)| stamped(number, owner))
        .collect();
    all.push(stamped(number, uid));
    all.split_off(all.len().saturating_sub(SHARERS)).join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FENCE, GENERATION};

    #[test]
    fn stamps_of_another_sleeper_are_none() {
        let annotations = BTreeMap::from([(FENCE.to_owned(), stamped(7, "mine"))]);
        assert_eq!(stamp(&annotations, FENCE, "mine"), Some(7));
        assert_eq!(stamp(&annotations, FENCE, "other"), None);
        assert_eq!(stamp(&annotations, GENERATION, "mine"), None);
        let both = restamped(&annotations, FENCE, 3, "other");
        assert_eq!(
            both, "7@mine,3@other",
            "whoever shares an object need not write again"
        );
        let annotations = BTreeMap::from([(FENCE.to_owned(), format!("odd,{both},@,x@y"))]);
        assert_eq!(stamp(&annotations, FENCE, "mine"), Some(7));
        assert_eq!(restamped(&annotations, FENCE, 8, "mine"), "3@other,8@mine");
    }
}
